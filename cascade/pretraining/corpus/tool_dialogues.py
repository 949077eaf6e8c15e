"""Agentic code repair: whole episodes with tools over a tiny repository, every tool result computed."""

from collections.abc import Callable, Iterator
from random import Random

from cascade.chat import Message, Row
from cascade.environments.story_world import prompt, rows
from cascade.environments.swe_agentless import repository, tasks
from cascade.environments.swe_agentless.repository import Repository

REQUESTS = (
    "Fix this issue in the repository: {issue}",
    "Please solve the issue. {issue}",
    "Issue: {issue} Find the bug, fix it and submit.",
    "There is a bug in the code. {issue}",
    "Repair the code with the tools, then submit. {issue}",
)


def _tool(name: str, description: str, **parameters: str) -> dict:
    properties = {key: {"type": "string"} | ({"description": text} if text else {}) for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "name": name, "description": description, "parameters": schema}


TOOLS = [
    _tool("list_files", "List all files."),
    _tool("view", "Show a file.", path=""),
    _tool("search", "Find lines with a text.", text=""),
    _tool("edit", "Replace a text in a file.", path="", search="old text", replace="new text"),
    _tool("run_tests", "Run the tests."),
    _tool("submit", "Hand in the fix."),
]


class Workspace:
    """A repository as an agent sees and changes it. `call` answers as the tool would; `submitted` ends it."""

    def __init__(self, repo: Repository):
        self.cases = repo.cases
        self.files = dict(repo.files)
        self.submitted = False

    def call(self, name: str, arguments: dict[str, str]) -> str:
        match name:
            case "list_files":
                return "\n".join(self.files)
            case "view":
                path = arguments["path"]
                return self.files[path].rstrip() if path in self.files else f"Error: no file {path}"
            case "search":
                return self._search(arguments["text"])
            case "edit":
                edited = repository.apply_edit(self.files, arguments["path"], arguments["search"], arguments["replace"])
                if edited is None:
                    return "Error: the old text must be in the file once"
                self.files = edited
                return "Done"
            case "run_tests":
                return self._run_tests()
            case "submit":
                self.submitted = True
                return "Submitted"
        return f"Error: no tool {name}"

    def _search(self, text: str) -> str:
        hits = [
            f"{path}:{number}: {line.strip()}"
            for path, source in self.files.items()
            for number, line in enumerate(source.split("\n"), 1)
            if text in line
        ]
        return "\n".join(hits) or "Nothing found"

    def _run_tests(self) -> str:
        results = repository.run(self.files, self.cases)
        failed = [case for case in self.cases if results[case.name]]
        passed = len(self.cases) - len(failed)
        if not failed:
            return f"{passed} passed"
        first = failed[0]
        example = f"FAILED {first.call} {results[first.name]}, expected {first.expected!r}"
        return f"{example}\n{len(failed)} failed, {passed} passed"


def generate(count: int, seed: int, level: int) -> Iterator[Row]:
    """Rows with `messages` (the whole episode), and what `swe_agentless` rows carry for the verifier."""
    return rows("swe_agentic", _row, count, seed, level)


def _row(rng: Random, level: int) -> Row:
    repo = repository.draw(rng, level)
    request = rng.choice(REQUESTS).format(issue=tasks.issue(rng, repo, level))
    if len(repo.files) == 1 or rng.random() < 0.2:
        request += f" The function is in {_file_of(repo)}."
    messages: list[Message] = [{"role": "user", "content": request}]
    workspace = Workspace(repo)
    told = level < 5

    def act(reasoning: str, name: str, **arguments: str) -> str:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": "", "reasoning_content": reasoning, "tool_calls": [call]})
        result = workspace.call(name, arguments)
        messages.append({"role": "tool", "content": result})
        return result

    _find(rng, repo, request, act)
    bad, good = repo.bad.strip(), repo.good.strip()
    checks = rng.random() < 0.85
    # Not where the way to the bug is long already: an episode stays below a thousand tokens.
    wrong = _wrong_fix(rng, repo) if level == 3 and rng.random() < 0.4 else None
    if wrong is not None:
        act(f"`{bad}` looks wrong. Try `{wrong}`.", "edit", path=repo.path, search=bad, replace=wrong)
        act("Check the change.", "run_tests")
        act(f"A test still fails. {tasks.diagnosis(repo, told)}".replace(f"`{bad}`", f"`{wrong}`"), "edit",
            path=repo.path, search=wrong, replace=good)  # fmt: skip
    else:
        act(tasks.diagnosis(repo, told), "edit", path=repo.path, search=bad, replace=good)
    if checks or wrong is not None:
        act("Now run the tests.", "run_tests")
        act("All tests pass. Submit.", "submit")
    else:
        act("The line is fixed. Submit.", "submit")
    return prompt(request, TOOLS) | tasks.repository_fields(repo) | {"messages": messages}


def _find(rng: Random, repo: Repository, request: str, act: Callable[..., str]) -> None:
    """The turns that lead to the file with the bug."""
    if rng.random() < 0.15:
        act("First see which test fails.", "run_tests")
    first = _file_of(repo)
    if first in request:
        act(f"The issue names {first}. View it.", "view", path=first)
    elif len(repo.files) == 1 or rng.random() < 0.4:
        act("See which files there are.", "list_files")
        act(f"{repo.seen_by} may be in {first}. View it.", "view", path=first)
    else:
        act(f"Find where {repo.seen_by} is.", "search", text=f"def {repo.seen_by}")
        act(f"It is in {first}. View it.", "view", path=first)
    if first != repo.path:
        act(f"{repo.seen_by} calls {repo.program.name}. View {repo.path}.", "view", path=repo.path)


def _file_of(repo: Repository) -> str:
    """The file with the function that the issue speaks of."""
    return next(path for path, source in repo.files.items() if f"def {repo.seen_by}(" in source)


def _wrong_fix(rng: Random, repo: Repository) -> str | None:
    """Another change of the bad line that leaves a test failing; None where a few draws find none."""
    bad, good = repo.bad.strip(), repo.good.strip()
    for _ in range(3):
        drawn = repository.draw_line_bug(rng, repo.good)
        if drawn is None:
            continue
        wrong = drawn.strip()
        files = repository.apply_edit(repo.files, repo.path, bad, wrong)
        if wrong not in (bad, good) and files and files[repo.path].count(wrong) == 1:
            results = repository.run(files, repo.cases)
            if any(results.values()):
                return wrong
    return None
