"""Checkpoints that lie under models/ no more, but in DVC's cache, whose files are read as they are: by their hashes."""

import configparser
import json
import shutil
from pathlib import Path
from typing import Any

from cascade.errors import CheckpointError
from cascade.layout import Layout
from cascade.utils.files import hash_directory, link_file, publish_directory


def is_cached(layout: Layout, dvc: str) -> bool:
    """Whether DVC's cache here has the directory of this hash, whole."""
    return _listing(layout, dvc) is not None


def restored(layout: Layout, content: str) -> Path:
    """Where an earlier run's checkpoint of this hash is put: not under models/, which holds this run's."""
    return layout.root / ".cascade" / "earlier" / content[:16]


def restore(layout: Layout, content: str, dvc: str) -> Path:
    """Put the checkpoint's files in place from DVC's cache, as hard links where that can be.

    Raises CheckpointError where the cache lacks it or has something else.
    """
    target = restored(layout, content)
    if target.exists() and hash_directory(target) == content:
        return target
    listing = _listing(layout, dvc)
    if listing is None:
        raise CheckpointError(f"{target}: checkpoint {content[:12]} is not in DVC's cache here; `dvc fetch` brings it")
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    for entry in listing:
        link_file(_cached(layout, entry["md5"]), aside / entry["relpath"])
    if (there := hash_directory(aside)) != content:
        raise CheckpointError(
            f"{target}: DVC's cache has checkpoint {there[:12]} under {dvc}, not {content[:12]}; take earlier_runs out"
        )
    publish_directory(aside, target)
    return target


def _listing(layout: Layout, dvc: str) -> list[dict[str, Any]] | None:
    """The files of a directory in DVC's cache; None where it, or one of them, is not there."""
    try:
        listing = json.loads(_cached(layout, dvc).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return listing if all(_cached(layout, entry["md5"]).exists() for entry in listing) else None


def _cached(layout: Layout, digest: str) -> Path:
    """DVC 3 keeps what has the MD5 ab12… under files/md5/ab/12…, in .dvc/cache or where `cache.dir` says."""
    settings = configparser.ConfigParser(interpolation=None)
    folder = layout.root / ".dvc"
    settings.read([folder / "config", folder / "config.local"], encoding="utf-8")
    return folder / settings.get("cache", "dir", fallback="cache") / "files" / "md5" / digest[:2] / digest[2:]
