"""Whether two written answers mean the same. Runs in a worker process: SymPy may not come back."""

import re
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, grader, parse, verify
from sympy import Float, N

from cascade.environments.math.numbers import TOLERANCE

DIGITS = 40
"""To which exact forms must agree."""

_library_numeric_eq = grader.sympy_numeric_eq


def equal(expected: str, answer: str) -> bool:
    """Both are the content of a \\boxed{}, tidy."""
    expected, answer = plain(expected), plain(answer)
    if "%" in expected and "%" in answer:
        expected, answer = expected.replace("\\%", ""), answer.replace("\\%", "")
    if bool(_BOUND.search(expected)) != bool(_BOUND.search(answer)):
        return False
    grader.sympy_numeric_eq = _numeric_eq
    return any(_verified(one, other) for one, other in _percentages(expected, answer))


def equal_in_gym(expected: str, answer: str) -> bool:
    """`equal` by the library alone, as in NeMo Gym."""
    grader.sympy_numeric_eq = _library_numeric_eq
    return _verified(expected, answer)


def _verified(expected: str, answer: str) -> bool:
    """The library's own time limits need the main thread: they are off."""
    gold = parse(f"\\boxed{{{expected}}}", [LatexExtractionConfig()], parsing_timeout=None)
    found = parse(f"\\boxed{{{answer}}}", [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None)
    return bool(verify(gold, found, timeout_seconds=None))


def _numeric_eq(a: Any, b: Any, float_rounding: int, numeric_precision: int) -> bool:
    """The library's, which rounds to so many places behind the point, and relative to the values besides: to it alone
    2^-90 is 2^-91, since both are 0.000000. Called by it for each part of a list, a set, a matrix."""
    if not _library_numeric_eq(a, b, float_rounding, numeric_precision):
        return False
    try:
        difference = (a - b).doit()
        if difference == 0 or difference.free_symbols:
            return True
        inexact = a.has(Float) or b.has(Float)
        size = max(abs(N(each, DIGITS)) if not each.free_symbols else 1 for each in (a, b))
        return bool(abs(N(difference, DIGITS, chop=False)) <= (float(TOLERANCE) if inexact else 10.0**-DIGITS) * size)
    except (TypeError, ValueError, AttributeError):
        return True


_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|gcd|lcm|max|min"
_LETTERS = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega"
_PLAIN = [
    (re.compile(r"\\(?:mathrm|text|rm)(?: ?\{ ?([ei]) ?\}| ([ei])(?![A-Za-z]))"), r"\1\2"),
    (re.compile(r"\\(?:operatorname|mathrm|text) ?\{ ?(exp|sqrt|abs) ?\}"), r"\1"),
    (re.compile(rf"\\(?:operatorname|mathrm|text) ?\{{ ?({_FUNCTIONS}) ?\}}"), r"\\\1 "),
    (re.compile(r"\\(?:text|mathrm) ?\{ ?\\?% ?\}|\\(?:text|mathrm) ?\{ ?[Pp]er ?cent ?\}|(?<!\\)%"), r"\\%"),
    (re.compile(r"^\\(?:approx|simeq|sim|doteq)(?![A-Za-z]) ?"), ""),
    (re.compile(r"\\varnothing|∅"), r"\\emptyset "),
    (re.compile(r"√ ?(\d+|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"√"), "sqrt"),
    (re.compile(r"∛ ?\(?(\w+)\)?|(?<![\\A-Za-z])cbrt ?\(([^()]*)\)"), r"\\sqrt[3]{\1\2}"),
    (re.compile(r"(?<![\\A-Za-z])sqrt ?(?=\{)"), r"\\sqrt"),
    (re.compile(r"(?<![\\A-Za-z])sqrt ?(\d+|[A-Za-z](?![A-Za-z]))"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])log_?(\d+) ?(?=\()"), r"\\log_{\1}"),
    (re.compile(r"(?<![\\A-Za-z])(a(?:rc)?)(sin|cos|tan)(?= ?[({]| [\dA-Za-z])"), r"\\arc\2"),
    (re.compile(r"(?<![\\A-Za-z])(ln|log)(?=\d)"), r"\\\1 "),
    (re.compile(r"(?<![\\\w])(\d+) choose (\d+)(?!\w)"), r"\\binom{\1}{\2}"),
    (re.compile(rf"(?<![\\A-Za-z])({_LETTERS})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![\\A-Za-z])(?:pi|Pi|PI)(?![A-Za-z])"), r"\\pi "),
    (re.compile(rf"(?<![\\A-Za-z{{])({_FUNCTIONS})(?=[ (]|\^)"), r"\\\1"),
    (re.compile(r"(?<=\d) ?(?<!\*)\* ?[iI](?![A-Za-z])"), "i"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\\*])\*(?!\*)"), r" \\cdot "),
    (re.compile(r"\^([-+]?\d{2,}|[-+]?\d*\.\d+)"), r"^{\1}"),
    (re.compile(r"\^(?:\( ?|\{ ?)0?\.5 ?[)}]"), r"^{\\frac{1}{2}}"),
    (re.compile(r"\^\( ?([^(){}]*?) ?\)"), r"^{\1}"),
]
_CALL = re.compile(r"(?<![\\A-Za-z])(sqrt|exp|abs) ?\(")
_SET = r"\\in ?\\(?:mathbb|mathbf|Bbb) ?\{? ?[NRCZ] ?\}?"
_OPEN = r" ?[,;]? ?\(? ?(?:\\text ?\{ ?,? ?\(?)?"
_QUALIFIER = re.compile(
    rf"{_OPEN}(?:for|where) (?:all|any|every|each)\b(?!.*(?:[<>]|\\(?:[lg]e|[lg]t|leq|geq|neq?)(?![A-Za-z]))).*$|"
    rf"{_OPEN}(?:for|where) ?\}}? ?(?:all )?[A-Za-z] ?(?:{_SET}|real)\.?\)?$|"
    rf"{_OPEN}where ?\}}? ?[A-Za-z] ?(?:\\text ?\{{)? ?is an? (?:(?:arbitrary|any|real|positive|nonnegative) )*"
    r"(?:integer|constant|number)(?: of integration)?\.? ?\}?$|"
    rf" ?[,;]? ?\(? ?\\forall ?[A-Za-z](?: ?{_SET})?\)?$|"
    rf"(?<=[\w}})]) ?(?:[,;] ?\(?|\() ?[A-Za-z] ?{_SET} ?\)?$"
)
_PREAMBLE = re.compile(r"^\\text ?\{ ?(?i:approximately|about|roughly|(?:the )?(?:final )?answer(?: is)?:?) ?\} ?")
_BOUND = re.compile(r"\bor (?:more|less|fewer|greater|above|below|higher|lower)\b|\bat (?:least|most)\b")
"""The library takes such words for a unit, and leaves them out."""
_PERCENT = re.compile(r"((?:\\frac ?\{[^{}]*\} ?\{[^{}]*\}|[\d.]+)) ?\\%")


def plain(text: str) -> str:
    """Text that means LaTeX, as LaTeX: exp(3), pi/2, x**2, √2; without what holds for every number anyway."""
    unqualified = _QUALIFIER.sub("", _PREAMBLE.sub("", text)).strip()
    text = unqualified or text
    for pattern, meant in _PLAIN:
        text = pattern.sub(meant, text)
    while match := _CALL.search(text):
        end = _closing(text, match.end())
        if end is None:
            break
        inside = text[match.end() : end]
        written = {"sqrt": f"\\sqrt{{{inside}}}", "exp": f"e^{{{inside}}}", "abs": f"|{inside}|"}[match[1]]
        text = text[: match.start()] + written + text[end + 1 :]
    return text


def _closing(text: str, at: int) -> int | None:
    depth = 1
    for position in range(at, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return None


def _percentages(expected: str, answer: str) -> list[tuple[str, str]]:
    """What to compare where there are percentages: hundredths; and if but one side has the sign, the bare numbers."""
    hundredths = _PERCENT.sub(r"\\frac{\1}{100}", expected), _PERCENT.sub(r"\\frac{\1}{100}", answer)
    if hundredths == (expected, answer):
        return [(expected, answer)]
    return [hundredths, (expected.replace("\\%", ""), answer.replace("\\%", ""))]
