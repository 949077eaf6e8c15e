"""Agentless code repair: an issue and the files in the prompt, a SEARCH/REPLACE block as the answer."""

import re
from collections.abc import Iterator
from random import Random

from cascade.chat import Row
from cascade.pretraining.corpus import repository
from cascade.pretraining.corpus.common import prompt, rows
from cascade.pretraining.corpus.repository import Files, Repository

_BLOCK = re.compile(
    r"```python\n### ([^\n]+)\n<{7} SEARCH\n(.*?)\n={7}\n(.*?)\n?>{7} REPLACE\n```", re.DOTALL
)  # fmt: skip

INTRODUCTIONS = (
    "Fix the bug described in the issue.",
    "There is a bug in this code. Mend it.",
    "Please repair the code so that the issue is solved.",
    "Find the wrong line and correct it.",
    "Solve this issue.",
)
ENDINGS = (
    "Answer with a SEARCH/REPLACE block.",
    "Write the change as a SEARCH/REPLACE block.",
    "Give one SEARCH/REPLACE edit.",
)
SYMPTOMS = (
    "`{call}` {got}, but it should return {want}.",
    "`{call}` {got}. I expected {want}.",
    "I called `{call}`: it {got} and not {want}.",
    "Calling `{call}` {got}; the right answer is {want}.",
    "Wrong result: `{call}` {got}. It should be {want}.",
)
TITLES = ("`{name}` is wrong", "Bug in `{name}`", "`{name}` does not work", "Problem with `{name}`", "Fix `{name}`")
DUTIES = ("It should return {says}.", "It must return {says}.", "The function returns {says}, or should.")


def generate(count: int, seed: int, level: int) -> Iterator[Row]:
    """Rows with `files`, `tests` (pytest files), `FAIL_TO_PASS`, `PASS_TO_PASS`, `bug` and the golden `patch`."""
    return rows("swe_agentless", _row, count, seed, level)


def render_block(path: str, search: str, replace: str) -> str:
    return f"```python\n### {path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n```"


def apply_blocks(files: Files, answer: str) -> Files | None:
    """The files after every SEARCH/REPLACE block of the answer; None where there is none or one does not apply."""
    blocks = _BLOCK.findall(answer)
    for path, search, new in blocks:
        edited = repository.apply_edit(files, path.strip(), search, new)
        if edited is None:
            return None
        files = edited
    return files if blocks else None


def issue(rng: Random, repo: Repository, level: int) -> str:
    """The issue's text: a title, one failing call, and up to level 3 always what the function is for."""
    case, got = repo.symptom(rng)
    symptom = rng.choice(SYMPTOMS).format(call=case.call, got=got, want=repr(case.expected))
    parts = [rng.choice(TITLES).format(name=repo.seen_by)] if rng.random() < 0.6 else []
    if repo.seen_by == repo.program.name:
        duty = rng.choice(DUTIES).format(says=repo.program.says)
        parts += rng.sample([symptom, duty], 2) if parts else [symptom, duty]
    else:
        parts.append(symptom)
        if level == 4:
            parts.append(f"`{repo.program.name}` should return {repo.program.says}.")
    return " ".join(part if part.endswith(".") else part + "." for part in parts)


def render_files(files: Files) -> str:
    return "\n".join(f"### {path}\n```python\n{source.rstrip()}\n```" for path, source in files.items())


def diagnosis(repo: Repository, told: bool) -> str:
    """Why the line is wrong, in words. `told`: the issue says what the function is for."""
    parts = []
    if repo.seen_by != repo.program.name:
        parts.append(f"{repo.seen_by} calls {repo.program.name} in {repo.path}.")
    if told:
        parts.append(f"{repo.program.name} should return {repo.program.says}. {repo.program.plan}")
    fault = {"missing return": "has no return", "off by one": "is off by one"}.get(repo.kind, f"has {repo.kind}")
    if repo.kind.startswith("wrong"):
        fault = f"has the {repo.kind}"
    parts.append(f"`{repo.bad.strip()}` {fault}. It should be `{repo.good.strip()}`.")
    return " ".join(parts)


def repository_fields(repo: Repository) -> Row:
    """What a verifier needs."""
    return {
        "files": repo.files,
        "tests": repo.tests,
        "FAIL_TO_PASS": list(repo.failing),
        "PASS_TO_PASS": list(repo.passing),
        "bug": repo.kind,
        "patch": {"path": repo.path, "search": repo.bad, "replace": repo.good},
    }


def _row(rng: Random, level: int) -> Row:
    repo = repository.draw(rng, level)
    paths = list(repo.files)
    rng.shuffle(paths)
    text = "\n\n".join(
        [
            rng.choice(INTRODUCTIONS),
            f"Issue: {issue(rng, repo, level)}",
            render_files({path: repo.files[path] for path in paths}),
            rng.choice(ENDINGS),
        ]
    )
    block = render_block(repo.path, repo.bad, repo.good)
    demonstration = {"reasoning": diagnosis(repo, told=level < 5), "content": block, "tool_calls": []}
    return prompt(text) | repository_fields(repo) | {"demonstration": demonstration}
