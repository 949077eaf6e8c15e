"""The searches of a strategy on rows: which coroutine each problem has, and what its trail says afterwards."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cascade import environments
from cascade.chat import Response, Row, prompt_of
from cascade.environments.competition import answer_of
from cascade.environments.competition.judging import Judgement, Trial
from cascade.environments.competition.problems import Problem, problem_of
from cascade.environments.verification import judge
from cascade.recipe.sections import Budget, GenerateSelectSubmit, GenerateVerifyRefine
from cascade.test_time.budget import Ledger
from cascade.test_time.plain import plain_answers, plain_programs
from cascade.test_time.refine import Verification, final_grade, generate_verify_refine, verification
from cascade.test_time.requests import Generate, Generated, Outcome, Search, Stopped
from cascade.test_time.runner import Task
from cascade.test_time.scores import PlainAnswer, PlainProgram
from cascade.test_time.submit import Tried, generate_select_submit
from cascade.test_time.trail import Trail

Strategy = GenerateVerifyRefine | GenerateSelectSubmit


@dataclass(frozen=True)
class Question:
    """A problem to be solved: a row with its id."""

    id: str
    row: Row

    @property
    def text(self) -> str:
        """The last message of the prompt."""
        return str(prompt_of(self.row)[0][-1]["content"])

    @property
    def problem(self) -> Problem:
        """Raises RowError where the row has no subtasks."""
        return problem_of(self.row)


@dataclass(frozen=True)
class Plan:
    """What is done with each problem. `writers`, `verifiers`: numbers of the checkpoints."""

    strategy: Strategy
    budget: Budget
    max_new_tokens: int
    writers: tuple[int, ...]
    verifiers: tuple[int, ...]

    @property
    def submits(self) -> bool:
        return isinstance(self.strategy, GenerateSelectSubmit)

    def most_generations(self, subtasks: int) -> int:
        """Responses of a search that nothing ends early. `subtasks` of the problem; 1 where it has none."""
        strategy, writers = self.strategy, len(self.writers)
        if isinstance(strategy, GenerateSelectSubmit):
            most = strategy.rounds * strategy.candidates * subtasks * writers
        else:
            most = round_sizes(strategy, writers)[-1]
        return min(most, self.budget.generations or most)

    def ledger(self) -> Ledger:
        budget = self.budget
        return Ledger(self.max_new_tokens, budget.generations, budget.tokens, budget.submissions)


def round_sizes(strategy: GenerateVerifyRefine, writers: int) -> list[int]:
    """Responses up to the end of each round, where none is made smaller."""
    each = 1 + strategy.verifications
    first = strategy.candidates * writers
    further = min(strategy.keep, first) * strategy.refinements * writers
    return [(first + number * further) * each for number in range(strategy.rounds)]


def tasks(questions: Sequence[Question], plan: Plan) -> tuple[list[Task], list[Ledger]]:
    """The searches, and what each spends."""
    ledgers = [plan.ledger() for _ in questions]
    return [_task(q, plan, _search(q, plan, ledger)) for q, ledger in zip(questions, ledgers, strict=True)], ledgers


def plain_tasks(questions: Sequence[Question], plan: Plan) -> list[Task]:
    """Plain samples of the same budgets."""
    return [_task(question, plan, _plain(question, plan)) for question in questions]


def grading_tasks(questions: Sequence[Question], searched: Sequence[Task], plan: Plan) -> list[Task]:
    """Final grades of the answers that were found, by the verifiers, asked anew."""
    assert isinstance(plan.strategy, GenerateVerifyRefine)
    return [
        _task(question, plan, _grade(question.text, task.outcome.answer, plan.strategy.grades, plan.verifiers))
        for question, task in zip(questions, searched, strict=True)
        if task.outcome is not None and task.outcome.answer
    ]


def _task(question: Question, plan: Plan, search: Search) -> Task:
    if isinstance(plan.strategy, GenerateSelectSubmit):
        return Task(question.id, question.row, search, question.problem, plan.strategy.inputs)
    return Task(question.id, question.row, search)


def _search(question: Question, plan: Plan, ledger: Ledger) -> Search:
    if isinstance(plan.strategy, GenerateSelectSubmit):
        return generate_select_submit(question.problem, plan.strategy, ledger, plan.writers)
    return generate_verify_refine(question.text, plan.strategy, ledger, plan.writers, plan.verifiers)


def _plain(question: Question, plan: Plan) -> Search:
    if isinstance(plan.strategy, GenerateSelectSubmit):
        problem = question.problem
        return plain_programs(problem, plan.most_generations(len(problem.subtasks)), plan.writers)
    count, each = plan.most_generations(1), 1 + plan.strategy.verifications
    return plain_answers(
        question.text, count, count // each, plan.strategy.verifications, (plan.writers[0], plan.verifiers[0])
    )


def _grade(problem: str, answer: str, count: int, verifiers: Sequence[int]) -> Search:
    from cascade.environments.proofs.wording import verify_prompt

    text = verify_prompt(problem, answer)
    try:
        responses: list[Generated] = yield [
            Generate(f"grade/{index}", "grade", 0, text, verifiers[index % len(verifiers)]) for index in range(count)
        ]
    except Stopped:
        return Outcome("", [], "stopped")
    grade = final_grade([verification(response).score for response in responses])
    return Outcome("", [], "rounds", {"grade": grade})


class Reading:
    """A finished trail, by problem."""

    def __init__(self, trail: Trail):
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        for row in trail.rows():
            self._rows.setdefault(row["problem"], {})[row["key"]] = row

    def rows(self, problem: str) -> dict[str, dict[str, Any]]:
        """Key → row, in the order of the trail."""
        return self._rows.get(problem, {})

    def response(self, row: dict[str, Any]) -> Response:
        return Response(row["content"], finished=row["finished"])

    def truth(self, problem: str, key: str) -> float:
        """The reward of an answer that was checked; 0 where it could not be."""
        row = self.rows(problem).get(f"{key}/check")
        return float(row["reward"] or 0.0) if row else 0.0

    def verifications(self, problem: str, key: str) -> list[Verification]:
        found: list[Verification] = []
        while (row := self.rows(problem).get(f"{key}/v{len(found)}")) is not None:
            found.append(verification(Generated(row["content"], row["tokens"], row["finished"])))
        return found

    def plain_answers(self, problem: str) -> list[PlainAnswer]:
        found: list[PlainAnswer] = []
        for key, row in self.rows(problem).items():
            if key.startswith("plain/") and row["kind"] == "write":
                content = row["content"] if row["finished"] else ""
                verified = tuple(self.verifications(problem, key))
                found.append(PlainAnswer(content, self.truth(problem, key), verified))
        return found

    def plain_programs(self, problem: str) -> list[PlainProgram]:
        rows, found = self.rows(problem), list[PlainProgram]()
        for key, row in rows.items():
            if not key.startswith("plain/") or row["kind"] != "write":
                continue
            program = answer_of(self.response(row)) if row["finished"] else None
            tried, judged = rows.get(f"{key}/try"), rows.get(f"{key}/judge")
            if program is None or tried is None or judged is None or "failure" in tried or "failure" in judged:
                found.append(PlainProgram())
                continue
            trial = Trial(tried["passes"], tuple(map(tuple, tried["behaviours"])))
            judgement = Judgement(tuple(judged["shares"]), tuple(judged["verdicts"]))
            found.append(PlainProgram(Tried(key, program, trial), judgement))
        return found


def check_answers(questions: Sequence[Question], trail: Trail, pool: ThreadPoolExecutor) -> list[str]:
    """Have the environment judge every answer in the trail that is not a program of a problem with subtasks: what is
    true, which no search is told. Returns the failures."""
    reading, failures = Reading(trail), []
    pending = [
        (question, key, row)
        for question in questions
        for key, row in reading.rows(question.id).items()
        if row["kind"] in ("write", "refine") and trail.get(question.id, f"{key}/check") is None
    ]

    def checked(item: tuple[Question, str, dict[str, Any]]) -> dict[str, Any]:
        question, key, row = item
        verdict = judge(environments.environment_of(question.row), question.row, reading.response(row))
        found = {"problem": question.id, "key": f"{key}/check", "kind": "check", "round": row["round"]}
        return {**found, "reward": verdict.reward, "failure": verdict.failure, "reason": verdict.reason}

    for row in pool.map(checked, pending):
        if row["failure"] is not None:
            failures.append(row["failure"])
        trail.add(row)
    return failures
