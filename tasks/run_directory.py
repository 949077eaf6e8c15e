"""The directory that a run works in: the project itself, or one of its own for another recipe than the active one."""

import hashlib
import os
import shutil
from pathlib import Path

import yaml
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo

from cascade.errors import CascadeError, RecipeError
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from cascade.recipe.library import find
from cascade.tracking import mlflow_store
from cascade.utils.files import link_directory, write_atomic
from tasks.overrides import override_recipe

ACTIVE = "active"
"""Stands for the project's own params.yaml."""

RUNS = Path(".cascade") / "runs"


def project_of(home: Layout, recipe: str, overrides: tuple[str, ...], purpose: str = "") -> Layout:
    """The directory in which to run `recipe` (ACTIVE, a name in recipes/ or a file) with `overrides` (`key=value`, as
    of `dvc exp run -S`).

    The active recipe as it is runs in the project. Any other gets a DVC project of its own, .cascade/runs/NAME, whose
    cache and MLflow store are the project's. It starts from what the project has built, so that only what differs is
    built, and params.yaml stays as it is. Same recipe and overrides, same directory, so a run goes on where the last
    one stopped. With a `purpose`, which becomes the directory's name, the active recipe has one of its own too.
    Raises RecipeError where there is no such recipe, an override cannot be applied, or the outcome is no recipe.
    """
    if recipe == ACTIVE and not overrides and not purpose:
        return home
    source = find(None if recipe == ACTIVE else recipe, home)
    load(source)
    own = Layout(home.root / RUNS / (purpose or _name(source.stem if recipe != ACTIVE else ACTIVE, overrides)))
    fresh = not own.root.exists()
    own.root.mkdir(parents=True, exist_ok=True)
    found = _write_recipe(source, overrides, own)
    _make_dvc_project(home, own)
    _link_inputs(home, own, found)
    _share_measurements(home, own, found)
    if fresh:
        _start_from(home, own)
    return own


def _name(recipe: str, overrides: tuple[str, ...]) -> str:
    return f"{recipe}-{hashlib.sha256(chr(10).join(overrides).encode()).hexdigest()[:8]}" if overrides else recipe


def _write_recipe(source: Path, overrides: tuple[str, ...], own: Layout) -> Recipe:
    draft = own.params.with_suffix(".draft.yaml")
    write_atomic(draft, source.read_text(encoding="utf-8"))
    try:
        override_recipe(draft, overrides)
        try:
            found = load(draft)
        except RecipeError as error:
            changed = f" with {', '.join(overrides)}" if overrides else ""
            raise RecipeError(str(error).replace(str(draft), f"{source.name}{changed}")) from None
        # Only what has changed is written: DVC then need not look into it again.
        text = draft.read_text(encoding="utf-8")
        if not own.params.exists() or own.params.read_text(encoding="utf-8") != text:
            write_atomic(own.params, text)
    finally:
        draft.unlink(missing_ok=True)
    return found


def _make_dvc_project(home: Layout, own: Layout) -> None:
    """Without git: the directory is ignored by the project's."""
    try:
        with Repo(str(home.root)) as repo:
            cache = {"dir": repo.cache.local_cache_dir}
            if "type" in repo.config["cache"]:
                cache["type"] = ",".join(repo.config["cache"]["type"])
    except DvcException as error:
        raise CascadeError(f"DVC: {' '.join(str(error).split())}") from None
    (own.root / ".dvc").mkdir(exist_ok=True)
    with Config(str(own.root / ".dvc"), validate=False).edit("repo") as config:
        config["core"] = {"no_scm": True, "analytics": False, "check_update": False, "autostage": False}
        config["cache"] = cache
    for name in ("dvc.yaml", ".dvcignore"):
        if (home.root / name).exists():
            write_atomic(own.root / name, (home.root / name).read_bytes())
    if (templates := home.root / ".dvc" / "plots").exists():
        shutil.copytree(templates, own.root / ".dvc" / "plots", dirs_exist_ok=True)


def _link_inputs(home: Layout, own: Layout, recipe: Recipe) -> None:
    """What the recipe names by a path relative to the project."""
    patterns = [source.path for source in recipe.curation.sources.values() if source.path]
    patterns += [value for place in recipe.pools.values() for value in (place.manifest, place.image) if value]
    relative = [pattern for pattern in (recipe.base, *patterns) if not Path(pattern).is_absolute()]
    for pattern in relative:
        for gone in [path for path in own.root.glob(pattern) if path.is_symlink() and not path.exists()]:
            gone.unlink()
        for path in home.root.glob(pattern):
            link = own.root / path.relative_to(home.root)
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)


def _start_from(home: Layout, own: Layout) -> None:
    """What the project has built, as far as its dvc.lock tells, so that only what differs is built: DVC decides. Its
    own cache of runs does not keep stages whose small results are in git, as all of ours are."""
    try:
        stages = yaml.safe_load((home.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        return
    for output in [Path(out["path"]) for stage in stages.values() for out in stage.get("outs", [])]:
        source, target = home.root / output, own.root / output
        if source.is_dir():
            link_directory(source, target)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    write_atomic(own.root / "dvc.lock", (home.root / "dvc.lock").read_bytes())


def _share_measurements(home: Layout, own: Layout, recipe: Recipe) -> None:
    """One MLflow store for all. Its experiment is made here: its artifacts are to lie in the project, not in a run's
    directory that someone may delete."""
    folder = home.root / "mlflow"
    folder.mkdir(exist_ok=True)
    if not (own.root / "mlflow").exists():
        (own.root / "mlflow").symlink_to(folder)
    servers = Path(".cascade") / "servers.json"
    if not (own.root / servers).is_symlink():
        (own.root / servers).parent.mkdir(exist_ok=True)
        (own.root / servers).symlink_to(home.root / servers)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow_store.experiment(mlflow_store.connect(home), home, recipe)
