"""That nothing has changed since DVC was asked is known without DVC, and anything that it would see is seen."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from cascade.layout import Layout
from flows.run import stale_stages
from flows.unchanged import is_unchanged

STAGES = """
stages:
  copy:
    cmd: mkdir -p made && cp given/* made
    deps: [given]
    params: [seed]
    outs: [made]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.txt").write_text("a")
    (tmp_path / "given" / "b.txt").write_text("b")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        assert not is_unchanged(Layout(tmp_path))
        assert stale_stages(Layout(tmp_path)) == ["copy"]
        assert not is_unchanged(Layout(tmp_path))
        repo.reproduce()
    return Layout(tmp_path)


def overwritten(path: Path) -> None:
    """Other content of the same size."""
    other = path.with_name("other")
    other.write_text("x")
    os.replace(other, path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "an input": lambda root: overwritten(root / "given" / "a.txt"),
    "a further input": lambda root: (root / "given" / "c.txt").write_text("c"),
    "an output": lambda root: overwritten(root / "made" / "b.txt"),
    "an output that is gone": lambda root: (root / "made" / "a.txt").unlink(),
    "all outputs": lambda root: shutil.rmtree(root / "made"),
    "the recipe": lambda root: (root / "params.yaml").write_text("seed: 1\n"),
    "the stages": lambda root: (root / "dvc.yaml").write_text(STAGES.replace("cp given", "cp -v given")),
    "the lock": lambda root: (root / "dvc.lock").unlink(),
    "the cache": lambda root: shutil.rmtree(root / ".dvc" / "cache"),
}


def test_nothing_has_changed_after_dvc_said_so(project: Layout) -> None:
    assert not is_unchanged(project)
    assert stale_stages(project) == []
    assert is_unchanged(project)
    assert is_unchanged(project)
    (project.root / "elsewhere.txt").write_text("no stage reads it")
    assert is_unchanged(project)


@pytest.mark.parametrize("what", CHANGES)
def test_what_dvc_would_see_is_seen(project: Layout, what: str) -> None:
    assert stale_stages(project) == []
    CHANGES[what](project.root)
    assert not is_unchanged(project)
    assert stale_stages(project) == ["copy"]
    assert not is_unchanged(project)


def test_a_note_that_cannot_be_read_says_nothing(project: Layout) -> None:
    assert stale_stages(project) == []
    for content in ("", "[]", "{}"):
        (project.root / ".cascade" / "up_to_date.json").write_text(content)
        assert not is_unchanged(project)
    assert stale_stages(project) == []
    assert is_unchanged(project)
