"""Reading the chosen letter out of a response, by the row's grading mode."""

from collections.abc import Callable

import regex

from cascade.chat import Row
from cascade.environments.base import in_gym
from cascade.environments.mcqa import gym_rules
from cascade.environments.mcqa.letters import (
    BRACKETS,
    FOREIGN,
    Options,
    beginning,
    by_text,
    chosen,
    only_letter,
    unwrapped,
    within,
)
from cascade.environments.shared.boxed import boxed_list

DEFAULT_MODE = "strict_single_letter_boxed"
REGEX_SECONDS = 1.0

_ANSWER_COLON = regex.compile(r"(?im)[*_]{0,2}answer[*_]{0,2}\s*:[*_\s]{0,2}(.+)")


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
    gym = in_gym(row)
    for pattern in patterns_of(row):
        letter = _by_pattern(pattern, text, options, gym)
        if letter is not None:
            return letter
    return (gym_rules.MODES if gym else MODES)[row.get("grading_mode") or DEFAULT_MODE](text, options)


def _strict_boxed(text: str, options: Options) -> str | None:
    inside = boxed_list(text)
    return None if inside is None else only_letter(unwrapped(inside), options)


def _lenient_boxed(text: str, options: Options) -> str | None:
    inside = boxed_list(text)
    if inside is None:
        return None
    shown = unwrapped(inside)
    return only_letter(shown, options) or by_text(shown, options) or within(shown, options) or within(inside, options)


def _answer_colon(text: str, options: Options) -> str | None:
    match = _ANSWER_COLON.search(text)
    if match is None:
        return None
    shown = unwrapped(match[1])
    bare = shown.strip(BRACKETS).upper()
    return bare if bare in options else by_text(shown, options)


def _answer_colon_markdown(text: str, options: Options) -> str | None:
    answers = (chosen(shown, options) for shown in reversed(_ANSWER_COLON.findall(text)))
    return next(filter(None, answers), None)


def _by_pattern(pattern: str, text: str, options: Options, gym: bool) -> str | None:
    try:
        matches = list(regex.finditer(pattern, text, regex.IGNORECASE, timeout=REGEX_SECONDS))
    except regex.error:
        return None
    if not matches:
        return None
    last = matches[-1]
    group = next((number for number, part in enumerate(last.groups(), 1) if part), 0) if last.groups() else 0
    captured = last[group].strip().translate(FOREIGN).strip()
    if len(captured) == 1 and captured.isalpha():
        # The first letter of an option's text is none of the row's labels.
        line = text[last.start(group) :].split("\n", 1)[0]
        named = None if gym else beginning(line, options)
        return named if named and len(options[named].strip()) > 1 else captured.upper()
    return by_text(captured, options)


MODES: dict[str, Callable[[str, Options], str | None]] = {
    DEFAULT_MODE: _strict_boxed,
    "lenient_boxed": _lenient_boxed,
    "lenient_answer_colon": _answer_colon,
    "lenient_answer_colon_md": _answer_colon_markdown,
}
