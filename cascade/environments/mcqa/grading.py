"""Reading the chosen letter out of a response, by the row's grading mode."""

from collections.abc import Callable
from itertools import pairwise

import regex

from cascade.chat import Row
from cascade.environments.shared.boxed import boxed

DEFAULT_MODE = "strict_single_letter_boxed"
REGEX_SECONDS = 1.0

_TEXT_WRAP = regex.compile(r"\\text\{\s*(.*?)\s*\}", regex.DOTALL)
_ONLY_LETTER = regex.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*")
_LABEL = regex.compile(r"\s*([A-Z])\s*[:).\-]")
_ANSWER_COLON = regex.compile(r"(?i)answer\s*:\s*(.+)")
_ANSWER_COLON_MARKDOWN = regex.compile(r"(?im)[*_]{0,2}answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)")
_LEADING_LETTER = regex.compile(r"([A-Za-z])(?![A-Za-z0-9])")
_WORD_LETTER = regex.compile(r"\b[A-Z]\b")
_ANY_LETTER = regex.compile(r"(?<![A-Za-z])([A-Za-z])(?![A-Za-z])")
_LIST_SEPARATOR = regex.compile(r"\s*[/|&,;]\s*|\s+(?:or|and)\s+|\s+", regex.IGNORECASE)
# Option letters as other scripts write them (Arabic, Bengali, full-width).
_FOREIGN = str.maketrans(
    {
        **dict(zip("أبجد", (" A", " B", " C", " D"), strict=True)),
        **dict(zip("অবডঢ", (" A", " B", " C", " D"), strict=True)),
        **dict(zip("\uff21\uff22\uff23\uff24", (" A", " B", " C", " D"), strict=True)),
    }
)

Options = dict[str, str]


def options_of(row: Row) -> Options:
    """Letter → text; options whose text is null do not count."""
    found: Options = {}
    entries = row.get("options")
    for entry in entries if isinstance(entries, list) else []:
        for key, text in entry.items() if isinstance(entry, dict) else ():
            if isinstance(key, str) and len(key) == 1 and key.isalpha() and isinstance(text, str):
                found[key.upper()] = text
    return found


def patterns_of(row: Row) -> list[str]:
    metadata = row.get("template_metadata")
    patterns = metadata.get("output_regex") if isinstance(metadata, dict) else None
    return [patterns] if isinstance(patterns, str) else [p for p in patterns or [] if isinstance(p, str)]


def read_letter(row: Row, text: str) -> str | None:
    """Raises TimeoutError when a row's own pattern does not finish."""
    options = options_of(row)
    for pattern in patterns_of(row):
        letter = _by_pattern(pattern, text, options)
        if letter is not None:
            return letter
    return MODES[row.get("grading_mode") or DEFAULT_MODE](text, options)


def _strict_boxed(text: str, options: Options) -> str | None:
    inside = boxed(text)
    if inside is None:
        return None
    inside = _unwrap(inside.strip())
    match = _ONLY_LETTER.fullmatch(inside) or _LABEL.match(inside)
    return match[1] if match and match[1] in options else None


def _lenient_boxed(text: str, options: Options) -> str | None:
    letter = _strict_boxed(text, options)
    inside = boxed(text)
    if letter is not None or inside is None:
        return letter
    shown = [_normal(inside), _normal(_unwrap(inside.strip()))]
    matches = {x for x, option in options.items() if _normal(option) and any(_normal(option) in s for s in shown)}
    return matches.pop() if len(matches) == 1 else None


def _answer_colon(text: str, options: Options) -> str | None:
    match = _ANSWER_COLON.search(text)
    if match is None:
        return None
    shown = _unwrap(match[1]).strip()
    if shown.upper() in options:
        return shown.upper()
    return next((x for x, option in options.items() if _normal(option) == _normal(shown)), None)


def _answer_colon_markdown(text: str, options: Options) -> str | None:
    for shown in reversed(_ANSWER_COLON_MARKDOWN.findall(text)):
        shown = shown.translate(_FOREIGN).strip().strip("*_` \t\n\r.,;:")
        if _lists_several(shown, options):
            continue
        leading = _LEADING_LETTER.match(shown)
        alone = _WORD_LETTER.findall(shown)
        letter = leading[1] if leading else alone[-1] if alone else ""
        if letter.upper() in options:
            return letter.upper()
    return None


def _by_pattern(pattern: str, text: str, options: Options) -> str | None:
    try:
        matches = regex.findall(pattern, text, regex.IGNORECASE, timeout=REGEX_SECONDS)
    except regex.error:
        return None
    if not matches:
        return None
    captured = matches[-1] if isinstance(matches[-1], str) else next(filter(None, matches[-1]), "")
    captured = captured.strip().translate(_FOREIGN).strip()
    if len(captured) == 1 and captured.isalpha():
        return captured.upper()
    return next((x for x, option in options.items() if _normal(option) == _normal(captured)), None)


def _lists_several(text: str, options: Options) -> bool:
    """Two different options side by side, as in "A or B"."""
    found = [match for match in _ANY_LETTER.finditer(text) if match[1].upper() in options]
    return any(
        one[1].upper() != two[1].upper() and _LIST_SEPARATOR.fullmatch(text[one.end() : two.start()])
        for one, two in pairwise(found)
    )


def _unwrap(text: str) -> str:
    while match := _TEXT_WRAP.fullmatch(text):
        text = match[1]
    return text


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


MODES: dict[str, Callable[[str, Options], str | None]] = {
    DEFAULT_MODE: _strict_boxed,
    "lenient_boxed": _lenient_boxed,
    "lenient_answer_colon": _answer_colon,
    "lenient_answer_colon_md": _answer_colon_markdown,
}
