"""Competition problems: subtasks and their limits, partial points, checkers, interactive problems, hostile answers."""

import shutil

import pytest

from cascade.chat import Response, prompt_of
from cascade.environments.code.answers import Answer, last_block
from cascade.environments.code.grading import Undecided
from cascade.environments.competition.judging import generated_inputs, judge, try_out
from cascade.environments.competition.problems import problem_of
from cascade.environments.registry import get
from cascade.errors import CascadeError, RowError

COMPETITION = get("competition")
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")

LOOP = "n = int(input())\nprint(sum(range(1, n + 1)))\n"
FORMULA = "n = int(input())\nprint(n * (n + 1) // 2)\n"


def subtask(points: float, *tests: tuple[str, str], seconds: float = 0.25, memory: float = 128) -> dict:
    return {
        "points": points,
        "limits": f"up to {tests[-1][0].strip()}",
        "seconds": seconds,
        "memory_mb": memory,
        "tests": [{"input": text, "output": output} for text, output in tests],
    }


def problem(**changed) -> dict:
    """The sum of 1 to n: a loop is too slow for the second subtask."""
    return {
        "statement": "Given n, print the sum of 1 to n.",
        "subtasks": [
            subtask(30, ("3\n", "6\n"), ("100\n", "5050\n")),
            subtask(70, ("1000000000000\n", "500000000000500000000000\n")),
        ],
        "samples": [{"input": "4\n", "output": "10\n"}],
        **changed,
    }


def row(**changed) -> dict:
    number = changed.pop("subtask", None)
    fields = {"responses_create_params": {"input": "…"}, "environment": "competition", "problem": problem(**changed)}
    return fields if number is None else {**fields, "subtask": number}


def verdict(fields: dict, code: str, language: str = "python"):
    COMPETITION.check_row(fields)
    return COMPETITION.verify(fields, Response(f"Like this:\n```{language}\n{code}\n```"))


def shares(fields: dict, code: str, language: str = "python") -> tuple[float, ...]:
    return judge(problem_of(fields), Answer(code, language)).shares  # type: ignore[arg-type]


def test_a_slow_right_solution_gets_part_of_the_score():
    assert verdict(row(), FORMULA).reward == 1.0
    found = verdict(row(), LOOP)
    assert found.reward == pytest.approx(0.3)
    assert found.reason == "subtask 1: accepted, subtask 2: too slow"


def test_a_row_may_ask_for_one_subtask():
    assert verdict(row(subtask=1), LOOP).reward == 1.0
    assert verdict(row(subtask=2), LOOP).reward == 0.0
    assert verdict(row(subtask=2), FORMULA).reward == 1.0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print(5050)", "wrong answer"),
        ("while True: pass", "too slow"),
        ("import time\ntime.sleep(60)", "too slow"),
        ("x = [0] * 10**9\nprint(6)", "too much memory"),
        ("print(1 / 0)", "crashes"),
        ("print(", "does not compile"),
        ("import os\nos.kill(os.getpid(), 9)", "crashes"),
        ("import signal\nsignal.setitimer(signal.ITIMER_PROF, 0)\nwhile True: pass", "too slow"),
        ("import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\nwhile True: pass", "too slow"),
        ("print('9' * 10**7)", "crashes"),
    ],
)
def test_verdicts(code, words):
    found = judge(problem_of(row()), Answer(code, "python"))
    assert (found.shares, found.verdicts[0]) == ((0.0, 0.0), words)


def test_every_subtask_has_its_own_limits():
    fields = row()
    fields["problem"]["subtasks"] = [
        subtask(50, ("3\n", "6\n"), memory=64),
        subtask(50, ("3\n", "6\n"), memory=512, seconds=8),
    ]
    assert shares(fields, "x = bytearray(200 << 20)\nprint(6)") == (0.0, 1.0)
    assert shares(fields, "for _ in range(4 * 10**7): pass\nprint(6)") == (0.0, 1.0)


@COMPILER
def test_a_program_in_cpp():
    code = "#include <iostream>\nint main() { long long n; std::cin >> n; std::cout << n * (n + 1) / 2; }"
    assert shares(row(), code, "cpp") == (1.0, 0.0)  # the second overflows
    wide = code.replace("long long n", "__int128 s = 0; long long n").replace("n * (n + 1) / 2", '"x"')
    assert verdict(row(), wide, "cpp").reward == 0.0
    assert judge(problem_of(row()), Answer("int main() {", "cpp")).verdicts == ("does not compile",) * 2


CHECKER = """\
import sys
given, printed, answer = (open(name).read().split() for name in sys.argv[1:])
if len(printed) != 2 or sum(map(int, printed)) != int(given[0]):
    sys.exit(1)
print(1 if int(printed[0]) > 0 else 0.5)
"""


def checked(code: str = CHECKER) -> dict:
    return row(
        subtasks=[subtask(100, ("7\n", ""), ("9\n", ""))],
        samples=[],
        checker={"language": "python", "code": code},
    )


def test_a_checker_of_the_problems_decides_and_may_give_a_part():
    assert verdict(checked(), "n = int(input())\nprint(1, n - 1)").reward == 1.0
    assert verdict(checked(), "n = int(input())\nprint(0, n)").reward == 0.5
    assert verdict(checked(), "n = int(input())\nprint(1, n - 1 if n == 7 else 0)").reward == 0.0
    assert verdict(checked(), "print('1 6; import os')").reward == 0.0


def test_a_checker_that_breaks_is_a_failure():
    assert verdict(checked("import sys\nsys.exit(3)"), "print(1, 2)").failure == "bad_checker"


INTERACTOR = """\
import sys
secret = int(open('input.txt').read())
for _ in range(10):
    guess = input().strip()
    if not guess.lstrip('-').isdigit():
        sys.exit(1)
    guess = int(guess)
    print('=' if guess == secret else '<' if secret < guess else '>', flush=True)
    if guess == secret:
        sys.exit(0)
print(0.25, file=sys.stderr)
"""
SEARCH = """\
low, high = 1, 100
while True:
    guess = (low + high) // 2
    print(guess, flush=True)
    said = input()
    if said == '=':
        break
    low, high = (low, guess - 1) if said == '<' else (guess + 1, high)
"""


def interactive() -> dict:
    return row(
        subtasks=[subtask(100, ("37\n", ""), ("1\n", ""), seconds=1)],
        samples=[],
        interactor={"language": "python", "code": INTERACTOR},
    )


def test_an_interactive_problem():
    assert verdict(interactive(), SEARCH).reward == 1.0
    guessing = "for guess in range(1, 30):\n    print(guess, flush=True)\n    if input() == '=':\n        break"
    assert judge(problem_of(interactive()), Answer(guessing, "python")).shares == (0.25,)
    assert verdict(interactive(), "print('hello')").reward == 0.0
    assert judge(problem_of(interactive()), Answer("while True: pass", "python")).verdicts == ("too slow",)


@COMPILER
def test_an_interactive_problem_in_cpp():
    code = (
        "#include <iostream>\n#include <string>\nint main() { int low = 1, high = 100; std::string said;"
        "while (true) { int g = (low + high) / 2; std::cout << g << std::endl; std::cin >> said;"
        'if (said == "=") return 0; if (said == "<") high = g - 1; else low = g + 1; } }'
    )
    assert verdict(interactive(), code, "cpp").reward == 1.0


GENERATOR = {"language": "python", "code": "s, seed = map(int, input().split())\nprint(10 ** (6 * s) + seed)"}


def test_a_trial_tells_programs_apart_without_the_judge():
    found = problem_of(row(generator=GENERATOR))
    inputs = [generated_inputs(found, number, 3) for number in range(2)]
    assert inputs[0] == ["1000000\n", "1000001\n", "1000002\n"]
    formula, loop, wrong = (try_out(found, Answer(code, "python"), inputs) for code in (FORMULA, LOOP, "print(10)"))
    assert formula.passes
    assert (formula.is_sound(0), formula.is_sound(1)) == (True, True)
    assert (loop.is_sound(0), loop.is_sound(1)) == (True, False)
    assert formula.behaviours[0] == loop.behaviours[0] != wrong.behaviours[0]
    assert loop.behaviours[1] == ("!too slow",) * 3
    assert try_out(found, Answer("print(11)", "python"), inputs).passes is False


def test_without_a_generator_there_are_no_inputs():
    found = problem_of(row())
    assert generated_inputs(found, 0, 3) == []
    assert try_out(found, Answer(FORMULA, "python"), [[], []]).behaviours == ((), ())


def test_a_generator_that_breaks_is_a_failure():
    with pytest.raises(Undecided, match="generator fails on subtask 1"):
        generated_inputs(problem_of(row(generator={"code": "print(1 / 0)"})), 0, 2)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"subtasks": []}, "bad_problem"),
        ({"subtasks": [subtask(0, ("1", "1"))]}, "bad_problem"),
        ({"subtasks": [{"points": 1, "tests": []}]}, "bad_tests"),
        ({"subtasks": [{"points": 1, "tests": [{"input": 1, "output": "1"}]}]}, "bad_problem"),
        ({"subtasks": [subtask(1, ("1", "1"), seconds=0)]}, "bad_problem"),
        ({"subtasks": [subtask(1, ("1", "1"), seconds=1e9)]}, "bad_problem"),
        ({"checker": {"language": "cobol", "code": ""}}, "bad_problem"),
        ({"generator": "print(1)"}, "bad_problem"),
    ],
)
def test_bad_rows_are_refused(changed, code):
    with pytest.raises(RowError) as error:
        COMPETITION.check_row(row(**changed))
    assert error.value.code == code


def test_a_row_without_a_problem_or_with_a_subtask_that_is_not_there_is_refused():
    for fields in ({"problem": None}, {**row(), "subtask": 3}, {**row(), "subtask": "1"}):
        with pytest.raises(RowError, match="competition"):
            COMPETITION.check_row(fields)


@pytest.mark.parametrize("content", ["", "```python\n", "print(6)", "```python\n\n```", "\x00\ud800", "```" * 10_000])
def test_a_response_without_a_program_is_wrong(content):
    assert COMPETITION.verify(row(), Response(content)).reward == 0.0


@pytest.mark.parametrize("level", [1, 2, 3, 4, 11, 12, 13, 14])
def test_demonstrations_are_right(level):
    for found in COMPETITION.generate(6, seed=7, level=level):
        prompt_of(found)
        COMPETITION.check_row(found)
        judged = COMPETITION.verify(found, Response(found["demonstration"]["content"]))
        assert judged.reward == 1.0, (found["responses_create_params"], found["demonstration"], judged)
        assert 2 <= len(found["problem"]["subtasks"]) <= 4
        assert sum(each["points"] for each in found["problem"]["subtasks"]) == 100


def test_the_rejected_programs_that_prompts_show_are_wrong():
    wrong = 0
    for found in COMPETITION.generate(30, seed=5, level=12):
        text = found["responses_create_params"]["input"][0]["content"]
        if "Rejected:" in text and "too slow" not in text:
            shown = last_block(text)
            assert shown is not None
            wrong += 1
            assert judge(problem_of(found), Answer(shown.code, "python")).shares[found["subtask"] - 1] == 0
    assert wrong > 5


def test_the_same_seed_gives_the_same_rows_and_more_of_them_only_append():
    few = list(COMPETITION.generate(20, seed=3, level=4))
    assert list(COMPETITION.generate(40, seed=3, level=4))[:20] == few


def test_there_is_no_such_level():
    with pytest.raises(CascadeError, match="no level 5"):
        COMPETITION.generate(1, 0, 5)
