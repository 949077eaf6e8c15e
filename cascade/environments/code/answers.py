"""What counts as the answer: the last complete fenced code block of the response, and the language of its fence."""

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
    """A line that begins with ``` opens a block, a line of nothing but ``` closes it; what is not closed is none."""
    found: Answer | None = None
    label: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        mark = line.strip()
        if label is None:
            if mark.startswith("```") and "`" not in mark[3:]:
                label, lines = mark[3:].strip().lower(), []
        elif mark == "```":
            found, label = Answer("\n".join(lines) + "\n", LABELS.get(label)), None
        else:
            lines.append(line)
    return found
