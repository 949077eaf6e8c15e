"""Whether anything has changed since DVC said that all is up to date: to import DVC and to ask it again takes most of
the time of a run that has nothing to do.

As for DVC, a file is the same where its size, time and inode are. Noted are those of all that it read: recipe, stages,
lock and configuration, inputs and outputs of the stages, and the folders of its cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.utils.files import read_json, write_json

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class Files:
    """What an answer of DVC depends on: `trees` with all that is in them, `folders` without."""

    trees: list[str]
    folders: list[str]

    def state(self) -> str:
        """A hash of the sizes, times and inodes. Two calls with the same result: nothing was written in between."""
        found = hashlib.sha256()
        for path in (*self.folders, *(path for tree in self.trees for path in _below(tree))):
            try:
                status = os.stat(path)
                seen = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}\n"
            except OSError:
                seen = f"{path} is not there\n"
            found.update(seen.encode(errors="surrogateescape"))
        return found.hexdigest()


def read_by(repo: Repo) -> Files:
    """The files that say whether the stages of a project are up to date."""
    stages, index = Path(str(repo.root_dir)), repo.index
    files = {str(stages / name) for name in ("dvc.yaml", "dvc.lock", ".dvcignore", ".dvc/config", ".dvc/config.local")}
    files |= {str(part.fs_path) for part in (*index.deps, *index.outs)}
    cache = Path(str(repo.cache.local.path))
    return Files(sorted(files), [str(cache), *sorted(str(folder) for folder in cache.glob("??"))])


def is_unchanged(layout: Layout) -> bool:
    """Whether all is as when `note` was called last."""
    try:
        noted = read_json(_note(layout))
        return bool(Files(noted["trees"], noted["folders"]).state() == noted["state"])
    except (CascadeError, KeyError, TypeError):
        return False


def note(layout: Layout, files: Files, state: str) -> None:
    """Note that all was up to date when the files were in this state."""
    write_json(_note(layout), {"trees": files.trees, "folders": files.folders, "state": state})


def _note(layout: Layout) -> Path:
    return layout.root / ".cascade" / "up_to_date.json"


def _below(path: str) -> Iterator[str]:
    yield path
    for folder, folders, files in os.walk(path, followlinks=True):
        folders.sort()
        yield from (os.path.join(folder, name) for name in (*folders, *sorted(files)))
