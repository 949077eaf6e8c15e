"""Edits of a repository's files, and the rule by which they are applied.

An edit replaces whole lines by whole lines. All edits of an answer are applied together, or none:

- The lines to replace must stand in the file, character by character, in exactly one place; every edit is looked up in
  the files as they were shown, so their order is of no account. A hunk of a diff may also stand at the line that it
  names. Only whether the file ends with a newline does not count, and whether lines end with CRLF; they stay as they
  were.
- An edit without lines to replace makes a new file (or fills an empty one).
- Two edits that touch the same lines are refused, unless they are the same edit twice.
- An edit that changes nothing is refused, as is a path that is absolute, leads out of the repository or into `.git`.

Files are text by path; a repository here has no links, and an edit cannot make one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

Files = Mapping[str, str]

MAX_NAME_BYTES = 200
"""Of one part of a path; file systems take 255."""
MAX_PATH_BYTES = 1_000


class Refused(Exception):
    """An answer that cannot be read or applied, in words: reward 0, with them as its reason."""


@dataclass(frozen=True)
class Edit:
    """Lines `old` of the file `path`, without their newlines, become the lines `new`."""

    path: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    line: int | None = None
    """Where a diff says that `old` begins, counted from 0."""


@dataclass(frozen=True)
class Placed:
    """An edit at its place: it replaces `len(edit.old)` lines from `start` (counted from 0)."""

    start: int
    edit: Edit

    @property
    def end(self) -> int:
        return self.start + len(self.edit.old)


@dataclass(frozen=True)
class Change:
    """What an answer does to a repository."""

    before: Files
    places: dict[str, tuple[Placed, ...]]
    """By path, in the order of the lines."""

    @property
    def after(self) -> dict[str, str]:
        changed = dict(self.before)
        for path, places in self.places.items():
            text = self.before.get(path, "")
            lines = split_lines(text)
            for placed in reversed(places):
                lines[placed.start : placed.end] = placed.edit.new
            last = places[-1]
            # Without its last line, a file ends as the line before it does.
            keeps_end = bool(last.edit.new) or last.end < len(split_lines(text))
            ends = "" if keeps_end and text and not text.endswith("\n") else "\n"
            changed[path] = "\n".join(lines) + ends if lines else ""
        return changed


def place(files: Files, edits: Iterable[Edit]) -> Change:
    """Find the place of every edit. Raises Refused, naming the edit at fault, where the rule above says so."""
    places: dict[str, list[Placed]] = {}
    for edit in dict.fromkeys(edits):
        check_path(edit.path)
        if edit.old == edit.new:
            raise Refused(f"an edit of {edit.path} changes nothing")
        if any("\ud800" <= character <= "\udfff" for line in edit.new for character in line):
            raise Refused(f"an edit of {edit.path} holds half a character")
        edit = _with_endings(files, edit)
        places.setdefault(edit.path, []).append(Placed(_start(files, edit), edit))
    if not places:
        raise Refused("the answer holds no edit")
    for path, found in places.items():
        found.sort(key=lambda placed: placed.start)
        for one, other in pairwise(found):
            if other.start < one.end or other.start == one.start:
                raise Refused(f"two edits of {path} touch the same lines")
    _check_folders({*files, *places})
    return Change(files, {path: tuple(found) for path, found in places.items()})


def split_lines(text: str) -> list[str]:
    """Lines without their newline; the newline at the end opens no further line."""
    return text.removesuffix("\n").split("\n") if text else []


def check_path(path: str) -> None:
    """Raises Refused unless `path` names a file within the repository, in the plain form `folder/name`."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise Refused(f"{path[:80]!r} lies outside the repository")
    if (
        any(part in ("", ".", ".git") or len(part.encode(errors="replace")) > MAX_NAME_BYTES for part in parts)
        or len(path.encode(errors="replace")) > MAX_PATH_BYTES
        or "\\" in path
        or not path.isprintable()
    ):
        raise Refused(f"{path[:80]!r} is no path of a file in a repository")


def _start(files: Files, edit: Edit) -> int:
    if edit.path not in files:
        if edit.old:
            raise Refused(f"the repository has no file {edit.path}")
        return 0
    text = files[edit.path]
    if not edit.old:
        if text:
            raise Refused(f"an edit of {edit.path} names no lines to replace, and the file is not empty")
        return 0
    if edit.line is not None and tuple(split_lines(text)[edit.line : edit.line + len(edit.old)]) == edit.old:
        return edit.line
    # Framed by newlines, so that only whole lines match, and searched as text, which takes linear time.
    framed = f"\n{text}" if text.endswith("\n") else f"\n{text}\n"
    wanted = "\n" + "\n".join(edit.old) + "\n"
    first = framed.find(wanted)
    if first < 0:
        raise Refused(f"the lines to replace are not in {edit.path}: {_shown(edit.old)}")
    if framed.find(wanted, first + 1) >= 0:
        raise Refused(f"the lines to replace are in {edit.path} more than once: {_shown(edit.old)}")
    return framed.count("\n", 0, first)


def _with_endings(files: Files, edit: Edit) -> Edit:
    """The edit of a file whose lines end with CRLF, in the file's own endings: answers have newlines alone. Lines that
    stay keep theirs, new ones end as most of the file's do."""
    text = files.get(edit.path, "")
    if "\r\n" not in text or any(line.endswith("\r") for line in (*edit.old, *edit.new)):
        return edit
    start = _start({edit.path: text.replace("\r\n", "\n")}, edit)
    lines = split_lines(text)
    old = lines[start : start + len(edit.old)]
    usual = "\r" if 2 * text.count("\r\n") >= text.count("\n") else ""
    new = [f"{line}{usual}" for line in edit.new]
    shorter = min(len(old), len(new))
    before = next((i for i in range(shorter) if edit.old[i] != edit.new[i]), shorter)
    after = next((i for i in range(shorter - before) if edit.old[-1 - i] != edit.new[-1 - i]), shorter - before)
    new[:before] = old[:before]
    if after:
        new[-after:] = old[-after:]
    if new and start + len(old) == len(lines) and not text.endswith("\n"):
        # What was the last line of all, without an end, may stand before others now.
        new = [line if line.endswith("\r") else f"{line}{usual}" for line in new[:-1]] + [new[-1].removesuffix("\r")]
    return Edit(edit.path, tuple(old), tuple(new), start)


def _check_folders(paths: set[str]) -> None:
    for path in sorted(paths):
        for folder in PurePosixPath(path).parents:
            if str(folder) in paths:
                raise Refused(f"{folder} would be a file and a folder")


def _shown(lines: tuple[str, ...]) -> str:
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return f"{lines[0][:80]!r}{more}"
