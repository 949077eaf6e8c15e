"""Reading the chosen letter as NeMo Gym's `mcqa` does, rule by rule: the modes of rows with `grading: gym`."""

from collections.abc import Callable
from itertools import pairwise

import regex

from cascade.environments.mcqa.letters import FOREIGN, Options, normal
from cascade.environments.shared.boxed import boxed_in_gym

_TEXT_WRAP = regex.compile(r"\\text\{\s*(.*?)\s*\}", regex.DOTALL)
_ONLY_LETTER = regex.compile(r"[^A-Za-z]*([A-Z])[^A-Za-z]*")
_LABEL = regex.compile(r"\s*([A-Z])\s*[:).\-]")
_ANSWER_COLON = regex.compile(r"(?i)answer\s*:\s*(.+)")
_ANSWER_COLON_MARKDOWN = regex.compile(r"(?im)[*_]{0,2}answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)")
_LEADING_LETTER = regex.compile(r"([A-Za-z])(?![A-Za-z0-9])")
_WORD_LETTER = regex.compile(r"\b[A-Z]\b")
_ANY_LETTER = regex.compile(r"(?<![A-Za-z])([A-Za-z])(?![A-Za-z])")
_LIST_SEPARATOR = regex.compile(r"\s*[/|&,;]\s*|\s+(?:or|and)\s+|\s+", regex.IGNORECASE)


def _strict_boxed(text: str, options: Options) -> str | None:
    inside = boxed_in_gym(text)
    if inside is None:
        return None
    inside = _unwrap(inside.strip())
    match = _ONLY_LETTER.fullmatch(inside) or _LABEL.match(inside)
    return match[1] if match and match[1] in options else None


def _lenient_boxed(text: str, options: Options) -> str | None:
    letter = _strict_boxed(text, options)
    inside = boxed_in_gym(text)
    if letter is not None or inside is None:
        return letter
    shown = [normal(inside), normal(_unwrap(inside.strip()))]
    matches = {x for x, option in options.items() if normal(option) and any(normal(option) in s for s in shown)}
    return matches.pop() if len(matches) == 1 else None


def _answer_colon(text: str, options: Options) -> str | None:
    match = _ANSWER_COLON.search(text)
    if match is None:
        return None
    shown = _unwrap(match[1]).strip()
    if shown.upper() in options:
        return shown.upper()
    return next((x for x, option in options.items() if normal(option) == normal(shown)), None)


def _answer_colon_markdown(text: str, options: Options) -> str | None:
    for shown in reversed(_ANSWER_COLON_MARKDOWN.findall(text)):
        shown = shown.translate(FOREIGN).strip().strip("*_` \t\n\r.,;:")
        if _lists_several(shown, options):
            continue
        leading = _LEADING_LETTER.match(shown)
        alone = _WORD_LETTER.findall(shown)
        letter = leading[1] if leading else alone[-1] if alone else ""
        if letter.upper() in options:
            return letter.upper()
    return None


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


MODES: dict[str, Callable[[str, Options], str | None]] = {
    "strict_single_letter_boxed": _strict_boxed,
    "lenient_boxed": _lenient_boxed,
    "lenient_answer_colon": _answer_colon,
    "lenient_answer_colon_md": _answer_colon_markdown,
}
