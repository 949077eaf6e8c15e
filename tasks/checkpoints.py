"""Checkpoints by the names that forms accept: a node, a directory, or a registered model."""

import re
from pathlib import Path

from cascade.errors import CheckpointError
from cascade.layout import Layout
from cascade.recipe import BASE, Recipe
from cascade.tracking import mlflow_store
from cascade.utils.files import hash_directory
from tasks.run_directory import RUNS

REGISTERED = "models:/"


def checkpoint_named(name: str, recipe: Recipe, home: Layout) -> Path:
    """The directory of a checkpoint of the project `home`: of a node (or `base`), of a path relative to the project,
    or of a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises CheckpointError where there is none, and where the directory no longer has what was registered.
    """
    if name.startswith(REGISTERED):
        return _registered(name.removeprefix(REGISTERED), home)
    if name == BASE:
        path = home.root / recipe.base
    else:
        path = home.checkpoint(name) if name in recipe.training else home.root / name
    if not (path / "config.json").exists():
        nodes = ", ".join([BASE, *recipe.training])
        raise CheckpointError(
            f"{path}: no checkpoint there; name a node ({nodes}), a directory or {REGISTERED}NAME@ALIAS"
        )
    return path


def _registered(name: str, home: Layout) -> Path:
    from mlflow.exceptions import MlflowException

    client = mlflow_store.connect(home)
    try:
        if "@" in name:
            version = client.get_model_version_by_alias(*name.split("@", 1))
        else:
            version = client.get_model_version(name.partition("/")[0], name.partition("/")[2])
    except MlflowException as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{REGISTERED}{name}: {reason}; `NAME@ALIAS` or `NAME/VERSION` is expected") from None
    wanted, relative = version.tags["checkpoint_hash"], version.tags["checkpoint"]
    for root in (home.root, *sorted((home.root / RUNS).glob("*"))):
        if (root / relative).exists() and hash_directory(root / relative) == wanted:
            return root / relative
    raise CheckpointError(
        f"{REGISTERED}{name}: {home.root / relative} no longer has the checkpoint that was registered "
        f"(hash {wanted[:12]}); `dvc checkout` at its revision brings it back"
    )


def folder_name(name: str) -> str:
    """What a checkpoint's results are filed under."""
    return re.sub(r"[^A-Za-z0-9.@-]+", "-", name.removeprefix(REGISTERED)).strip("-.")
