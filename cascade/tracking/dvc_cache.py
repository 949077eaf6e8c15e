"""Checkpoints that are no longer under models/ but in DVC's cache, found there by hash."""

import configparser
import json
import shutil
from pathlib import Path
from typing import Any

from cascade.errors import CheckpointError
from cascade.layout import Layout
from cascade.utils.files import hash_directory, link_file, publish_directory


def is_cached(layout: Layout, dvc: str) -> bool:
    """Whether DVC's local cache has every file of the directory with this hash."""
    return _listing(layout, dvc) is not None


def restored(layout: Layout, content: str) -> Path:
    """The directory of a restored checkpoint with this hash. It is not under models/, which has this run's."""
    return layout.root / ".cascade" / "earlier" / content[:16]


def restore(layout: Layout, content: str, dvc: str) -> Path:
    """Restore the checkpoint's files from DVC's cache, as hard links where possible.

    Raises CheckpointError where the cache lacks it or has something else.
    """
    target = restored(layout, content)
    if target.exists() and hash_directory(target) == content:
        return target
    listing = _listing(layout, dvc)
    if listing is None:
        raise CheckpointError(f"{target}: checkpoint {content[:12]} is not in DVC's cache here; `dvc fetch` brings it")
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for entry in listing:
        link_file(_cached(layout, entry["md5"]), temporary / entry["relpath"])
    if (cached_content := hash_directory(temporary)) != content:
        raise CheckpointError(
            f"{target}: DVC's cache has checkpoint {cached_content[:12]} under {dvc}, "
            f"not {content[:12]}; take earlier_runs out"
        )
    publish_directory(temporary, target)
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
