"""Provenance of a run's files: the project's git commit, and the hashes in dvc.lock."""

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml


def git_revision(root: Path) -> str | None:
    """The commit of the project, with a + where the work tree differs from it; None outside a git repository."""
    try:
        process = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


def dvc_hashes(root: Path, node: str) -> dict[str, str]:
    """Path → hash of the dependencies and outputs of the node's DVC stages, from dvc.lock; empty where there is
    none."""
    hashes: dict[str, str] = {}
    for name, stage in _dvc_stages(root).items():
        if name.rpartition("@")[2] == node:
            items: list[dict[str, Any]] = [*stage.get("deps", []), *stage.get("outs", [])]
            hashes |= {item["path"]: item["md5"] for item in items if "md5" in item}
    return hashes


def dvc_hash(root: Path, path: Path) -> str | None:
    """DVC's hash of a file or of the directory that contains it; None where no stage wrote it."""
    outputs = {o["path"]: o["md5"] for s in _dvc_stages(root).values() for o in s.get("outs", []) if "md5" in o}
    return next((outputs[p] for each in (path, *path.parents) if (p := os.path.relpath(each, root)) in outputs), None)


def _dvc_stages(root: Path) -> dict[str, Any]:
    lock = root / "dvc.lock"
    try:
        status = lock.stat()
        return _parsed(lock, status.st_mtime_ns, status.st_ino)
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError):
        return {}


@lru_cache(maxsize=1)
def _parsed(lock: Path, modified: int, file: int) -> dict[str, Any]:
    # Cached, because every publication reads it: in plain Python a large file takes a third of a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(lock.read_text(encoding="utf-8"), loader)["stages"])
