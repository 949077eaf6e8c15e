"""`cascade solve`: a strategy on one problem or a file of them, with the trail of how each answer was found."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cascade.chat import prompt_of
from cascade.commands.checkpoints import directory_of
from cascade.environments.registry import environment_of
from cascade.errors import CascadeError, RowError
from cascade.layout import Layout
from cascade.recipe.sections import Budget, GenerateSelectSubmit, GenerateVerifyRefine, Rollout
from cascade.test_time.requests import Outcome
from cascade.test_time.runner import Runner, Task, checkpoints
from cascade.test_time.search import Plan, Question, Reading, Strategy, check_answers, grading_tasks, tasks
from cascade.test_time.trail import STOP, Trail
from cascade.utils.files import fingerprint, hash_directory, hash_file, read_json, read_jsonl, write_jsonl
from cascade.utils.progress import say

REFINE, SUBMIT = "generate-verify-refine", "generate-select-submit"
"""Names of the strategies."""

SMALL: dict[str, dict[str, int]] = {
    REFINE: {
        "candidates": 8,
        "verifications": 8,
        "keep": 4,
        "critiques": 4,
        "refinements": 2,
        "rounds": 4,
        "grades": 8,
    },
    SUBMIT: {"candidates": 8, "rounds": 4, "inputs": 4},
}
"""Settings for a person at a terminal; a recipe's defaults are the paper's."""


def solve_file(
    named: Sequence[str],
    verifier: str | None,
    file: Path,
    strategy: str | None,
    settings: dict[str, int],
    budget: Budget,
    rollout: Rollout,
    seed: int,
    out: Path | None,
    layout: Layout,
) -> Iterator[str]:
    """The lines to print: each problem's trail and answer. `named`: checkpoints that write; `settings`: of the
    strategy, instead of `SMALL`'s.

    Run again with the same arguments, it goes on where it was killed, or gives the same answers. Raises CascadeError.
    """
    questions = read_questions(file)
    chosen = _strategy(strategy or _suited(questions, file), settings)
    names = list(dict.fromkeys([*named, *([verifier] if verifier else [])]))
    paths = [(name, directory_of(name, layout)) for name in names]
    manifest = {
        "checkpoints": {name: hash_directory(path) for name, path in paths},
        "writers": list(named),
        "verifier": verifier,
        "problems": hash_file(file),
        "strategy": chosen.model_dump(mode="json"),
        "budget": budget.model_dump(mode="json"),
        "rollout": rollout.model_dump(mode="json", exclude={"servers", "weights", "memory"}),
        "seed": seed,
    }
    trail = Trail(out or layout.root / ".cascade" / "solve" / f"{file.stem}-{fingerprint(manifest)[:8]}", manifest)
    say(f"{trail.path}: the trail; a file {STOP} beside it ends the search")
    writers = tuple(names.index(name) for name in named)
    plan = Plan(chosen, budget, rollout.max_new_tokens, writers, (names.index(verifier),) if verifier else writers[:1])
    with ThreadPoolExecutor() as pool, checkpoints(paths, "hf", rollout) as models:
        runner = Runner(models, rollout, trail, pool, (seed, "solve"), budget.seconds)
        searched, ledgers = tasks(questions, plan)

        def report(found: list[Task]) -> None:
            ended = sum(task.outcome is not None for task in found)
            spent = sum(ledger.spent_generations for ledger in ledgers)
            say(f"{ended} of {len(found)} problems ended, {spent:,} responses, {trail.seconds():.0f} s")

        runner.run(searched, report)
        graded = [] if plan.submits else grading_tasks(questions, searched, plan)
        Runner(models, rollout, trail, pool, (seed, "solve")).run(graded)
        checked = [question for question in questions if not plan.submits and _can_check(question)]
        check_answers(checked, trail, pool)
    grades = {task.id: task.outcome.facts.get("grade") for task in graded if task.outcome is not None}
    reading, rows = Reading(trail), []
    for question, task in zip(questions, searched, strict=True):
        assert task.outcome is not None
        truth = reading.truth(question.id, task.outcome.facts.get("key", "")) if question in checked else None
        rows.append(
            {
                "id": question.id,
                "answer": task.outcome.answer,
                "ended": task.outcome.reason,
                **task.outcome.facts,
                **({"grade": grades[question.id]} if question.id in grades else {}),
                **({} if truth is None else {"score": truth}),
            }
        )
        yield from _in_words(question, task.outcome, rows[-1], reading)
    write_jsonl(trail.directory / "answers.jsonl", rows)
    yield f"answers: {trail.directory / 'answers.jsonl'}"


def read_questions(file: Path) -> list[Question]:
    """Rows in NeMo Gym's form of a .jsonl or .json file; any other file is one problem in words. Raises
    CascadeError."""
    if not file.is_file():
        raise CascadeError(f"{file}: no such file; give a .jsonl file of rows, or a text with one problem")
    if file.suffix not in (".jsonl", ".json"):
        text = file.read_text(encoding="utf-8").strip()
        if not text:
            raise CascadeError(f"{file}: empty; write the problem into it")
        return [Question(file.stem, {"responses_create_params": {"input": [{"role": "user", "content": text}]}})]
    rows = list(read_jsonl(file)) if file.suffix == ".jsonl" else [read_json(file)]
    questions: list[Question] = []
    for number, row in enumerate(rows, 1):
        try:
            prompt_of(row)
        except RowError as error:
            raise CascadeError(f"{file}:{number}: {error}") from None
        questions.append(Question(str(row.get("id") or f"{file.stem}-{number}"), row))
    if len({question.id for question in questions}) < len(questions):
        raise CascadeError(f"{file}: two rows have the same id; give each its own")
    if not questions:
        raise CascadeError(f"{file}: no rows")
    return questions


def _suited(questions: list[Question], file: Path) -> str:
    """The strategy that the rows need."""
    kinds = {SUBMIT if "problem" in question.row else REFINE for question in questions}
    if len(kinds) > 1:
        raise CascadeError(f"{file}: some rows have subtasks (`problem`) and others have none; split the file")
    return kinds.pop()


def _strategy(name: str, settings: dict[str, int]) -> Strategy:
    kind: type[Strategy] = GenerateVerifyRefine if name == REFINE else GenerateSelectSubmit
    if unknown := [key for key in settings if key not in kind.model_fields]:
        raise CascadeError(f"--{unknown[0]}: {name} has no such setting; leave it out")
    return kind(name=name, **{**SMALL[name], **settings})  # type: ignore[arg-type]


def _can_check(question: Question) -> bool:
    try:
        environment_of(question.row).check_row(question.row)
    except RowError:
        return False
    return True


def _in_words(question: Question, outcome: Outcome, row: dict[str, Any], reading: Reading) -> Iterator[str]:
    yield f"── {question.id}"
    rows = reading.rows(question.id)
    for mark in outcome.marks:
        if mark.score is not None:
            made = [
                f"{key.split('/')[1]}: {', '.join(line['verdicts'])}"
                for key, line in rows.items()
                if line["kind"] == "submit" and line["round"] == mark.round
            ]
            told = f"{100 * mark.score:.0f} % of the points; submitted {'; '.join(made) or 'nothing'}"
        else:
            rated = [
                f"{key.split('/')[1]} {sum(scores) / len(scores):.2f}"
                for key, line in rows.items()
                if line["kind"] in ("write", "refine") and line["round"] == mark.round
                if (scores := [v.score for v in reading.verifications(question.id, key) if v.score is not None])
            ]
            told = f"ratings {', '.join(rated) or 'none'}; best {mark.key}"
        yield f"round {mark.round}, {mark.generations} responses: {told}"
    facts = [f"ended: {outcome.reason}"]
    for name, words in (("rating", "rating by verifiers"), ("grade", "final grade"), ("score", "true score")):
        if row.get(name) is not None:
            facts.append(f"{words} {row[name]:.2f}")
    yield ", ".join(facts)
    yield outcome.answer or "(no answer)"
