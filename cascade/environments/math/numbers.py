"""Numbers as answers write them: with separators, units, currency, percent, as fractions, mixed, in powers of ten.

math-verify reads some of these wrongly (12\\,000 is 12 × 0 to it) and, with the ANTLR runtime that is installed here,
no percentage at all. What is one number is read here, exactly, and never reaches it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_REPLACED = str.maketrans(
    {
        **dict.fromkeys("−–﹣－", "-"),
        **{sign: f"^{power}" for power, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **dict.fromkeys("\u00a0\u2009\u202f\u2007\u200a", " "),
        "×": "\\times ",
        **dict.fromkeys("·⋅∙", "\\cdot "),
        "÷": "/",
        "°": "^\\circ ",
        "％": "%",
        "π": "\\pi ",
        "∞": "\\infty ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
        **{sign: f"\\frac{{{up}}}{{{down}}}" for sign, up, down in ("½12", "⅓13", "⅔23", "¼14", "¾34", "⅕15", "⅛18")},
    }
)
_SIZES = re.compile(r"\\(?:left|right|displaystyle|textstyle|bigl?|bigr?|Bigl?|Bigr?|!)(?![A-Za-z])|\\!")
_SPACES = re.compile(
    r"(?:(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|\\(?:thin|med|thick)?space(?![A-Za-z])|\\[hm]space\*?\{[^{}]*\}|\s)+"
)
_SEPARATOR = re.compile(r"(?<=\d)(?:\\(?:text|mathrm|mathord|mathpunct) ?)?\{ ?(,?) ?\}(?=\d{3})")
"""A separator in braces, as in 12{,}000 and 12{\\,}000."""
_COLOUR = re.compile(r"\\(?:textcolor|color) ?\{[\w!]+\} ?")
_SYSTEM = re.compile(
    r"(?:\\\{ ?\\begin\{(?P<kind>array|aligned|align\*?|gathered|matrix)\}|\\begin\{(?P<cases>cases)\})"
    r"(?:\{[lcr| ]*\})?"
    r"(?P<rows>.*?)\\end\{(?:(?P=kind)\} ?\.|(?P=cases)\})"
)
_GROUPS = re.compile(r"(?<![\d.,^_])(\d{1,3})((?:[, ]\d{3})+)(?!\d)")
_BY_TWO = re.compile(r"(?<![\d.,^_])[1-9]\d?(?:,\d{2})+,\d{3}(?![\d,])")
"""As in India: 12,34,567."""
_BY_TWO_ALONE = re.compile(r"(?<![\d.,^_])[1-9]\d?(?=(?:,\d{2})*,0)(?:,\d{2})+,\d{3}(?![\d,])")
"""Such a number that cannot be a list, since no member is written as 00 or 000."""
_PLACES = re.compile(r"(?<![\d.,])(\d*\.\d{3})((?: \d{3})+(?: \d{1,2})?|(?: \d{3})* \d{1,2})(?![\d/.,]| ?/)")
"""Decimal places in groups of three."""

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_CORE = re.compile(
    rf"(?P<sign>[-+]?) ?(?:"
    rf"10 ?\^ ?(?:\{{ ?(?P<only>[-+]?\d+) ?\}}|(?P<only_digit>[-+]?\d+))"
    rf"|(?:(?P<whole>\d+) ?)?\\[dtc]?frac ?(?:\{{ ?(?P<up>{_DECIMAL}) ?\}}|(?P<up_digit>\d)) ?"
    rf"(?:\{{ ?(?P<down>{_DECIMAL}) ?\}}|(?P<down_digit>\d))"
    rf"|(?:(?P<mixed>\d+) )?(?P<over>{_DECIMAL}) ?/ ?(?P<under>{_DECIMAL})"
    rf"|(?P<number>{_DECIMAL}(?:[eE][-+]?\d+)?)"
    rf"(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{{ ?(?P<power>[-+]?\d+) ?\}}|(?P<digit>[-+]?\d+)))?"
    rf")",
    re.ASCII,
)
_CURRENCY = re.compile(r"(-?) ?(?:\\text ?\{ ?)?(\\?\$|€|£|¥|₹|\\(?:euro|pounds|yen)(?![A-Za-z]))(?: ?\})? ?")
_PERCENT = re.compile(
    r" ?(?:\\?%|(?:\\(?:text|mathrm|textrm|mbox) ?\{ ?)(?:\\?%|[Pp]er ?cent|pct) ?\}|[Pp]er ?cent|pct)"
)
_WRAP = re.compile(r"\\(?:text|mathrm|textrm|mbox|operatorname|textit|textbf|mathbf|rm|hbox)(?![A-Za-z])\*?")
_POWER = re.compile(r"\^ ?\{? ?(\d) ?\}?$")
_MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_NO_UNIT = re.compile(
    r"\b(?:and|or|if|for|not|more|less|than|least|most|none|from|to|is|are|where|when|no|mod|base|remainder|with"
    r"|only|both|either|otherwise)\b|[\d=<>,;:]"
)
MAX_POWER = 5_000
TOLERANCE = Fraction(1, 100_000)
"""Relative, where one side is written as a decimal: 0.333333 is 1/3. math-verify's own is absolute, so that to it all
that is below a millionth is equal."""

_NAMES = {
    "mm": ("millimeter", "millimetre"), "cm": ("centimeter", "centimetre"), "dm": ("decimeter", "decimetre"),
    "m": ("meter", "metre"), "km": ("kilometer", "kilometre"), "in": ("inch",), "ft": ("foot", "feet"),
    "yd": ("yard",), "mi": ("mile",), "g": ("gram",), "kg": ("kilogram",), "mg": ("milligram",), "lb": ("pound", "lbs"),
    "oz": ("ounce",), "s": ("second", "sec"), "min": ("minute",), "h": ("hour", "hr"), "day": ("day",),
    "week": ("week",), "month": ("month",), "year": ("year", "yr"), "l": ("liter", "litre"),
    "ml": ("milliliter", "millilitre"), "$": ("dollar", "usd", "\\$"), "cent": ("cent", "¢"),
    "€": ("euro", "eur", "\\euro"), "£": ("\\pounds", "gbp"), "¥": ("yen", "\\yen"), "₹": ("rupee", "inr"), 
    "deg": ("degree", "^\\circ"), "°c": ("^\\circc", "degreescelsius", "degreecelsius"),
    "°f": ("^\\circf", "degreesfahrenheit", "degreefahrenheit"),
    "rad": ("radian",), "mph": ("milesperhour", "mi/h"),
    "km/h": ("kmh", "kph", "kilometersperhour", "kilometresperhour"),
    "m/s": ("meterspersecond", "metrespersecond"), "n": ("newton",), "j": ("joule",), "w": ("watt",), "v": ("volt",),
    "hz": ("hertz",), "k": ("kelvin",), "pa": ("pascal",),
}  # fmt: skip
_UNITS = {name: unit for unit, names in _NAMES.items() for name in (unit, *names, *(f"{n}s" for n in names))}
_UNITS["inches"] = "in"
_MEASURES = {
    "length": {
        "mm": "0.001", "cm": "0.01", "dm": "0.1", "m": "1", "km": "1000",
        "in": "0.0254", "ft": "0.3048", "yd": "0.9144", "mi": "1609.344",
    },
    "mass": {"mg": "0.001", "g": "1", "kg": "1000", "oz": "28.349523125", "lb": "453.59237"},
    "time": {"s": "1", "min": "60", "h": "3600", "day": "86400", "week": "604800"},
    "volume": {"ml": "0.001", "l": "1"},
    "speed": {"m/s": "1", "km/h": "5/18", "mph": "0.44704"},
    "dollars": {"cent": "0.01", "$": "1"},
}  # fmt: skip
_SCALES = {unit: (kind, Fraction(scale)) for kind, units in _MEASURES.items() for unit, scale in units.items()}
"""What a unit measures, and how much of its measure it is."""


@dataclass(frozen=True)
class Number:
    value: Fraction
    decimal: bool
    """Whether it is written with a decimal point, so that it may be rounded."""
    percent: bool
    unit: str | None
    """A unit known here; None where there is none, or a word."""
    power: int = 1
    """Of the unit: cm^2 has 2."""


def tidy(text: str, *, commas: bool = True) -> str:
    """The answer in plain LaTeX: one spelling of minus, blanks, systems and digit groups, no sizes and colours.
    `commas`: whether those within 1,234 are separators."""
    text = _SIZES.sub("", text.translate(_REPLACED))
    if "color" in text:
        text = _COLOUR.sub("", text)
    if "brace" in text:
        text = re.sub(r"\\([lr])brace(?![A-Za-z]) ?", lambda side: "\\{" if side[1] == "l" else "\\}", text)
    text = _SPACES.sub(" ", text)
    if "{" in text:
        text = _SYSTEM.sub(_system, _SEPARATOR.sub(lambda found: found[1] or " ", text))
    text = _PLACES.sub(lambda found: found[0].replace(" ", ""), text.strip())
    if text.count(",") > 1:
        text = _BY_TWO_ALONE.sub(_without_commas, text)
    return _GROUPS.sub(_joined if commas else _joined_by_blanks, text)


def joined_by_two(text: str) -> str:
    """(Tidy) text with 12,34,567 read as one number, which may be a list of three as well."""
    return _BY_TWO.sub(_without_commas, text)


def _without_commas(groups: re.Match[str]) -> str:
    return groups[0].replace(",", "")


def _system(found: re.Match[str]) -> str:
    """Equations that stand side by side are a list; what has columns, as where cases are told apart, is kept."""
    rows = re.sub(r"(?:\\\\ ?)+$", "", found["rows"].strip()).strip()
    return f"\\begin{{cases}}{rows}\\end{{cases}}" if "&" in rows else re.sub(r"[, ]*\\\\ ?", ", ", rows)


def read(text: str) -> Number | None:
    """The one number that the (tidy) text is; None where it is anything else."""
    unit: str | None = None
    currency = _CURRENCY.match(text)
    if currency:
        text, unit = currency[1] + text[currency.end() :], _UNITS.get(currency[2].lower())
    match = _CORE.match(text)
    if match is None:
        return None
    value, decimal = _value(match)
    if value is None:
        return None
    rest = text[match.end() :]
    percent = _PERCENT.match(rest)
    if percent:
        return None if rest[percent.end() :].strip(" .") else Number(value / 100, decimal, True, None)
    found = _unit(rest)
    if found is None or (unit is not None and found[0] not in (None, unit)):
        return None
    named, power, times = found
    return Number(value * times, decimal, False, unit or named, power)


def equal(expected: Number, answer: Number) -> bool:
    """By value. A percentage is its hundredth; where the other side has no sign it may be in percent too."""
    one, other = expected.value, answer.value
    if expected.unit and answer.unit and (expected.unit, expected.power) != (answer.unit, answer.power):
        (kind, scale), (other_kind, other_scale) = (
            _SCALES.get(n.unit or "", (n.unit, Fraction(1))) for n in (expected, answer)
        )
        if (kind, expected.power) != (other_kind, answer.power):
            return False
        one, other = one * scale**expected.power, other * other_scale**answer.power
    rounded = expected.decimal or answer.decimal
    if _close(one, other, rounded):
        return True
    if expected.percent == answer.percent:
        return False
    one, other = (100 * n.value if n.percent else n.value for n in (expected, answer))
    # 1 is 100 %, and not 1 % as well.
    return (abs(one) > 1 or (abs(one) == 1 and expected.percent)) and _close(
        one, other, expected.decimal or answer.decimal
    )


def _close(one: Fraction, other: Fraction, rounded: bool) -> bool:
    difference = abs(one - other)
    return not difference or (
        rounded and difference <= Fraction(1, 10**6) and difference <= TOLERANCE * max(abs(one), abs(other))
    )


def _joined(groups: re.Match[str]) -> str:
    # "1, 234" may be a list of two numbers; the thin blank of "1,\!234" is gone by now.
    one_kind = groups[2][0] == " " or " " not in groups[2]
    return groups[1] + re.sub(r"\D", "", groups[2]) if one_kind else groups[0]


def _joined_by_blanks(groups: re.Match[str]) -> str:
    return groups[0].replace(",", ", ") if "," in groups[2] else _joined(groups)


def _value(match: re.Match[str]) -> tuple[Fraction | None, bool]:
    part = match.groupdict()
    sign = -1 if part["sign"] == "-" else 1
    power = int(part["power"] or part["digit"] or part["only"] or part["only_digit"] or 0)
    written = part["number"] or ""
    mantissa, _, exponent = written.lower().partition("e")
    if abs(power) > MAX_POWER or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_POWER or len(written) > MAX_POWER:
        return None, False
    scale = Fraction(10) ** (power + int(exponent or 0))
    if written:
        return sign * Fraction(mantissa.rstrip(".")) * scale, "." in mantissa
    if part["only"] or part["only_digit"]:
        return sign * scale, False
    up, down = part["up"] or part["up_digit"] or part["over"], part["down"] or part["down_digit"] or part["under"]
    if not Fraction(down):
        return None, False
    whole = Fraction(part["whole"] or part["mixed"] or 0)
    return sign * (whole + Fraction(up) / Fraction(down)), "." in up + down


def _unit(rest: str) -> tuple[str | None, int, int] | None:
    """The unit that follows a number, its power and a factor (of millions); None where something else follows."""
    rest = rest.strip(" .")
    if not rest:
        return None, 1, 1
    wrapped = _WRAP.search(rest) is not None
    bare = _WRAP.sub("", rest)
    power = 1
    if (match := _POWER.search(bare)) and bare[: match.start()].strip(" {}"):
        power, bare = int(match[1]), bare[: match.start()]
    bare = re.sub(r"\\frac ?\{(.*?)\} ?\{(.*?)\}$", r"\1/\2", bare.strip())
    words = re.sub(r"[{}]", " ", bare).strip(" .").lower()
    if _NO_UNIT.search(words):
        return None
    times = 1
    first, _, others = words.partition(" ")
    if first in _MULTIPLIERS:
        times, words = _MULTIPLIERS[first], others.removeprefix("of ").strip()
    for prefix, of in (("square ", 2), ("sq ", 2), ("cubic ", 3)):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), of
    words = words.replace(" ", "")
    known = _UNITS.get(words)
    # A letter by itself, not set as text, is a variable.
    if words and not wrapped and (known is None or (len(words) == 1 and words.isalpha())):
        return None
    if words and not known and re.search(r"[\\^_]", words):
        return None
    return known, power, times
