"""Generate–select–submit: programs for each subtask, run on samples and generated inputs, grouped by what they do; the
largest groups are submitted, and the next round's prompt tells what was accepted and what was not.

After the IOI and ICPC pipelines of arXiv 2603.19220 and GenCorrect (arXiv 2609.02849).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cascade.chat import Response
from cascade.environments.code.answers import Answer
from cascade.environments.competition import answer_of
from cascade.environments.competition.judging import Judgement, Trial
from cascade.environments.competition.problems import Problem
from cascade.environments.competition.wording import Attempt, fenced, prompt
from cascade.recipe.sections import GenerateSelectSubmit
from cascade.test_time.budget import Ledger
from cascade.test_time.requests import Generate, Generated, Mark, Outcome, Role, Search, Stopped, Submit, TryOut


@dataclass(frozen=True)
class Tried:
    """A candidate program, and what it did; None where it could not be run."""

    key: str
    program: Answer
    trial: Trial | None

    def group(self, subtask: int) -> tuple[str, ...]:
        """What programs that behave alike on a subtask have in common; without generated inputs, the text."""
        return (self.trial.behaviours[subtask] if self.trial else ()) or (self.program.code,)


@dataclass
class State:
    """What is known of a problem: the best share of each subtask, a program that earned it, and what failed where."""

    problem: Problem
    shares: list[float]
    accepted: dict[int, Answer] = field(default_factory=dict)
    rejected: dict[int, list[Attempt]] = field(default_factory=dict)
    refused: dict[int, set[tuple[str, ...]]] = field(default_factory=dict)
    """Subtask → groups of which a program was submitted and did not solve it."""
    best: tuple[float, str] = (-1.0, "")
    """The submission with the most points, as it was written."""

    @property
    def score(self) -> float:
        """Share of all points, over all submissions: each subtask counts with the best of them."""
        points = [subtask.points for subtask in self.problem.subtasks]
        return sum(share * each for share, each in zip(self.shares, points, strict=True)) / self.problem.points

    def record(self, subtask: int, tried: Tried, judgement: Judgement) -> None:
        """A submission that was made for a subtask counts for all."""
        attempt = Attempt(tried.program, judgement.verdicts, judgement.score(self.problem))
        for number, share in enumerate(judgement.shares):
            if share > self.shares[number]:
                self.shares[number] = share
                if share == 1:
                    self.accepted[number] = tried.program
        if judgement.shares[subtask] < 1:
            self.rejected.setdefault(subtask, []).append(attempt)
            self.refused.setdefault(subtask, set()).add(tried.group(subtask))
        if attempt.score > self.best[0]:
            self.best = (attempt.score, fenced(tried.program))


def unsolved(state: State) -> list[int]:
    """The subtasks that are not fully earned: the most points to be won first, of equal ones the later."""
    left = [
        (each.points * (1 - share), number)
        for number, (each, share) in enumerate(zip(state.problem.subtasks, state.shares, strict=True))
    ]
    return [number for points, number in sorted(left, reverse=True) if points > 0]


def groups(tried: Sequence[Tried], subtask: int) -> list[list[Tried]]:
    """Programs that pass the samples and end well on all inputs of the subtask, whichever one they were written for, by
    what they print: the largest group first, of equal ones the one whose first program came earlier; in each the
    shortest program first."""
    found: dict[tuple[str, ...], list[Tried]] = {}
    for each in tried:
        if each.trial is not None and each.trial.passes and each.trial.is_sound(subtask):
            found.setdefault(each.group(subtask), []).append(each)
    by_size = sorted(found.values(), key=lambda group: -len(group))
    return [sorted(group, key=lambda each: len(each.program.code)) for group in by_size]


def selected(tried: Sequence[Tried], subtask: int, refused: set[tuple[str, ...]], count: int) -> list[Tried]:
    """The programs to be submitted for a subtask: one of each of the largest groups, leaving out those of which one was
    refused."""
    return [group[0] for group in groups(tried, subtask) if group[0].group(subtask) not in refused][:count]


def history(state: State, subtask: int, accepted: int, rejected: int) -> tuple[list[tuple[int, Answer]], list[Attempt]]:
    """What the next prompt tells: accepted programs of other subtasks, those of the most points first, and the last own
    submissions that did not solve this one, oldest first."""
    others = sorted(
        (number for number in state.accepted if number != subtask),
        key=lambda number: (-state.problem.subtasks[number].points, number),
    )
    own = state.rejected.get(subtask, [])
    return [(number, state.accepted[number]) for number in others[:accepted]], own[max(0, len(own) - rejected) :]


def prompt_for(state: State, subtask: int, settings: GenerateSelectSubmit) -> str:
    return prompt(state.problem, subtask, *history(state, subtask, settings.accepted_shown, settings.rejected_shown))


def programs(requests: Sequence[Generate], responses: Sequence[Generated]) -> list[tuple[str, Answer]]:
    """Key and program of each finished response that has one."""
    found = []
    for request, response in zip(requests, responses, strict=True):
        program = answer_of(Response(response.content)) if response.finished else None
        if program is not None:
            found.append((request.key, program))
    return found


def generate_select_submit(
    problem: Problem, settings: GenerateSelectSubmit, ledger: Ledger, writers: Sequence[int]
) -> Search:
    """The search for one problem. `writers`: numbers of the checkpoints, each of which writes `candidates` programs for
    each subtask in each round."""
    state = State(problem, [0.0] * len(problem.subtasks))
    marks: list[Mark] = []
    tried: list[Tried] = []
    reason = "rounds"
    try:
        for number in range(1, settings.rounds + 1):
            targets = unsolved(state)
            requests = [
                Generate(f"r{number}/s{subtask + 1}/c{index}w{writer}", role(number), number, text, writer)
                for index in range(settings.candidates)
                for subtask, text in [(target, prompt_for(state, target, settings)) for target in targets]
                for writer in writers
            ]
            requests = requests[: ledger.affordable(len(requests))]
            if not targets or not requests or ledger.submissions_left == 0:
                reason = "budget" if targets else "accepted"
                break
            responses: list[Generated] = yield list(requests)
            ledger.generated([each.tokens for each in responses])
            written = programs(requests, responses)
            trials: list[Trial | None] = yield [TryOut(f"{key}/try", number, program) for key, program in written]
            tried += [Tried(*each, trial) for each, trial in zip(written, trials, strict=True)]
            for target in targets:
                yield from _submit(state, target, tried, settings.submissions, ledger, number)
            marks.append(_mark(ledger, number, state.score))
        else:
            reason = "rounds" if unsolved(state) else "accepted"
    except Stopped:
        reason = "stopped"
    facts = {"shares": state.shares, "score": state.score, "submissions": ledger.spent_submissions}
    return Outcome(state.best[1], marks, reason, facts)


def role(number: int) -> Role:
    """Programs of later rounds are told what was tried."""
    return "write" if number == 1 else "refine"


def _submit(state: State, target: int, tried: list[Tried], count: int, ledger: Ledger, number: int) -> Search:
    """Submit for a subtask, one by one, until it is solved."""
    for index, each in enumerate(selected(tried, target, state.refused.get(target, set()), count)):
        if state.shares[target] == 1 or ledger.submissions_left == 0:
            break
        [judgement] = yield [Submit(f"r{number}/s{target + 1}/submit{index}", number, each.program)]
        ledger.spent_submissions += 1
        if judgement is None:  # It could not be judged, and would not be the next time.
            state.refused.setdefault(target, set()).add(each.group(target))
        else:
            state.record(target, each, judgement)
    return Outcome("", [], "")


def _mark(ledger: Ledger, number: int, score: float) -> Mark:
    return Mark(number, ledger.spent_generations, ledger.spent_tokens, ledger.spent_submissions, score=score)
