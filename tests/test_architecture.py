"""Which part of the project may import which: the table in docs/conventions.md, read from there, top to bottom.

Every import counts, also one inside a function or under TYPE_CHECKING: a reader of the part has to know of it.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cascade", "flows", "tasks")

ROWS = (
    (ROOT / "docs" / "conventions.md")
    .read_text(encoding="utf-8")
    .partition("## Who may import whom")[2]
    .split("```")[1]
)
"""A part imports only parts of rows below its own, and itself."""

ROW = {part: number for number, row in enumerate(ROWS.splitlines()) for part in row.replace(",", " ").split()}

ALONE = {"prefect": ("flows/", "tasks/", "cascade/launch/ui_servers.py"), "dvc": ("flows/", "tasks/")}
"""Library → who alone may import it: a node runs where it is not installed."""


def files(root: Path = ROOT) -> dict[str, Path]:
    """Module → its file."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that a file names in its imports: our own by file, others by their first name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in names]
        else:
            continue
        for name in names:
            yield name if name.partition(".")[0] in PACKAGES else name.partition(".")[0]


def part(module: str) -> str:
    """The folder or file directly under cascade/, or flows, or tasks."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "cascade" else package


@cache
def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """File → other files: what each imports of the project."""
    modules = files(root)
    return {a: {b for b in imports(path, modules) if b in modules and b != a} for a, path in modules.items()}


def arrows(found: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Part → part, where a file of one imports a file of the other. The packages' own files (`cascade/__init__`,
    `__main__`) are no part."""
    pairs = {(part(a), part(b)) for a, targets in found.items() for b in targets}
    return {(a, b) for a, b in pairs if a != b and {a, b} <= ROW.keys()}


def test_every_part_has_its_row():
    parts = {part(module) for module in files()} - {"", "__main__"}
    assert parts == set(ROW)


def upward(found: dict[str, set[str]]) -> list[str]:
    """Imports of a part in the same row or a higher one."""
    return sorted(
        f"{a} imports {b}"
        for a, targets in found.items()
        for b in targets
        if part(a) != part(b) and {part(a), part(b)} <= ROW.keys() and ROW[part(b)] <= ROW[part(a)]
    )


def circle(found: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle; empty where there are none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_part_imports_only_what_lies_below_it():
    assert upward(graph()) == []


def test_no_files_import_each_other_in_a_circle():
    assert circle(graph()) == []


def test_what_breaks_the_rules_is_found(tmp_path):
    (tmp_path / "cascade" / "policy").mkdir(parents=True)
    (tmp_path / "cascade" / "policy" / "base.py").write_text("def f():\n    from cascade import cli\n")
    (tmp_path / "cascade" / "cli.py").write_text("import cascade.policy.base\n")
    found = graph(tmp_path)
    assert upward(found) == ["cascade.policy.base imports cascade.cli"]
    assert sorted(circle(found)[1:]) == ["cascade.cli", "cascade.policy.base"]


@pytest.mark.parametrize("library", ALONE)
def test_a_library_is_imported_only_where_it_is_at_home(library):
    modules = files()
    users = [path.relative_to(ROOT).as_posix() for path in modules.values() if library in imports(path, modules)]
    assert users
    assert not [user for user in users if not user.startswith(ALONE[library])]
