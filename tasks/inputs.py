"""Check the inputs of a DVC stage before `dvc repro`, which removes the stage's outputs before it checks them."""

import threading
from pathlib import Path

from dvc.dependency import Dependency, ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo

_reading = threading.Lock()
"""DVC's schema of dvc.yaml has validators that each validation compiles anew, in place: of two at the same time, in the
threads of two tasks, one finds none left and says that the file is wrong."""


def missing_input(stage: str, root: Path) -> str | None:
    """The missing file or key of a stage and what makes it, in one line; None where nothing is missing."""
    try:
        with _reading, Repo(str(root)) as repo:
            # By path: DVC looks for the bare name of a stage from where the process is.
            for dependency in repo.stage.load_one(str(root / "dvc.yaml"), stage).deps:
                if not dependency.exists:
                    return f"{dependency.def_path}: no such file or directory; {_maker(repo, dependency)}"
                if isinstance(dependency, ParamsDependency) and dependency.params:
                    params = dependency.read_params()
                    if missing := [key for key in dependency.params if key not in params]:
                        return (
                            f"{dependency.def_path}: {', '.join(missing)}: missing; DVC compares every key of a stage, "
                            "so write it out, if only with its default"
                        )
    except DvcException as error:
        if not (root / "params.yaml").exists():
            return "params.yaml: no such file; `cascade recipe use nano` makes the default one active"
        return f"DVC: {' '.join(str(error).split())}"
    return None


def _maker(repo: Repo, dependency: Dependency) -> str:
    """The remedy for a missing dependency: the stage whose output it is part of, or that writes into it."""
    outs = [out for out in repo.index.outs if out.fs_path and out.stage.name]
    producers = [out for out in outs if out.fs.isin_or_eq(dependency.fs_path, out.fs_path)]
    producers += [out for out in outs if out.fs.isin(out.fs_path, dependency.fs_path)]
    return f"`dvc repro {producers[0].stage.name}` makes it" if producers else "no stage makes it; put it there"
