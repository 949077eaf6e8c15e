"""Proofs: to write one, to verify one, to improve one.

A row's `task` is `write` (default), `refine` or `verify`. A proof that is written earns 1 where a rule finds every step
of it right and none left out (`statements`), and 0 otherwise. A row without a `statement` that can be checked has its
proofs graded by the recipe's `judges.proof`, and is refused where there is none (`no_judge`). A verification earns 1
where its score in \\boxed{}, 0, 0.5 or 1, is the right one: the row's `score`, or else what the rule says of `proof`.
"""

from collections.abc import Iterator

from cascade import judges
from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.proofs import tasks
from cascade.environments.proofs.statements import check_statement, find_fault
from cascade.environments.proofs.wording import SCORES, score_of
from cascade.environments.shared.answer_judge import question_of
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import RowError

NO_JUDGE = "no model to grade proofs in prose; name one in the recipe: judges: {proof: {url: …/v1, model: …}}"


class Proofs(Environment):
    name = "proofs"

    def check_row(self, row: Row) -> None:
        """Raises RowError: `bad_task`, `bad_statement`, `bad_score`, `no_judge`."""
        task = row.get("task", "write")
        if task not in tasks.TASKS:
            raise RowError("bad_task", f"proofs: unknown task {task!r:.40}; have {', '.join(tasks.TASKS)}")
        if task == "verify" and "score" in row:
            if row["score"] not in SCORES:
                raise RowError("bad_score", f"proofs: `score` is 0, 0.5 or 1, not {row['score']!r:.40}")
            return
        if task != "verify" and "statement" not in row:
            question_of(row)
            if judges.proof() is None:
                raise RowError("no_judge", NO_JUDGE)
            return
        check_statement(row.get("statement"))
        if task == "verify" and not isinstance(row.get("proof"), str):
            raise RowError("bad_statement", "proofs: a row to be verified needs its `proof`, or the right `score`")

    def verify(self, row: Row, response: Response) -> Verdict:
        if row.get("task") != "verify" and "statement" not in row:
            return _graded(row, response.content)
        if row.get("task") != "verify":
            fault = find_fault(row["statement"], response.content)
            return Verdict(float(fault is None), extracted=response.content, reason=fault.words if fault else "")
        found = score_of(response.content)
        if found is None:
            return Verdict(0.0, reason="no score of 0, 0.5 or 1 in \\boxed{}")
        right = row.get("score")
        if right is None:
            fault = find_fault(row["statement"], row["proof"])
            right = 1.0 if fault is None else fault.score
        return Verdict(float(found == right), extracted=found, reason=f"the proof's score is {right:g}")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 and 2: write the proof of a sum of three to six numbers, ones or tens; 3 and 4: of four to seven
        numbers, of two digits; 5 to 8: of an order, in two to six steps. 11 to 18: verify a proof of such a statement.
        21 to 28: refine one, given what is wrong with it first."""
        return nano_rows(self.name, self.name, count, seed, level, tasks.make_task)


def _graded(row: Row, proof: str) -> Verdict:
    """Failures: `no_judge`, and a JudgeError's code."""
    judge = judges.proof()
    if judge is None:
        return Verdict(None, "no_judge", proof, NO_JUDGE)
    if not proof.strip():
        return Verdict(0.0, reason="there is no proof")
    try:
        return Verdict(judge.grade(question_of(row), proof), extracted=proof, reason="by the judge's grades")
    except judges.JudgeError as error:
        return Verdict(None, error.code, proof, str(error))


ENVIRONMENT = Proofs()
