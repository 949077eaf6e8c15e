"""From a response to edits: SEARCH/REPLACE blocks, or a unified diff.

SEARCH/REPLACE blocks (the form of Agentless, which NeMo Gym's `swerl_gen` prompts ask for) stand in fenced code:

    ```python
    ### path/to/file.py
    <<<<<<< SEARCH
    lines to replace
    =======
    lines in their place
    >>>>>>> REPLACE
    ```

One fence may hold several blocks; each takes the nearest `### path` above it in the same fence. Markers stand alone on
their line, blanks at its end apart; within a block nothing but its next marker counts, so it may hold fences itself.
A search of blank lines alone names no lines: the block makes a new file.

A unified diff stands in a fence marked `diff` or `patch`; several such fences are read one after the other.

Refused, because it could be read in two ways: both forms in one answer, a second `=======` in a block, a block
outside a fence or without a path, a block or a fence that is not closed.
"""

import re
from collections.abc import Iterator

from cascade.environments.swe_agentless.diffs import parse_diff
from cascade.environments.swe_agentless.editing import Edit, Refused

SEARCH, DIVIDER, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
MAX_EDITS = 200

_FENCE = re.compile(r"(`{3,})\s*([\w+-]*)\s*")


def solution(text: str, *, required: bool) -> str:
    """What stands between `<solution>` and `</solution>`; the whole text where there is neither and none is `required`.

    Raises Refused where they are required and missing, where one is without the other, and where there are several.
    """
    counts = text.count("<solution>"), text.count("</solution>")
    if counts == (0, 0) and not required:
        return text
    inside, closed, _ = text.partition("<solution>")[2].partition("</solution>")
    if counts != (1, 1) or not closed:
        raise Refused("the answer is not in one <solution>…</solution>")
    return inside


def parse_edits(text: str) -> list[Edit]:
    """The edits of an answer, in its order. Raises Refused where there is none, and where one cannot be read."""
    blocks: list[Edit] = []
    hunks: list[Edit] = []
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        fence = _FENCE.fullmatch(line)
        if fence and fence[2].lower() in ("diff", "patch"):
            hunks += parse_diff("\n".join(_until(fence[1], lines)))
        elif fence:
            blocks += _blocks(_until(fence[1], lines), lines)
        elif line.rstrip() in (SEARCH, REPLACE):
            raise Refused(f"{line.rstrip()!r} is not in fenced code")
    if blocks and hunks:
        raise Refused("the answer holds SEARCH/REPLACE blocks and a diff; it may use one form")
    if not blocks and not hunks:
        raise Refused("the answer holds neither a SEARCH/REPLACE block nor a diff")
    if len(blocks) + len(hunks) > MAX_EDITS:
        raise Refused(f"the answer holds more than {MAX_EDITS} edits")
    return blocks or hunks


def last_python_block(text: str) -> str | None:
    """The body of the last fence marked `python`, None where there is none with code in it."""
    found = None
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        fence = _FENCE.fullmatch(line)
        if fence:
            body = "\n".join(_until(fence[1], lines))
            if fence[2].lower() == "python" and body.strip():
                found = body
    return found


def _until(fence: str, lines: Iterator[str]) -> Iterator[str]:
    """The lines up to the one that closes the fence."""
    for line in lines:
        if line.rstrip() == fence:
            return
        yield line
    raise Refused("the answer ends within fenced code")


def _blocks(body: Iterator[str], lines: Iterator[str]) -> Iterator[Edit]:
    """The blocks of one fence. `body` reads from `lines` and ends with the fence; within a block, `lines` go on."""
    path = ""
    for line in body:
        if line.startswith("### "):
            path = line[4:].strip()
        elif line.rstrip() == SEARCH:
            if not path:
                raise Refused("a SEARCH block has no `### path` above it")
            yield _block(path, lines)
        elif line.rstrip() == REPLACE:
            raise Refused(f"{REPLACE!r} without a SEARCH")


def _block(path: str, lines: Iterator[str]) -> Edit:
    """The block whose SEARCH marker has just been read."""
    old: list[str] = []
    new: list[str] | None = None
    for line in lines:
        marker = line.rstrip()
        if marker == SEARCH or (marker == DIVIDER and new is not None) or (marker == REPLACE and new is None):
            raise Refused(f"the SEARCH/REPLACE block of {path[:80]} has a {marker!r} out of place")
        if marker == REPLACE and new is not None:
            return Edit(path, tuple(old) if any(part.strip() for part in old) else (), tuple(new))
        if marker == DIVIDER:
            new = []
        else:
            (old if new is None else new).append(line)
    raise Refused(f"the SEARCH/REPLACE block of {path[:80]} is not closed")
