"""Code with hidden tests, in a sandbox: a function, or a program that reads stdin and writes stdout. Strict 0 or 1.

The forms of rows are described in `problems`; NeMo Gym's `code_gen` rows are among them. The answer is the last
complete fenced code block. Its language is the row's `language`, else the one its fence names, else Python; C++ is
for programs only. Candidates have Python's standard library and 1 GiB of memory; every test must pass. What runs too
long, crashes or floods is wrong, with its reason; only where the sandbox, the compiler or the row's own test breaks
is there no verdict (`sandbox`, `no_compiler`, `bad_test`, `judge_died`).

Each call, or input of a program, has its own time (`grading.SECONDS_A_TEST`). What a test of `check(candidate)` sees of
the function is all that it does: changes in place, exceptions, generators, closures, instances (`inside.peer`).

Equality: see `outputs` for programs and `inside.values.same` for functions. Unlike in NeMo Gym True is not 1, a program
must end with exit code 0, and numbers may stand among words (not in rows with `grading: gym`).
"""

from collections.abc import Iterator

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.code import grading
from cascade.environments.code.answers import Answer, last_block
from cascade.environments.code.problems import Streams, language_of, problem_of
from cascade.environments.code.tasks import make_task
from cascade.environments.shared.memoize import Once
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import RowError, SandboxError

_GRADES: Once[grading.Grade] = Once()


class Code(Environment):
    name = "code"
    gym_names = ("code_gen",)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_tests`, `bad_tests`, `bad_language`."""
        problem = problem_of(row)
        if language_of(row) == "cpp" and not isinstance(problem, Streams):
            raise RowError("bad_language", "code: functions are tested in Python alone; make the row a program")

    def verify(self, row: Row, response: Response) -> Verdict:
        answer = last_block(response.content)
        if answer is None or not answer.code.strip():
            return Verdict(0.0, reason="the response has no complete code block")
        answer = Answer(answer.code, language_of(row) or answer.language or "python")
        problem = problem_of(row)
        if answer.language != "python" and not isinstance(problem, Streams):
            return Verdict(0.0, extracted=answer.code, reason="the function is asked for in Python")
        try:
            grade = _GRADES.get(repr((problem, answer)), lambda: grading.grade(problem, answer))
        except SandboxError as error:
            return Verdict(None, failure="sandbox", reason=str(error))
        except grading.Undecided as error:
            return Verdict(None, failure=error.code, reason=str(error))
        return Verdict(float(grade.passed), extracted=answer.code, reason=grade.reason)

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 to 5: from one expression to filters with two conditions. Three tasks in ten are programs."""
        return nano_rows(self.name, self.name, count, seed, level, make_task)


ENVIRONMENT = Code()
