"""Nano tasks: a tiny repository with a bug, the issue about it, and a whole episode that mends it with the tools."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from cascade.chat import Message, Row, ToolCall
from cascade.environments.code import programs
from cascade.environments.swe_agentic.checkout import TOOLS, Checkout
from cascade.environments.swe_agentic.testing import Result, report
from cascade.environments.swe_agentless import repository, tasks
from cascade.environments.swe_agentless.editing import Files
from cascade.environments.swe_agentless.repository import Repository
from cascade.environments.synthetic.story_world import prompt, rows
from cascade.utils.seeds import derive_seed

REQUESTS = (
    "Fix this issue in the repository: {issue}",
    "Please solve the issue. {issue}",
    "Issue: {issue} Find the bug, fix it and submit.",
    "There is a bug in the code. {issue}",
    "Repair the code with the tools, then submit. {issue}",
)


def generate(count: int, seed: int, level: int) -> Iterator[Row]:
    """Rows with what `swe_agentless` rows carry for the verifier, and a demonstration of 3 to 9 turns.

    Raises CascadeError where there is no such level.
    """
    # The base model has read rows drawn under this key.
    return rows("swe_agentic", _row, count, seed, level)


def _row(rng: Random, level: int) -> Row:
    repo = repository.draw(rng, level)
    template = rng.choice(REQUESTS)
    problem = tasks.issue(rng, repo, level)
    request = template.format(issue=problem)
    if len(repo.files) == 1 or rng.random() < 0.2:
        request += f" The function is in {_file_of(repo)}."
    messages: list[Message] = []
    checkout = Checkout(repo.files, lambda files: _run_tests(repo, files))
    told = level < 5

    def act(reasoning: str, name: str, **arguments: str) -> str:
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": "", "reasoning_content": reasoning, "tool_calls": [call]})
        result = checkout.call(ToolCall(name, arguments))
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
    return {
        "environment": "swe_agentic",
        **prompt(request, TOOLS),
        "problem_statement": problem,
        **_with_hidden_tests(repo, f"{problem}\n{request}"),
        # Nobody reads the result of handing in.
        "demonstration": {"messages": messages[:-1]},
    }


def _with_hidden_tests(repo: Repository, key: str) -> Row:
    """What a verifier needs: beside the tests that the tool shows, as many of the broken function that it does not."""
    rng = Random(derive_seed("hidden tests", key))
    of_target = [case for case in repo.cases if case.function == repo.program.name]
    drawn = [
        replace(case, name=f"{case.name}_hidden", arguments=tuple(programs.arguments(rng, repo.program)))
        for case in of_target
    ]
    values = repository.call(repo.fixed, drawn)
    hidden = tuple(replace(case, expected=values[case.name]) for case in drawn)
    failing = tuple(name for name, fault in repository.run(repo.files, hidden).items() if fault)
    whole = replace(repo, cases=repo.cases + hidden, failing=repo.failing + failing)
    return {**tasks.repository_fields(whole), "shown_tests": [case.name for case in repo.cases]}


def _run_tests(repo: Repository, files: Files) -> str:
    """In this process: the code is ours."""
    found = repository.run(dict(files), repo.cases)
    return report([Result(case.call, found[case.name], repr(case.expected)) for case in repo.cases])


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
