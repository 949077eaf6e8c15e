"""A solve node: a strategy on a benchmark, compared with plain sampling at the same budget."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean
from typing import Any

import torch

from cascade.errors import CascadeError
from cascade.evaluation.benchmark import MAX_FAILURE_RATE
from cascade.layout import Layout
from cascade.recipe import BASE, PLACEMENT, Node, Recipe, SolveNode
from cascade.recipe.library import checkpoint_of
from cascade.test_time import scores
from cascade.test_time.budget import Ledger
from cascade.test_time.requests import Mark
from cascade.test_time.runner import Runner, Task, checkpoints
from cascade.test_time.search import (
    Plan,
    Question,
    Reading,
    check_answers,
    grading_tasks,
    plain_tasks,
    round_sizes,
    tasks,
)
from cascade.test_time.trail import STOP, Trail
from cascade.tracking import Journal
from cascade.tracking.curves import as_csv
from cascade.training.prompts import load_prompts
from cascade.utils.files import fingerprint, hash_directory, hash_file, write_atomic, write_json, write_jsonl
from cascade.utils.progress import Progress, say

SIGNIFICANT = 4
"""Decimals of the scores in a node's files."""

HEADLINE = {False: "best of n", True: "best of k"}
"""What a strategy is compared with: answers by their verifications; programs submitted as they come."""


def solve(recipe: Recipe, name: str, layout: Layout) -> dict[str, Any]:
    """Search every problem of the node's benchmark and write results/solutions/NODE; return the summary.

    The trail lies in the node's work directory until the node is finished, so that a node that was killed goes on. A
    file STOP there ends the search; what was found is written, and the trail stays, to go on from once it is removed.
    Raises CascadeError for a missing checkpoint or benchmark, a trail of other inputs, and where more than a tenth of
    the programs or answers could not be judged.
    """
    node = recipe.solve[name]
    paths = [(checkpoint, checkpoint_of(recipe, layout, checkpoint)) for checkpoint in node.checkpoints]
    benchmark = layout.benchmark(node.benchmark)
    if not benchmark.exists():
        raise CascadeError(f"{benchmark}: no such file; curation writes it (`cascade node curate`)")
    prompts = load_prompts(benchmark, node.benchmark)[: node.problems]
    questions = [Question(prompt.id, prompt.row) for prompt in prompts]
    manifest = {
        "node": name,
        "checkpoints": {checkpoint: hash_directory(path) for checkpoint, path in paths},
        "problems": hash_file(benchmark),
        "section": node.model_dump(mode="json", exclude={"rollout": PLACEMENT}),
        "seed": recipe.seed,
        "threads": recipe.threads,
        **recipe.judges.inputs,
    }
    journal = _open_journal(recipe, name, layout, manifest)
    trail = Trail(layout.work(name), manifest)
    if trail.resumed:
        say(f"{name}: going on after {trail.resumed} rows of {trail.path}")
    say(f"{name}: a file {trail.directory / STOP} ends the search")
    plan = plan_of(node)
    torch.set_num_threads(recipe.threads)
    section = recipe.node(node.init) if node.init != BASE else None
    engine = section.engine if isinstance(section, Node) else "hf"
    with (
        ThreadPoolExecutor(max_workers=max(recipe.judging_threads, _processors())) as pool,
        checkpoints(paths, engine, node.rollout, recipe.threads) as models,
    ):
        began = time.perf_counter()
        runner = Runner(models, node.rollout, trail, pool, (recipe.seed, name), node.budget.seconds)
        searched, ledgers = tasks(questions, plan)
        runner.run(searched, _progress(name, plan, questions, ledgers))
        after = Runner(models, node.rollout, trail, pool, (recipe.seed, name))
        graded = [] if plan.submits else grading_tasks(questions, searched, plan)
        after.run(graded)
        plain = plain_tasks(questions, plan) if node.plain else []
        after.run(plain)
        failures = runner.failures + after.failures
        checking = time.perf_counter()
        if not plan.submits:
            failures += check_answers(questions, trail, pool)
        checking = time.perf_counter() - checking
    _check_failures(name, failures, trail)
    complete = not after.stopped
    grades = {task.id: task.outcome.facts["grade"] for task in graded if task.outcome and "grade" in task.outcome.facts}
    reading = Reading(trail)
    summary, answers = conclude(questions, searched, ledgers, reading, plan, name, grades, bool(plain) and complete)
    stopped = runner.stopped or after.stopped
    sampling = runner.seconds.sampling + after.seconds.sampling
    executing = runner.seconds.executing + after.seconds.executing + checking
    summary = {
        "checkpoints": manifest["checkpoints"],
        "benchmark": node.benchmark,
        "strategy": node.strategy.name,
        **summary,
        "stopped": stopped,
        "seconds": {
            "all": round(trail.seconds(), 1),
            "sampling": round(sampling, 1),
            "executing": round(executing, 1),
            "orchestration": round(1 - (sampling + executing) / (time.perf_counter() - began), 4),
        },
    }
    _publish(layout, name, node, summary, answers, trail, manifest)
    _record(journal, layout, name, summary)
    if stopped:
        say(f"{name}: ended early, {stopped}; the trail stays in {trail.directory}")
    else:
        shutil.rmtree(trail.directory, ignore_errors=True)
    return summary


def plan_of(node: SolveNode) -> Plan:
    names = node.checkpoints
    writers = tuple(names.index(writer) for writer in node.writers)
    verifiers = tuple(names.index(verifier) for verifier in node.verifiers or [node.init])
    return Plan(node.strategy, node.budget, node.rollout.max_new_tokens, writers, verifiers)


def conclude(
    questions: Sequence[Question],
    searched: Sequence[Task],
    ledgers: Sequence[Ledger],
    reading: Reading,
    plan: Plan,
    name: str,
    grades: dict[str, float | None],
    with_plain: bool,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary and one row for each problem. Scores are true: by the hidden judge, or the environment."""
    outcomes = {task.id: task.outcome for task in searched if task.outcome is not None}

    def score_of(problem: str, mark: Mark) -> float:
        if mark.score is not None:
            return mark.score
        return 0.0 if mark.key is None else reading.truth(problem, mark.key)

    marks = {problem: outcome.marks for problem, outcome in outcomes.items()}
    final = {problem: score_of(problem, found[-1]) if found else 0.0 for problem, found in marks.items()}
    most = max(plan.most_generations(_subtasks(question, plan)) for question in questions)
    grid = _grid(plan, most, questions)
    methods: dict[str, dict[int, scores.Scores]] = {
        "strategy": {
            budget: {
                problem: score_of(problem, mark) if (mark := scores.at_budget(found, budget)) else 0.0
                for problem, found in marks.items()
            }
            for budget in grid
        }
    }
    if with_plain:
        methods |= _plain_methods(questions, reading, plan, grid, ledgers)
    curve = [
        {"budget": budget, "method": method, **_rounded(scores.with_interval(values))}
        for method, by_budget in methods.items()
        for budget, values in by_budget.items()
        if method != "strategy" or budget >= min((m[0].generations for m in marks.values() if m), default=budget)
    ]
    plain = {method: by_budget[grid[-1]] for method, by_budget in methods.items() if method != "strategy"}
    answers = [
        {
            "id": question.id,
            "answer": outcomes[question.id].answer,
            "score": final[question.id],
            "ended": outcomes[question.id].reason,
            "generations": ledger.spent_generations,
            "tokens": ledger.spent_tokens,
            **outcomes[question.id].facts,
            **({"grade": grades[question.id]} if question.id in grades else {}),
            **({"plain": {method: found[question.id] for method, found in plain.items()}} if plain else {}),
        }
        for question, ledger in zip(questions, ledgers, strict=True)
    ]
    summary: dict[str, Any] = {
        "problems": len(questions),
        "budget": most,
        **_rounded(scores.with_interval(final)),
        "spent": {
            "generations": sum(ledger.spent_generations for ledger in ledgers),
            "tokens": sum(ledger.spent_tokens for ledger in ledgers),
            "submissions": sum(ledger.spent_submissions for ledger in ledgers),
        },
        "ended": dict(sorted(Counter(outcome.reason for outcome in outcomes.values()).items())),
        "rounds": _rounds(marks, score_of, plan, reading),
        "curve": curve,
    }
    if plain:
        summary["plain"] = {
            method: {
                **_rounded(scores.with_interval(values)),
                **(
                    {"difference": _rounded(scores.difference(final, values, "solve", name, method))}
                    if len(questions) > 1
                    else {}
                ),
            }
            for method, values in plain.items()
        }
    if not plan.submits:
        summary["verifier"] = scores.calibration(_verified(questions, reading))
        valid = [grade for grade in grades.values() if grade is not None]
        summary["graded"] = round(fmean(valid), SIGNIFICANT) if valid else None
    return summary, answers


def _plain_methods(
    questions: Sequence[Question], reading: Reading, plan: Plan, grid: list[int], ledgers: Sequence[Ledger]
) -> dict[str, dict[int, scores.Scores]]:
    if not plan.submits:
        pools = {question.id: reading.plain_answers(question.id) for question in questions}
        each = plan.strategy.verifications  # type: ignore[union-attr]
        return {
            "best of n": {
                b: {q: scores.best_of_n(pool, each, b, q, b) for q, pool in pools.items()} for b in grid if b > each
            },
            "majority vote": {b: {q: scores.majority(pool, b, q, b) for q, pool in pools.items()} for b in grid},
            "pass@k": {b: {q: scores.pass_at(pool, b) for q, pool in pools.items()} for b in grid},
        }
    # As many submissions as the strategy was allowed; without a limit, as it made.
    allowed = {
        question.id: plan.budget.submissions or max(ledger.spent_submissions, 1)
        for question, ledger in zip(questions, ledgers, strict=True)
    }
    programs = {question.id: (question.problem, reading.plain_programs(question.id)) for question in questions}
    choices: dict[str, scores.Choice] = {
        "best of k": scores.first_submitted,
        "samples passed": scores.samples_passed,
        "majority vote": scores.largest_groups,
        "pass@k": scores.all_submitted,
    }
    return {
        method: {
            b: {q: scores.expected(p, pool, choice, b, allowed[q], q, b) for q, (p, pool) in programs.items()}
            for b in grid
        }
        for method, choice in choices.items()
    }


def _grid(plan: Plan, most: int, questions: Sequence[Question]) -> list[int]:
    """Budgets of the curve: powers of two, the ends of full rounds, the whole."""
    ends = [] if plan.submits else round_sizes(plan.strategy, len(plan.writers))  # type: ignore[arg-type]
    return sorted({*scores.budgets(most), *(end for end in ends if end < most)})


def _rounds(marks: dict[str, list[Mark]], score_of: Any, plan: Plan, reading: Reading) -> list[dict[str, Any]]:
    """For each round: problems that had it, the mean score after it over all problems, its responses, and of answers in
    words how many of it are right."""
    found = []
    for number in range(1, max((mark.round for of in marks.values() for mark in of), default=0) + 1):
        after = [
            score_of(problem, within[-1]) if (within := [m for m in of if m.round <= number]) else 0.0
            for problem, of in marks.items()
        ]
        spent = [within[-1].generations for of in marks.values() if (within := [m for m in of if m.round <= number])]
        row: dict[str, Any] = {
            "round": number,
            "problems": sum(any(mark.round == number for mark in of) for of in marks.values()),
            "score": round(fmean(after), SIGNIFICANT),
            "generations": round(fmean(spent), 1) if spent else 0.0,
        }
        if not plan.submits:
            written = [
                reading.truth(problem, key)
                for problem in marks
                for key, line in reading.rows(problem).items()
                if line["kind"] in ("write", "refine") and line["round"] == number
            ]
            row |= {"answers": len(written), "right": round(fmean(written), SIGNIFICANT) if written else 0.0}
        found.append(row)
    return found


def _verified(questions: Sequence[Question], reading: Reading) -> list[tuple[float, float]]:
    """Score of each verification, and the truth about its answer."""
    return [
        (each.score, reading.truth(question.id, key))
        for question in questions
        for key, row in reading.rows(question.id).items()
        if row["kind"] in ("write", "refine")
        for each in reading.verifications(question.id, key)
        if each.score is not None
    ]


def _subtasks(question: Question, plan: Plan) -> int:
    return len(question.problem.subtasks) if plan.submits else 1


def _progress(name: str, plan: Plan, questions: Sequence[Question], ledgers: Sequence[Ledger]) -> Any:
    """Prints best score so far, spent, and time left should all of the budget be used."""
    most = sum(plan.most_generations(_subtasks(question, plan)) for question in questions)
    progress = Progress(name, most, 0)

    def report(found: list[Task]) -> None:
        spent = sum(ledger.spent_generations for ledger in ledgers)
        ended = [task for task in found if task.outcome is not None]
        best = [
            mark.score
            for task in ended
            if task.outcome and task.outcome.marks
            if (mark := task.outcome.marks[-1]).score is not None
        ]
        ratings = [
            rating for task in ended if task.outcome and (rating := task.outcome.facts.get("rating")) is not None
        ]
        fields = {"ended": f"{len(ended)}/{len(found)}", "tokens": f"{sum(one.spent_tokens for one in ledgers):,}"}
        if values := [value for value in [*best, *ratings] if value is not None]:
            fields["best"] = f"{100 * fmean(values):.1f} %"
        progress.step(max(spent, 1) - 1, fields)

    return report


def _check_failures(name: str, failures: list[str], trail: Trail) -> None:
    judged = sum(row["kind"] in ("try", "submit", "judge", "check", "failed") for row in trail.rows())
    if len(failures) > MAX_FAILURE_RATE * judged:
        counts = ", ".join(f"{code} {count}" for code, count in Counter(failures).most_common())
        raise CascadeError(
            f"{name}: {len(failures)} of {judged} answers could not be judged ({counts}), above "
            f"{MAX_FAILURE_RATE:.0%}; fix the cause, remove {trail.directory}, then rerun"
        )


def _open_journal(recipe: Recipe, name: str, layout: Layout, manifest: dict[str, Any]) -> Journal:
    node = recipe.solve[name]
    journal = Journal(layout.journal(name))
    journal.rewind(0)
    journal.params(node.model_dump(mode="json"))
    journal.tags({"inputs_hash": fingerprint(manifest)})
    benchmark = layout.benchmark(node.benchmark)
    journal.dataset(f"benchmark/{node.benchmark}", benchmark, manifest["problems"], "evaluation")
    return journal


def _record(journal: Journal, layout: Layout, name: str, summary: dict[str, Any]) -> None:
    """The curve by its budget as step, and the final scores at the last one."""
    by_budget: dict[int, dict[str, float]] = {}
    for point in summary["curve"]:
        key = metric_part(point["method"])
        by_budget.setdefault(point["budget"], {})[f"solve/{key}"] = point["score"]
    for budget, values in sorted(by_budget.items()):
        journal.metrics(values, step=budget)
    final = {"solve/score": summary["score"], "solve/ci_low": summary["ci_low"], "solve/ci_high": summary["ci_high"]}
    final |= {f"solve/spent/{key}": float(value) for key, value in summary["spent"].items()}
    if "accuracy" in summary.get("verifier", {}):
        final["solve/verifier_accuracy"] = summary["verifier"]["accuracy"]
    for method, values in summary.get("plain", {}).items():
        if "difference" in values:
            final[f"solve/above/{metric_part(method)}"] = values["difference"]["difference"]
    journal.metrics(final, step=summary["budget"])
    for file in ("summary.json", "curve.csv", "answers.jsonl"):
        journal.artifact(layout.solution(name) / file, "solutions")


def metric_part(method: str) -> str:
    return method.replace(" ", "_")


def _publish(
    layout: Layout,
    name: str,
    node: SolveNode,
    summary: dict[str, Any],
    answers: list[dict[str, Any]],
    trail: Trail,
    manifest: dict[str, Any],
) -> None:
    out = layout.solution(name)
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "trail.jsonl", trail.rows())
    write_jsonl(out / "answers.jsonl", answers)
    columns = ["budget", "method", "score", "ci_low", "ci_high"]
    write_atomic(out / "curve.csv", as_csv(columns, [[point[c] for c in columns] for point in summary["curve"]]))
    write_json(out / "manifest.json", manifest)
    write_json(out / "summary.json", summary)
    write_json(layout.root / "results" / "scores" / f"{name}.json", {node.benchmark: summary["score"]})


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, SIGNIFICANT) for key, value in values.items()}


def _processors() -> int:
    return len(os.sched_getaffinity(0))
