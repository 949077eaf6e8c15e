"""Reading \\boxed{…} out of a response."""

import re

_MARKER = "\\boxed{"
_TOKEN = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[-+]?\d(?:[\w/^%]|[.,](?=\d))*|[A-Za-z](?![A-Za-z])|\\[A-Za-z]+(?:\{[^{}]*\})*")
"""What a box without braces holds: a number, a letter, or a command with its arguments."""
_PLACEHOLDER = re.compile(r"(?:\s|\\[,;:! ]|~|\.{2,}|…|\\[lc]?dots|\\(?:text|mathrm)\{\s*\})*")
_BETWEEN = re.compile(
    r"(?:[\s$,;&]|\*\*|\n\s*[-*•]\s|\\[()\[\],;: ]|\\q?quad|\\\\|\\text\{\s*(?:,?\s*(?:and|or))?\s*\}|\b(?:and|or)\b)*"
    r"(?P<name>[A-Za-z])?(?(name)(?:_\{?\w\}?)?\s*=[\s$]*)"
)
"""Between the boxes of a list, which may say each time what is equal to them."""
_NAMED = re.compile(r"([A-Za-z])(?:_\{?\w\}?)?\s*=[\s$]*$")


def boxed(text: str, *, last: bool = True) -> str | None:
    """The content of the last (or first) \\boxed{…}, braces balanced; None where there is none or it is not closed.

    An escaped brace is no brace, \\boxed 9 is a box too, and an empty box is none: it is the mention of one.
    """
    if _is_simple(text):
        return _simple(text)
    found = _boxes(text)
    return found[-1 if last else 0][2] if found else None


def boxed_list(text: str) -> str | None:
    """`boxed`, but where the last box is one of several side by side, as in \\boxed{3}, \\boxed{5} and \\boxed{7}, the
    contents of them all, commas between."""
    if _is_simple(text):
        return _simple(text)
    found = _boxes(text)
    if not found:
        return None
    begin, _, content = found.pop()
    contents = [content]
    while found and content is not None:
        start, end, other = found.pop()
        between = _BETWEEN.fullmatch(text, end, begin)
        named = _NAMED.search(text, max(0, start - 20), start)
        if other is None or not between or between["name"] not in (None, named and named[1]):
            break
        contents.append(other)
        begin = start
    if content is None or len(set(contents)) == 1:
        return content
    return ", ".join(each or "" for each in reversed(contents))


def _is_simple(text: str) -> bool:
    """Whether there is one box at most and nothing in it but characters, as most often: no need to read all."""
    if (boxes := text.count("box")) > 1:
        return False
    start = text.find(_MARKER)
    if start < 0:
        return not boxes
    end = text.find("}", start)
    return end < 0 or not (text.find("\\", start + 1, end) >= 0 or text.find("{", start + len(_MARKER), end) >= 0)


def _simple(text: str) -> str | None:
    _, found, rest = text.partition(_MARKER)
    inside, closed, _ = rest.partition("}")
    return inside if found and closed and inside.strip(" \t\n.…~") else None


def _boxes(text: str) -> list[tuple[int, int, str | None]]:
    """Start, end and content of each box that has no other one inside; content None where it is not closed."""
    closings: dict[int, int] = {}
    open_braces: list[int] = []
    marks: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            open_braces.append(token.start())
        elif token[0] == "}":
            if open_braces:
                closings[open_braces.pop()] = token.end()
        elif len(token[0]) > 2:
            marks.append(token.span())
    found: list[tuple[int, int, str | None]] = []
    for start, end in reversed(marks):
        if text.startswith("{", end):
            closed = closings.get(end)
            box = (start, closed or len(text), None if closed is None else text[end + 1 : closed - 1])
        elif bare := _BARE.match(text, end):
            box = (start, bare.end(), bare[0])
        else:
            continue
        if not (found and box[1] > found[-1][0] and box[2] is not None):
            found.append(box)
    found.reverse()
    return [box for box in found if box[2] is None or not _PLACEHOLDER.fullmatch(box[2])]


def boxed_in_gym(text: str) -> str | None:
    """The last \\boxed{…} as NeMo Gym reads it, every brace counted."""
    _, found, rest = text.rpartition(_MARKER)
    depth = 1
    for position, character in enumerate(rest if found else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:position]
    return None
