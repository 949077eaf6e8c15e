"""The questions of generate–select–submit: a problem, one of its subtasks, and what was tried."""

from collections.abc import Sequence
from dataclasses import dataclass

from cascade.environments.code.answers import Answer
from cascade.environments.competition.problems import Problem


@dataclass(frozen=True)
class Attempt:
    """A submission, its verdicts by subtask, and its share of all points."""

    answer: Answer
    verdicts: tuple[str, ...]
    score: float


def prompt(
    problem: Problem,
    subtask: int | None = None,
    accepted: Sequence[tuple[int, Answer]] = (),
    rejected: Sequence[Attempt] = (),
) -> str:
    """Ask for a program for a subtask (from 0), or for all. `accepted`: subtasks with programs that solve them;
    `rejected`: own submissions that do not solve this one."""
    parts = [problem.statement]
    if problem.samples:
        shown = [f"Input:\n{test.input.rstrip()}\nOutput:\n{test.output.rstrip()}" for test in problem.samples]
        parts.append("\n".join(shown))
    limits = [f"{number}. {each.points:g} points: {each.limits}" for number, each in enumerate(problem.subtasks, 1)]
    parts.append("\n".join(["Subtasks:", *limits]))
    parts += [f"Accepted for subtask {number + 1}:\n{fenced(answer)}" for number, answer in accepted]
    parts += [f"Rejected:\n{fenced(each.answer)}\n{_verdicts(each)}" for each in rejected]
    target = "all subtasks" if subtask is None else f"subtask {subtask + 1}"
    parts.append(f"Write a program for {target}.")
    return "\n\n".join(parts)


def fenced(answer: Answer) -> str:
    return f"```{answer.language or 'python'}\n{answer.code.rstrip()}\n```"


def _verdicts(attempt: Attempt) -> str:
    told = [f"subtask {number}: {verdict}" for number, verdict in enumerate(attempt.verdicts, 1)]
    return f"{', '.join(told)}; {100 * attempt.score:.0f} %"
