"""Reading \\boxed{…} out of a response."""

import re

_MARKER = "\\boxed{"
_TOKEN = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[-+]?\d(?:[\w/^%]|[.,](?=\d))*|[A-Za-z](?![A-Za-z])|\\[A-Za-z]+(?:\{[^{}]*\})*")
"""What a box without braces holds: a number, a letter, or a command with its arguments."""
_PLACEHOLDER = re.compile(
    r"(?:\s|\\[,;:! ]|~|\.{2,}|…|\\(?:[lc]?dots|cdot|q?quad|square|_)(?![A-Za-z])|_{2,}|\?|\\(?:text|mathrm)\{\s*\}"
    r"|\\h?phantom\{[^{}]*\}|[<\[](?:the |your |my )?(?:final )?answer[>\]]"
    r"|(?:\\text\{)?(?:the |your |my )?(?:final )?answer(?: here)?(?:\s*\})?)*+",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"(?:(?<=\n)[ \t]*(?:[-*•]|\d{1,2}[.)])\s|[\s$,;&]|\*\*|\\[()\[\],;: ]|\\q?quad|\\\\"
    r"|\\text\{\s*(?:,?\s*(?:and|or))?\s*\}|\b(?:and|or|also|as well as|und|oder|et|ou)\b)*+"
    r"(?P<name>[A-Za-z])?(?(name)(?:_\{?\w\}?)?\s*=[\s$]*)"
)
"""Between the boxes of a list, which may say each time what is equal to them."""
_NAMED = re.compile(r"([A-Za-z])(?:_\{?\w\}?)?\s*=[\s$]*$")
_UNION = re.compile(r"[\s$]*\\cup[\s$]*")


def boxed(text: str, *, last: bool = True) -> str | None:
    """The content of the last (or first) \\boxed{…}, braces balanced; None where there is none or it is not closed.

    An escaped brace is no brace, \\boxed 9 is a box too, and an empty box is none: it is the mention of one.
    """
    if (only := _only(text)) is not None:
        return only or None
    found = _boxes(text)
    return found[-1 if last else 0][2] if found else None


def boxed_list(text: str, *, several_names: bool = False) -> str | None:
    """`boxed`, but where the last box is one of several side by side, as in \\boxed{3}, \\boxed{5} and \\boxed{7}, the
    contents of them all, commas between; unions of boxes too. Boxes of different names, as in x=\\boxed{1},
    y=\\boxed{2}, are one answer where `several_names` are asked for, each with its name."""
    if (only := _only(text)) is not None:
        return only or None
    found = _boxes(text)
    if not found:
        return None
    begin, _, content = found.pop()
    contents, names, unions = [content], [""], 0
    while found and content is not None:
        start, end, other = found.pop()
        between = _BETWEEN.fullmatch(text, end, begin)
        named = _NAMED.search(text, max(0, start - 20), start)
        if other is not None and _UNION.fullmatch(text, end, begin) and unions == len(contents) - 1:
            unions += 1
        elif other is None or not between or unions or not _goes_with(between["name"], named, several_names):
            break
        else:
            names[-1] = between["name"] or ""
        contents.append(other)
        names.append(named[1] if named else "")
        begin = start
    if content is None or len(set(contents)) == 1:
        return content
    if len(set(names)) > 1 and all(names):
        contents = [f"{name}={each}" for name, each in zip(names, contents, strict=True)]
    return (" \\cup " if unions else ", ").join(each or "" for each in reversed(contents))


def _goes_with(name: str | None, named: re.Match[str] | None, several_names: bool) -> bool:
    """Whether a box of this name continues the list of the one before it."""
    return name is None or (named is not None and (several_names or name == named[1]))


def _only(text: str) -> str | None:
    """What the only box holds, where that is plain text, as most often: found without reading all. Empty where there is
    no box, or one that nothing closes; None where all must be read."""
    boxes = text.count("box")
    if boxes != 1:
        return None if boxes else ""
    _, marker, rest = text.partition(_MARKER)
    inside, closing, _ = rest.partition("}")
    if not marker or "\\" in inside or "{" in inside or not inside.strip(" \t\n.…~"):
        return None
    return inside if closing else ""


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
