"""Generate–select–submit: which programs are submitted, what the next prompt tells, when it stops."""

from random import Random
from statistics import fmean

import pytest

from cascade.environments.code.answers import Answer
from cascade.environments.competition.judging import Judgement, Trial
from cascade.environments.competition.problems import Case, Problem, Subtask
from cascade.environments.competition.wording import Attempt
from cascade.recipe.sections import GenerateSelectSubmit
from cascade.test_time.budget import Ledger
from cascade.test_time.requests import Generate, Generated, Outcome, Stopped, Submit, TryOut
from cascade.test_time.submit import State, Tried, generate_select_submit, groups, history, selected, unsolved

TEST = (Case("1\n", "1\n"),)
PROBLEM = Problem(
    "Print n.",
    (Subtask(20, "n is small", TEST, 1.0, 1 << 28), Subtask(30, "n is large", TEST, 1.0, 1 << 28),
     Subtask(50, "n is huge", TEST, 1.0, 1 << 28)),
)  # fmt: skip


def program(code: str) -> Answer:
    return Answer(code, "python")


def tried(key: str, *behaviours: str, passes: bool = True, code: str | None = None) -> Tried:
    """`behaviours`: what it prints for each subtask."""
    return Tried(key, program(code or key), Trial(passes, tuple((each,) if each else () for each in behaviours)))


def settings(**changed) -> GenerateSelectSubmit:
    return GenerateSelectSubmit(name="generate-select-submit", **{"candidates": 3, "rounds": 3, "inputs": 1, **changed})


def state(*shares: float) -> State:
    return State(PROBLEM, list(shares))


TABLE = [
    tried("a", "1", "1", "!too slow"),
    tried("b", "2", "2", "2"),
    tried("c", "1", "3", "3", code="a shorter one is first"),
    tried("d", "1", "1", "2", code="d"),
    tried("e", "1", "1", "1", passes=False),
    Tried("f", program("f"), None),
]


def test_the_groups_of_a_table():
    assert [[each.key for each in group] for group in groups(TABLE, 0)] == [["a", "d", "c"], ["b"]]
    assert [[each.key for each in group] for group in groups(TABLE, 1)] == [["a", "d"], ["b"], ["c"]]
    assert [[each.key for each in group] for group in groups(TABLE, 2)] == [["b", "d"], ["c"]]


def test_who_is_submitted():
    assert [each.key for each in selected(TABLE, 0, set(), 1)] == ["a"]
    assert [each.key for each in selected(TABLE, 1, set(), 9)] == ["a", "b", "c"]
    assert [each.key for each in selected(TABLE, 1, {("1",)}, 1)] == ["b"]
    assert selected(TABLE, 2, {("2",), ("3",)}, 1) == []


def test_without_inputs_programs_are_grouped_by_their_text():
    table = [tried("a", "", code="x"), tried("b", "", code="y"), tried("c", "", code="y")]
    assert [[each.key for each in group] for group in groups(table, 0)] == [["b", "c"], ["a"]]


@pytest.mark.parametrize(
    ("shares", "order"),
    [
        ((0, 0, 0), [2, 1, 0]),
        ((1, 0, 0), [2, 1]),
        ((0, 0, 0.5), [1, 2, 0]),  # 20, 30 and 25 points are left
        ((0, 0.4, 0.6), [2, 0, 1]),  # 20, 18 and 20: of equal ones the later first
        ((1, 1, 1), []),
    ],
)
def test_which_subtasks_are_worked_on(shares, order):
    assert unsolved(state(*shares)) == order


def test_a_submission_counts_for_every_subtask():
    found = state(0, 0, 0)
    found.record(2, tried("a", "1", "1", "1"), Judgement((1.0, 1.0, 0.0), ("accepted", "accepted", "too slow")))
    assert (found.shares, found.score) == ([1.0, 1.0, 0.0], 0.5)
    assert set(found.accepted) == {0, 1}
    assert found.refused == {2: {("1",)}}
    found.record(2, tried("b", "2", "2", "2"), Judgement((0.0, 0.0, 0.5), ("wrong answer", "wrong answer", "0.5")))
    assert (found.shares, found.score) == ([1.0, 1.0, 0.5], 0.75)
    assert found.best == (0.5, "```python\na\n```")


def test_the_next_prompt_tells_what_was_accepted_and_refused():
    found = state(1, 1, 0)
    found.accepted = {0: program("small"), 1: program("large")}
    found.rejected = {2: [Attempt(program(name), ("wrong answer",) * 3, 0.0) for name in ("x", "y", "z")]}
    accepted, rejected = history(found, 2, 1, 2)
    assert [(number, each.code) for number, each in accepted] == [(1, "large")]
    assert [each.answer.code for each in rejected] == ["y", "z"]
    assert history(found, 2, 0, 0) == ([], [])
    assert [number for number, _ in history(found, 1, 2, 2)[0]] == [0]


class Coder:
    """Writes the programs that it is given, and knows what each does: code → (passes, behaviours, shares)."""

    def __init__(self, written: list[str], known: dict[str, tuple]):
        self.written, self.known = iter(written), known
        self.log: list[list] = []

    def __call__(self, request):
        if isinstance(request, Generate):
            return Generated(f"```python\n{next(self.written)}\n```", 10, True)
        passes, behaviours, shares = self.known[request.program.code.strip()]
        if isinstance(request, TryOut):
            return Trial(passes, tuple((each,) for each in behaviours))
        return Judgement(shares, tuple("accepted" if share == 1 else "wrong answer" for share in shares))


def drive(search, model) -> tuple[list[list], Outcome]:
    asked = []
    try:
        requests = next(search)
        while True:
            asked.append(requests)
            requests = search.send([model(request) for request in requests])
    except StopIteration as end:
        return asked, end.value


KNOWN = {
    "loop": (True, ("1", "1", "!too slow"), (1.0, 1.0, 0.0)),
    "bad": (True, ("7", "7", "7"), (0.0, 0.0, 0.0)),
    "worse": (False, ("!wrong answer",) * 3, (0.0, 0.0, 0.0)),
    "formula": (True, ("1", "1", "1"), (1.0, 1.0, 1.0)),
}


def test_the_rounds_of_a_search():
    """Round 1: for subtask 3 the bad program is the largest sound group and is refused; the loop solves 2 and 1 with
    one submission. Round 2 asks for subtask 3 alone, and tells of both."""
    first = ["bad", "loop", "worse", "bad", "loop", "loop", "worse", "loop", "bad"]
    model = Coder([*first, "formula", "bad", "bad"], KNOWN)
    ledger = Ledger(100, submissions=4)
    asked, outcome = drive(generate_select_submit(PROBLEM, settings(), ledger, [0]), model)
    assert [type(step[0]).__name__ for step in asked] == [
        *("Generate", "TryOut", "Submit", "Submit", "Generate", "TryOut", "Submit")
    ]
    assert [request.key for request in asked[0][:4]] == ["r1/s3/c0w0", "r1/s2/c0w0", "r1/s1/c0w0", "r1/s3/c1w0"]
    assert [step[0].program.code.strip() for step in asked if isinstance(step[0], Submit)] == ["bad", "loop", "formula"]
    assert {request.key.split("/")[1] for request in asked[4]} == {"s3"}
    assert "Accepted for subtask 2:\n```python\nloop" in asked[4][0].prompt
    assert "Rejected:\n```python\nbad\n```\nsubtask 1: wrong answer" in asked[4][0].prompt
    assert (outcome.reason, outcome.facts["score"], outcome.facts["submissions"]) == ("accepted", 1.0, 3)
    assert outcome.answer == "```python\nformula\n```"
    marks = [(mark.round, mark.generations, mark.submissions, mark.score) for mark in outcome.marks]
    assert marks == [(1, 9, 2, 0.5), (2, 12, 3, 1.0)]


def test_the_limit_on_submissions_ends_the_search():
    model = Coder(["bad"] * 99, KNOWN)
    ledger = Ledger(100, submissions=1)
    asked, outcome = drive(generate_select_submit(PROBLEM, settings(), ledger, [0]), model)
    assert sum(isinstance(step[0], Submit) for step in asked) == 1
    assert (outcome.reason, ledger.spent_submissions, len(outcome.marks)) == ("budget", 1, 1)


def test_the_budget_of_generations_is_hard():
    ledger = Ledger(100, generations=11)
    asked, outcome = drive(generate_select_submit(PROBLEM, settings(), ledger, [0]), Coder(["bad"] * 99, KNOWN))
    assert [len(step) for step in asked if isinstance(step[0], Generate)] == [9, 2]
    assert (outcome.reason, ledger.spent_generations) == ("budget", 11)


def test_a_program_that_could_not_be_judged_is_not_submitted_again():
    model = Coder(["bad"] * 99, KNOWN)
    asked, outcome = drive(
        generate_select_submit(PROBLEM, settings(), Ledger(100), [0]),
        lambda request: None if isinstance(request, Submit) else model(request),
    )
    assert sum(isinstance(step[0], Submit) for step in asked) == 3  # once for each subtask
    assert outcome.facts["score"] == 0.0


def test_responses_without_a_program_are_passed_over():
    asked, outcome = drive(
        generate_select_submit(PROBLEM, settings(rounds=1), Ledger(100), [0]),
        lambda request: Generated("no program", 10, True),
    )
    assert (sum(map(len, asked)), outcome.answer, outcome.reason) == (9, "", "rounds")


def test_a_search_that_is_stopped_keeps_what_it_earned():
    search = generate_select_submit(PROBLEM, settings(), Ledger(100), [0])
    model = Coder(["loop"] * 99, KNOWN)
    requests = next(search)
    for _ in range(3):
        requests = search.send([model(request) for request in requests])
    assert isinstance(requests[0], Generate)
    with pytest.raises(StopIteration) as end:
        search.throw(Stopped())
    assert (end.value.value.reason, end.value.value.facts["score"]) == ("stopped", 0.5)


def test_selection_beats_submitting_as_they_come_of_a_simulated_model():
    """30 % of programs are right, 40 % slow, the others wrong in ways of their own. Nine programs and one submission:
    as they come, 30 % of the last subtask; the largest sound group is right where two or more right ones are there."""

    def model(seed: int):
        rng = Random(seed)

        def answer(request):
            if isinstance(request, Generate):
                kind = rng.choices(["formula", "loop", f"bad{rng.randrange(1000)}"], [0.3, 0.4, 0.3])[0]
                return Generated(f"```python\n{kind}\n```", 10, True)
            kind = request.program.code.strip()
            known = KNOWN.get(kind, (True, (kind,) * 3, (0.0, 0.0, 0.0)))
            if isinstance(request, TryOut):
                return Trial(known[0], tuple((each,) for each in known[1]))
            return Judgement(known[2], ("–",) * 3)

        return answer

    solved = []
    for seed in range(300):
        _, outcome = drive(
            generate_select_submit(PROBLEM, settings(rounds=1), Ledger(100, submissions=1), [0]), model(seed)
        )
        solved.append(outcome.facts["shares"][2])
    # P(two or more of nine) = 80 %; with one right program among groups of one it comes first in some.
    assert fmean(solved) > 0.75
