"""Fixtures of the miniature project."""

import sys
import types
from pathlib import Path

import pytest

from cascade.environments import registry
from cascade.layout import Layout
from cascade.training import on_policy
from tests.training.miniature import (
    DriftingSampler,
    FindTheWord,
    choose_teachers,
    make_checkpoint,
    packed_rows,
    prompt_rows,
    write_rows,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("find_the_word")
    module.ENVIRONMENT = FindTheWord()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "find_the_word", module)
    monkeypatch.setitem(registry.MODULES, "find_the_word", "find_the_word")


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> type[DriftingSampler]:
    """The class that the loop then samples with, for a test to set its `offset`."""
    made = type("DriftingSamplerOfThisTest", (DriftingSampler,), {})
    monkeypatch.setattr(on_policy, "make_sampler", lambda engine, policy, threads: made(policy))
    return made


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A project ready for its nodes sft, rl and mopd."""
    layout = Layout(tmp_path)
    make_checkpoint(tmp_path / "models" / "base", seed=0)
    for seed, node in enumerate(("sft", "rl", "other"), 1):
        make_checkpoint(layout.checkpoint(node), seed)
    for domain in ("one", "two"):
        write_rows(layout.prompts(domain), prompt_rows(domain, 20))
    write_rows(layout.sft_data / "part-0.parquet", packed_rows(7))
    choose_teachers(layout, one="rl", two="other")
    return layout
