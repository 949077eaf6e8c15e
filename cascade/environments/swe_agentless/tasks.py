"""Nano tasks: a tiny repository with a bug, the issue about it, and the SEARCH/REPLACE block that mends it."""

from collections.abc import Iterator
from random import Random
from typing import Any

from cascade.chat import Row
from cascade.environments.registry import check_level
from cascade.environments.swe_agentless import repository
from cascade.environments.swe_agentless.answers import DIVIDER, REPLACE, SEARCH
from cascade.environments.swe_agentless.diffs import render_diff
from cascade.environments.swe_agentless.editing import Edit, place
from cascade.environments.swe_agentless.repository import Files, Repository
from cascade.utils.seeds import derive_seed

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
    """Rows with what a verifier needs (`repository_fields`); row i depends on (seed, level, i) alone.

    Raises CascadeError where there is no such level.
    """
    check_level("swe_agentless", level)
    # The base model has read rows drawn under this key.
    return (
        _row(Random(derive_seed("corpus", "swe_agentless", seed, level, index)), level, f"{seed}-{level}-{index}")
        for index in range(count)
    )


def render_block(path: str, search: str, replace: str) -> str:
    return f"```python\n### {path}\n{SEARCH}\n{search}\n{DIVIDER}\n{replace}\n{REPLACE}\n```"


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


def repository_fields(repo: Repository) -> dict[str, Any]:
    """What a verifier needs, in SWE-bench's names; beside them the files, the test files and the bug's kind."""
    fix = place(repo.files, [Edit(repo.path, (repo.bad,), (repo.good,))])
    return {
        "files": repo.files,
        "tests": repo.tests,
        "FAIL_TO_PASS": list(repo.failing),
        "PASS_TO_PASS": list(repo.passing),
        "patch": render_diff(fix),
        "bug": repo.kind,
    }


def _row(rng: Random, level: int, number: str) -> Row:
    repo = repository.draw(rng, level)
    paths = list(repo.files)
    rng.shuffle(paths)
    introduction = rng.choice(INTRODUCTIONS)
    problem = issue(rng, repo, level)
    shown = render_files({path: repo.files[path] for path in paths})
    prompt = "\n\n".join([introduction, f"Issue: {problem}", shown, rng.choice(ENDINGS)])
    return {
        "id": f"swe_agentless-{number}",
        "environment": "swe_agentless",
        "domain": "swe_agentless",
        "level": level,
        "responses_create_params": {"input": [{"role": "user", "content": prompt}]},
        "problem_statement": problem,
        **repository_fields(repo),
        "demonstration": {
            "reasoning": diagnosis(repo, told=level < 5),
            "content": render_block(repo.path, repo.bad, repo.good),
        },
    }
