"""What a DVC stage reads, looked at before DVC is asked: it removes the stage's outputs first and reads then."""

from pathlib import Path

from dvc.dependency import Dependency, ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo


def missing_input(stage: str, root: Path) -> str | None:
    """Which file or key a stage of the project lacks, and what makes it, in one line; None where it lacks none."""
    try:
        with Repo(str(root)) as repo:
            # By path: DVC looks for the bare name of a stage from where the process is.
            for needed in repo.stage.load_one(str(root / "dvc.yaml"), stage).deps:
                if not needed.exists:
                    return f"{needed.def_path}: no such file or directory; {_maker(repo, needed)}"
                if isinstance(needed, ParamsDependency) and needed.params:
                    there = needed.read_params()
                    if lacking := [key for key in needed.params if key not in there]:
                        return (
                            f"{needed.def_path}: {', '.join(lacking)}: missing; DVC compares every key of a stage, "
                            "so write it out, if only with its default"
                        )
    except DvcException as error:
        if not (root / "params.yaml").exists():
            return "params.yaml: no such file; `cascade recipe use nano` makes the default one active"
        return f"DVC: {' '.join(str(error).split())}"
    return None


def _maker(repo: Repo, needed: Dependency) -> str:
    """What to do for a missing dependency: run the stage of which it is a part, or one that writes into it."""
    outs = [out for out in repo.index.outs if out.fs_path and out.stage.name]
    found = [out for out in outs if out.fs.isin_or_eq(needed.fs_path, out.fs_path)]
    found += [out for out in outs if out.fs.isin(out.fs_path, needed.fs_path)]
    return f"`dvc repro {found[0].stage.name}` makes it" if found else "no stage makes it; put it there"
