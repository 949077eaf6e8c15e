"""Competition programming: problems with subtasks of growing limits, each with its points.

The answer is the last complete fenced code block, in Python or C++ (as in `code`). Its reward is the share of all
points that it earns, or, where the row names a `subtask` (from 1), of that subtask's. A subtask is earned where every
hidden test is passed within its limits of time and memory; a checker of the problem's may give a part of it
(`problems`). A program that runs too long, crashes or does not compile is wrong; only where the sandbox, the compiler
or a program of the problem's breaks is there no verdict (`sandbox`, `no_compiler`, `bad_checker`).
"""

from collections.abc import Iterator

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.code.answers import Answer, last_block
from cascade.environments.code.grading import Undecided
from cascade.environments.competition import tasks
from cascade.environments.competition.judging import judge
from cascade.environments.competition.problems import problem_of
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import SandboxError


def answer_of(response: Response) -> Answer | None:
    """The program of a response, Python where it does not say; None where it has none."""
    block = last_block(response.content)
    if block is None or not block.code.strip():
        return None
    return Answer(block.code, block.language or "python")


class Competition(Environment):
    name = "competition"

    def check_row(self, row: Row) -> None:
        """Raises RowError: `bad_problem`, `bad_tests`."""
        problem_of(row)

    def verify(self, row: Row, response: Response) -> Verdict:
        answer = answer_of(response)
        if answer is None:
            return Verdict(0.0, reason="the response has no complete code block")
        problem, number = problem_of(row), row.get("subtask")
        only = None if number is None else number - 1
        try:
            judgement = judge(problem, answer, only)
        except SandboxError as error:
            return Verdict(None, failure="sandbox", reason=str(error))
        except Undecided as error:
            return Verdict(None, failure=error.code, reason=str(error))
        reward = judgement.score(problem) if only is None else judgement.shares[only]
        told = ", ".join(f"subtask {i}: {words}" for i, words in enumerate(judgement.verdicts, 1) if words != "–")
        return Verdict(reward, extracted=answer.code, reason=told)

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 to 4: write a program for all subtasks, or for one. 11 to 14: the same, given what was accepted for
        another subtask or rejected for this one."""
        return nano_rows(self.name, self.name, count, seed, level, tasks.make_task)


ENVIRONMENT = Competition()
