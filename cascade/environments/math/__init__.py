"""Maths answers in \\boxed{}, compared by math-verify (NeMo Gym's `math_with_judge` and `math_with_code`).

A row holds `expected_answer` (or `expected_result`). The last \\boxed{} of the response counts, of several side by side
all of them, as a list; without one the answer is wrong. Numbers are compared exactly (`numbers`), whatever separators,
unit or percent sign they are written with, all else by math-verify (`compare`). With `grading: gym` math-verify alone
compares the last box.

Where the row names NeMo Gym's `math_with_judge` and the recipe has `judges.answer`, the judge decides on what the rule
does not accept (for Gym's servers the same choice is `should_use_judge`); all else the rule decides alone.
"""

import re
from collections.abc import Iterator

from cascade import judges
from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict, in_gym
from cascade.environments.math.numbers import equal, joined_by_two, read, tidy
from cascade.environments.math.tasks import make_task
from cascade.environments.registry import is_named
from cascade.environments.shared import killable_worker
from cascade.environments.shared.answer_judge import judge_answer, question_of
from cascade.environments.shared.boxed import boxed_in_gym, boxed_list
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import RowError

MAX_ANSWER = 2_000
"""Characters in the box; longer answers are wrong."""
MAX_DEPTH = 40
"""Of brackets in the box; parsing time can grow exponentially with it."""
SECONDS = 10
"""For one comparison."""

WITH_JUDGE = "math_with_judge"

_BLANKS = re.compile(r"(?<!\d) | (?!\d)")
_INTEGER = re.compile(r"[+-]?\d{1,1000}")
_BASED = re.compile(
    r"(?:[A-Za-z] ?= ?)?(?P<sign>-?)[({]?\s*(?:\\(?:text|mathrm)\s*)?[({]?"
    r"(?P<digits>[0-9A-Fa-f][0-9A-Fa-f ,]*(?:\.[0-9A-Fa-f]+)?)[)}]?\s*[)}]?\s*"
    r"(?:_\s*\{?\s*\(?(?:\\(?:text|mathrm)\s*\{)?\s*(?:base\s*\}?\s*)?|(?:\\text\s*\{)?\s*\(?(?:in )?base\s*\}?\s*)"
    r"(?P<base>\d{1,2}|[a-z]+)\s*\)?\s*\}?\s*\}?"
)
_PREFIXED = re.compile(r"(?P<sign>-?)0(?P<base>[xbo])(?P<digits>[0-9A-Fa-f]+)")
_SUBSCRIPT = re.compile(r"\d[)}]*\s*_\s*[\s{(]*(?:\\(?:text|mathrm)\s*\{)?\s*(\w+)")
"""A base, after whatever number."""
_NAMES = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
BASES = {name: base for base, name in enumerate(_NAMES, 2)} | {
    **dict.fromkeys(("binary", "b"), 2),
    **dict.fromkeys(("octal", "o"), 8),
    **dict.fromkeys(("hexadecimal", "hex", "x"), 16),
    "decimal": 10,
}
_WRAPPED = re.compile(r"\\\((.*)\\\)|\$(.*)\$|\\text\{([^{}]*)\}|\*\*([^*]*)\*\*")


class Math(Environment):
    name = "math"
    gym_names = (WITH_JUDGE, "math_with_code")

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_answer`, and `no_prompt` where a judge would have to know the question."""
        if not _expected(row):
            raise RowError("no_answer", "math: the row has no `expected_answer`")
        if _has_judge(row):
            question_of(row)

    def verify(self, row: Row, response: Response) -> Verdict:
        gym, wanted = in_gym(row), _expected(row)
        inside = boxed_in_gym(response.content) if gym else boxed_list(response.content, several_names="," in wanted)
        if inside is None or not inside.strip():
            return Verdict(0.0, reason="no \\boxed{} in the answer")
        answer, expected = _bare(inside), _bare(wanted)
        if len(answer) > MAX_ANSWER:
            return Verdict(0.0, reason=f"the boxed answer is longer than {MAX_ANSWER} characters")
        if _depth(answer) > MAX_DEPTH:
            return Verdict(0.0, reason=f"the boxed answer nests brackets more than {MAX_DEPTH} deep")
        verdict = _by_rule(expected, answer, gym)
        if verdict.reward != 1 and _has_judge(row):
            return judge_answer(row, wanted, answer)
        return verdict

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Word problems, levels 1 to 3."""
        return nano_rows(self.name, self.name, count, seed, level, make_task)


def _has_judge(row: Row) -> bool:
    return judges.answer() is not None and is_named(row, WITH_JUDGE)


def _by_rule(expected: str, answer: str, gym: bool) -> Verdict:
    try:
        right = _same(expected, answer, gym)
    except TimeoutError:
        return Verdict(None, "timeout", answer, f"comparing with {expected!r} took longer than {SECONDS} s")
    except killable_worker.WorkerDied as error:
        return Verdict(None, "verifier_crashed", answer, str(error))
    return Verdict(float(right), extracted=answer, reason=f"{'equals' if right else 'is not'} {expected}")


def _same(expected: str, answer: str, gym: bool) -> bool:
    if expected == answer:
        return True
    if _INTEGER.fullmatch(expected) and _INTEGER.fullmatch(answer):
        return int(expected) == int(answer)
    if gym:
        return bool(
            killable_worker.call("cascade.environments.math.compare:equal_in_gym", expected, answer, seconds=SECONDS)
        )
    given = answer
    expected, answer = tidy(expected), tidy(answer)
    if _squeezed(expected) == _squeezed(answer):
        return True
    one, other = read(expected), read(answer)
    if one is not None and other is not None:
        return equal(one, other)
    if "," in expected or "," in answer:
        one, other = read(joined_by_two(expected)), read(joined_by_two(answer))
        if one is not None and other is not None and equal(one, other):
            return True
    based, other_based = _based(expected), _based(answer)
    if based and other_based:
        return based == other_based
    if based or other_based:
        # Without a base the digits are those of the base that the question asks for.
        return (based[0] if based else expected) == (other_based[0] if other_based else answer)
    bases = [set(_SUBSCRIPT.findall(text)) for text in (expected, answer)]
    if all(bases) and bases[0] != bases[1]:
        return False
    if ", " in expected and (as_list := tidy(given, commas=False)) != answer:
        # Beside a list, 100,200 is one too.
        answer = as_list
    return bool(killable_worker.call("cascade.environments.math.compare:equal", expected, answer, seconds=SECONDS))


def _squeezed(text: str) -> str:
    """Without blanks, but for those between two digits."""
    return _BLANKS.sub("", text)


def _based(text: str) -> tuple[str, str] | None:
    """Digits and base of a number like 212_5, (212)_{5}, 1A_{16} or 212_{\\text{five}}."""
    match = _BASED.fullmatch(text) or _PREFIXED.fullmatch(text)
    if not match:
        return None
    digits = re.sub(r"[ ,]", "", match["digits"]).upper().lstrip("0") or "0"
    name = match["base"].strip().lower()
    base = int(name) if name.isdigit() else BASES.get(name, 0)
    largest = max(int(digit, 36) for digit in digits.replace(".", "") or "0")
    return (match["sign"] + digits, str(base)) if largest < base <= 16 else None


def _expected(row: Row) -> str:
    value = row.get("expected_answer", row.get("expected_result"))
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()


def _bare(text: str) -> str:
    """Without the delimiters around the whole: \\(…\\), $…$, \\text{…}."""
    if text.isdecimal():
        return text
    text = " ".join(text.split())
    match = _WRAPPED.fullmatch(text)
    return next(group for group in match.groups() if group is not None).strip() if match else text


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


ENVIRONMENT = Math()
