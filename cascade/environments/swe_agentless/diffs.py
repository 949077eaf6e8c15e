"""Unified diffs: read into edits, and written from a change.

Read as `git apply` reads them, and no more freely: `--- a/path`, `+++ b/path` (the same path, or `/dev/null` on the
left for a new file), then hunks whose lines are as many as their header says. Two things are tolerated, since they
can mean only one thing: an empty line for an empty line of context, and a hunk whose line number is wrong, where its
old lines stand in one place of the file (see `editing`). Deleted, renamed and copied files, modes and binary files
are refused.
"""

import re
from collections.abc import Iterator

from cascade.environments.swe_agentless.editing import Change, Edit, Placed, Refused, split_lines

CONTEXT = 3

Span = tuple[int, int, tuple[str, ...]]

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@.*")
_HEADER = ("diff --git ", "index ", "new file mode 100644")
_OLD, _NEW = "--- ", "+++ "
_NOTHING = "/dev/null"
_OPEN_END = "\\ No newline at end of file"


def parse_diff(text: str) -> list[Edit]:
    """One edit a hunk. Raises Refused, naming the line, where the text is no such diff."""
    edits: list[Edit] = []
    path, is_new = "", False
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith(_OLD) and at + 1 < len(lines) and lines[at + 1].startswith(_NEW):
            path, is_new = _path(line, lines[at + 1])
            at += 2
        elif (hunk := _HUNK.fullmatch(line)) and path:
            edit, at = _hunk(path, hunk, lines, at + 1)
            if is_new and edit.old:
                raise Refused(f"the diff makes a new file {path} out of lines that are there")
            edits.append(edit)
        elif line.startswith(_HEADER) or not line.strip():
            at += 1
        else:
            raise Refused(f"no line of a diff that changes text: {line[:80]!r}")
    if not edits:
        raise Refused("the diff has no hunk")
    return edits


def render_diff(change: Change, *, prefix: int = 0) -> str:
    """The change as `git apply` takes it. `prefix`: how many leading parts of each path are not in the repository."""
    parts = []
    for path, places in change.places.items():
        name = "/".join(path.split("/")[prefix:])
        text = change.before.get(path)
        if text is None:
            head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- {_NOTHING}\n+++ b/{name}\n"
        else:
            head = f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n"
        ends = text is None or text.endswith("\n") or not text
        parts.append(head + "".join(_render_hunks(split_lines(text or ""), places, ends)))
    return "".join(parts)


def _path(old: str, new: str) -> tuple[str, bool]:
    """The path of a file's header, and whether the file is new."""
    # What follows a tab is a date.
    left, right = (line[4:].split("\t")[0].strip() for line in (old, new))
    if right == _NOTHING:
        raise Refused(f"the diff deletes {left[:80]}; only changed and new files are read")
    path = right.removeprefix("b/")
    if left == _NOTHING:
        return path, True
    if left.removeprefix("a/") != path:
        raise Refused(f"the diff renames {left[:80]}; only changed and new files are read")
    return path, False


def _hunk(path: str, header: re.Match[str], lines: list[str], at: int) -> tuple[Edit, int]:
    """The hunk that begins at lines[at], and where the next thing begins."""
    start, olds, _, news = (int(number or 1) for number in header.groups())
    old: list[str] = []
    new: list[str] = []
    while at < len(lines) and (len(old) < olds or len(new) < news):
        sign, rest = lines[at][:1] or " ", lines[at][1:]
        if sign not in " +-\\":
            break
        if sign in " -":
            old.append(rest)
        if sign in " +":
            new.append(rest)
        at += 1
    if (len(old), len(new)) != (olds, news):
        raise Refused(f"the hunk {header[0][:60]!r} of {path[:80]} does not have the lines that it announces")
    if at < len(lines) and lines[at].startswith("\\"):
        at += 1
    return Edit(path, tuple(old), tuple(new), max(start - 1, 0)), at


def _render_hunks(lines: list[str], places: tuple[Placed, ...], ends: bool) -> Iterator[str]:
    shift = 0
    for spans in _near([_trimmed(lines, placed, ends) for placed in places]):
        first, last = max(spans[0][0] - CONTEXT, 0), min(spans[-1][1] + CONTEXT, len(lines))
        body: list[str] = []
        done = first
        for start, end, new in spans:
            body += [f" {line}" for line in lines[done:start]]
            body += _marked([f"-{line}" for line in lines[start:end]], not ends and end == len(lines))
            body += _marked([f"+{line}" for line in new], not ends and end == len(lines))
            done = end
        body += _marked([f" {line}" for line in lines[done:last]], not ends and last == len(lines))
        olds, grown = last - first, sum(len(new) - (end - start) for start, end, new in spans)
        news = olds + grown
        # An empty side is counted from the line before it.
        yield f"@@ -{first + (olds > 0)},{olds} +{first + shift + (news > 0)},{news} @@\n"
        yield "".join(line + "\n" for line in body)
        shift += grown


def _trimmed(lines: list[str], placed: Placed, ends: bool) -> Span:
    """First and last line of what really changes, and what it becomes; what both sides begin and end with is not."""
    start, end, new = placed.start, placed.end, placed.edit.new
    # Where the file does not end with a newline, its last line differs from the same line further up.
    last = int(end == len(lines) and not ends)
    while start < end - last and len(new) > last and lines[start] == new[0]:
        start, new = start + 1, new[1:]
    while start < end and new and lines[end - 1] == new[-1]:
        end, new = end - 1, new[:-1]
    return start, end, new


def _near(spans: list[Span]) -> Iterator[list[Span]]:
    """The spans that one hunk shows: those whose contexts meet."""
    hunk = spans[:1]
    for span in spans[1:]:
        if span[0] - hunk[-1][1] > 2 * CONTEXT:
            yield hunk
            hunk = []
        hunk.append(span)
    yield hunk


def _marked(side: list[str], open_end: bool) -> list[str]:
    return [*side, _OPEN_END] if side and open_end else side
