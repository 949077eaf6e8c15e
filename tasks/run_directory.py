"""The directory of a run: the project itself, or a separate one for another recipe than the active one."""

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

    The unchanged active recipe runs in the project. Any other gets its own DVC project, .cascade/runs/NAME, with the
    project's cache and MLflow store. It starts from the project's outputs, so that only differing stages are built, and
    does not change params.yaml. The same recipe and overrides have the same directory, so a run resumes there. With a
    `purpose`, which becomes the directory's name, the active recipe has its own directory too.
    Raises RecipeError where there is no such recipe, an override cannot be applied, or the outcome is no recipe.
    """
    if recipe == ACTIVE and not overrides and not purpose:
        return home
    source = find(None if recipe == ACTIVE else recipe, home)
    load(source)
    layout = Layout(home.root / RUNS / (purpose or _name(source.stem if recipe != ACTIVE else ACTIVE, overrides)))
    fresh = not layout.root.exists()
    layout.root.mkdir(parents=True, exist_ok=True)
    loaded = _write_recipe(source, overrides, layout)
    _make_dvc_project(home, layout)
    _link_inputs(home, layout, loaded)
    _share_measurements(home, layout, loaded)
    if fresh:
        _start_from(home, layout)
    return layout


def _name(recipe: str, overrides: tuple[str, ...]) -> str:
    return f"{recipe}-{hashlib.sha256(chr(10).join(overrides).encode()).hexdigest()[:8]}" if overrides else recipe


def _write_recipe(source: Path, overrides: tuple[str, ...], layout: Layout) -> Recipe:
    draft = layout.params.with_suffix(".draft.yaml")
    write_atomic(draft, source.read_text(encoding="utf-8"))
    try:
        override_recipe(draft, overrides)
        try:
            loaded = load(draft)
        except RecipeError as error:
            suffix = f" with {', '.join(overrides)}" if overrides else ""
            raise RecipeError(str(error).replace(str(draft), f"{source.name}{suffix}")) from None
        # Written only if it has changed, so that DVC need not hash it again.
        text = draft.read_text(encoding="utf-8")
        if not layout.params.exists() or layout.params.read_text(encoding="utf-8") != text:
            write_atomic(layout.params, text)
    finally:
        draft.unlink(missing_ok=True)
    return loaded


def _make_dvc_project(home: Layout, layout: Layout) -> None:
    """Without git, because the project's git ignores the directory."""
    try:
        with Repo(str(home.root)) as repo:
            cache = {"dir": repo.cache.local_cache_dir}
            if "type" in repo.config["cache"]:
                cache["type"] = ",".join(repo.config["cache"]["type"])
    except DvcException as error:
        raise CascadeError(f"DVC: {' '.join(str(error).split())}") from None
    (layout.root / ".dvc").mkdir(exist_ok=True)
    with Config(str(layout.root / ".dvc"), validate=False).edit("repo") as config:
        config["core"] = {"no_scm": True, "analytics": False, "check_update": False, "autostage": False}
        config["cache"] = cache
    for name in ("dvc.yaml", ".dvcignore"):
        if (home.root / name).exists():
            write_atomic(layout.root / name, (home.root / name).read_bytes())
    if (templates := home.root / ".dvc" / "plots").exists():
        shutil.copytree(templates, layout.root / ".dvc" / "plots", dirs_exist_ok=True)


def _link_inputs(home: Layout, layout: Layout, recipe: Recipe) -> None:
    """Link the files that the recipe names by a path relative to the project."""
    patterns = [source.path for source in recipe.curation.sources.values() if source.path]
    patterns += [value for place in recipe.pools.values() for value in (place.manifest, place.image) if value]
    relative = [pattern for pattern in (recipe.base, *patterns) if not Path(pattern).is_absolute()]
    for pattern in relative:
        for broken_link in [path for path in layout.root.glob(pattern) if path.is_symlink() and not path.exists()]:
            broken_link.unlink()
        for path in home.root.glob(pattern):
            link = layout.root / path.relative_to(home.root)
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)


def _start_from(home: Layout, layout: Layout) -> None:
    """Copy the project's outputs and dvc.lock, so that DVC builds only stages that differ. DVC's run cache does not
    keep stages with outputs in git, as all stages here have."""
    try:
        stages = yaml.safe_load((home.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        return
    for output in [Path(out["path"]) for stage in stages.values() for out in stage.get("outs", [])]:
        source, target = home.root / output, layout.root / output
        if source.is_dir():
            link_directory(source, target)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    write_atomic(layout.root / "dvc.lock", (home.root / "dvc.lock").read_bytes())


def _share_measurements(home: Layout, layout: Layout, recipe: Recipe) -> None:
    """Share the project's MLflow store. The experiment is created here, so that its artifacts are in the project and
    not in a run's directory, which may be deleted."""
    folder = home.root / "mlflow"
    folder.mkdir(exist_ok=True)
    if not (layout.root / "mlflow").exists():
        (layout.root / "mlflow").symlink_to(folder)
    servers = Path(".cascade") / "servers.json"
    if not (layout.root / servers).is_symlink():
        (layout.root / servers).parent.mkdir(exist_ok=True)
        (layout.root / servers).symlink_to(home.root / servers)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow_store.experiment(mlflow_store.connect(home), home, recipe)
