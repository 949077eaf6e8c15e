"""docs/behaviour.md: every line names a test that is there, and versions that are the pinned ones."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split(" | ")]
    for line in (ROOT / "docs" / "behaviour.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| tool, version"))
]
PINS = {
    name.lower(): version
    for file in ("constraints-engines.txt", "constraints.txt")
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
}
NAMES = {"ruamel.yaml": "ruamel.yaml", "hydra": "hydra-core"}


def test_the_table_is_a_table() -> None:
    assert len(ROWS) > 25
    assert {len(row) for row in ROWS} == {5}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_every_line_is_held_by_a_test(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", row[4])
    assert named
    for file, function in named:
        there = ast.parse((ROOT / file).read_text())
        assert function in {node.name for node in there.body if isinstance(node, ast.FunctionDef)}, (file, function)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_versions_are_those_that_are_installed(row: list[str]) -> None:
    for name, version in re.findall(r"([A-Za-z][\w.-]*) (\d+\.\d+[\d.]*)", row[0])[:1]:
        pinned = PINS[NAMES.get(name.lower(), name.lower())]
        assert pinned == version or pinned.startswith(f"{version}."), (name, pinned)


def test_fastapi_is_one_with_which_prefect_s_server_starts() -> None:
    major, minor = map(int, PINS["fastapi"].split(".")[:2])
    assert PINS["prefect"].startswith("3.7.")
    assert (major, minor) < (0, 137)
