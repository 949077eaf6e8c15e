"""What counts as the answer: the last complete fenced code block of the response that can be a program, and its
language."""

import re
from typing import Literal, NamedTuple

Language = Literal["python", "cpp"]
LABELS: dict[str, Language] = {
    **dict.fromkeys(("python", "python3", "py"), "python"),
    **dict.fromkeys(("cpp", "c++", "cc", "cxx"), "cpp"),
}


class Answer(NamedTuple):
    code: str
    language: Language | None
    """None where the fence names none that is known here."""


def last_block(text: str) -> Answer | None:
    """As in CommonMark a line of three or more ` or ~ opens a block, and one of at least as many of the same closes it,
    indented by at most three blanks more. What is not closed is none. An indented block is taken back to the margin.

    Lines end with a newline alone: a form feed, U+2028 and their like may stand in a program's text. A block whose
    fence names something else, such as ```text with a sample of output, counts only where there is no other.
    """
    program: Answer | None = None
    other: Answer | None = None
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if opening is None:
            opening, lines = _OPENING.fullmatch(line), []
            continue
        indent = len(opening["indent"])
        closing = _CLOSING.fullmatch(line)
        if (
            closing
            and closing["fence"][0] == opening["fence"][0]
            and len(closing["fence"]) >= len(opening["fence"])
            and len(closing["indent"]) <= indent + 3
        ):
            answer = Answer("\n".join(lines) + "\n", _language(opening["info"]))
            if answer.language is None and opening["info"].strip(" \t{}"):
                other = answer
            else:
                program = answer
            opening = None
        else:
            lines.append(line[min(indent, len(line) - len(line.lstrip(" \t"))) :])
    return program or other


def _language(info: str) -> Language | None:
    """Of a fence's info string, as in ```python, ```{.python} and ```py title="a.py"."""
    label = (info.strip().strip("{}").split() or [""])[0].lstrip(".").lower()
    return LABELS.get(label) or LABELS.get(re.sub(r"[\d.:,=-].*", "", label))


_OPENING = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}(?!.*`)|~{3,})(?P<info>.*)")
_CLOSING = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})\s*")
