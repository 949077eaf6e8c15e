"""Where a run's files come from: the project's git commit, and the hashes that DVC keeps."""

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml


def git_revision(root: Path) -> str | None:
    """The commit of the project, with a + where files differ from it; None outside a git repository."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


def dvc_hashes(root: Path, node: str) -> dict[str, str]:
    """Path → hash of what the node's DVC stages read and made, from dvc.lock; empty where there is none."""
    found: dict[str, str] = {}
    for name, stage in _dvc_stages(root).items():
        if name.rpartition("@")[2] == node:
            items: list[dict[str, Any]] = [*stage.get("deps", []), *stage.get("outs", [])]
            found |= {item["path"]: item["md5"] for item in items if "md5" in item}
    return found


def dvc_hash(root: Path, path: Path) -> str | None:
    """The hash under which DVC keeps a file, or the directory that it lies in; None where no stage made it."""
    made = {o["path"]: o["md5"] for s in _dvc_stages(root).values() for o in s.get("outs", []) if "md5" in o}
    return next((made[p] for each in (path, *path.parents) if (p := os.path.relpath(each, root)) in made), None)


def _dvc_stages(root: Path) -> dict[str, Any]:
    lock = root / "dvc.lock"
    try:
        status = lock.stat()
        return _parsed(lock, status.st_mtime_ns, status.st_ino)
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError):
        return {}


@lru_cache(maxsize=1)
def _parsed(lock: Path, changed: int, file: int) -> dict[str, Any]:
    # Asked for with every publication: read anew in plain Python, a large recipe takes a third of a second each time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(lock.read_text(encoding="utf-8"), loader)["stages"])
