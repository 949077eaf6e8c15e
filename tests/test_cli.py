"""The command line: quick help, one-line errors, the recipe commands, nodes in processes of their own."""

import os
import py_compile
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import bad_inputs
from cascade import __version__, stages
from cascade.cli import main
from cascade.commands import doctor
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import load
from cascade.utils.files import read_json, write_json

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the recipes."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cascade(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_help_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'prefect', 'mlflow', 'dvc', 'datasets'}"
    code = f"import cascade.cli, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_and_commands() -> None:
    assert __version__ in cascade("--version")
    told = cascade("--help")
    commands = "chat compare doctor evaluate interference lineage node pretrain publish recipe report run score ui"
    for command in commands.split():
        assert f"\n  {command} " in told


def test_recipe_use_check_and_show(project: Path) -> None:
    assert "no such file" in cascade("recipe", "check", code=1)
    assert "params.yaml is now nano" in cascade("recipe", "use", "nano")
    assert "no problem found" in cascade("recipe", "check")
    assert "no problem found" in cascade("recipe", "check", "nemotron-cascade-2-30b-a3b")
    shown = cascade("recipe", "show")
    assert "select_teachers" in shown
    assert (project / "params.yaml").read_text() == (ROOT / "recipes" / "nano.yaml").read_text()


def test_an_error_is_one_line_without_traceback(project: Path) -> None:
    told = cascade("node", "sft", code=1)
    assert told.startswith("Error: ")
    assert len(told.splitlines()) == 1


def test_the_page_of_bad_inputs_is_current() -> None:
    assert bad_inputs.page() == bad_inputs.PAGE.read_text(encoding="utf-8")


def test_doctor_says_where_every_process_compiles_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert "bytecode" not in [finding.what for finding in doctor.packages()]
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    *_, found = doctor.packages()
    assert (found.what, found.needed) == ("bytecode", False)
    py_compile.compile(Path(found.remedy.split()[-1], "transformers", "__init__.py").as_posix())
    assert "bytecode" not in [finding.what for finding in doctor.packages()]


def test_doctor_names_what_is_missing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = cascade("doctor", code=1)
    assert "cascade recipe use nano" in told
    assert "git init" in told
    assert all(finding.remedy == "" for finding in doctor.packages() if finding.needed)
    for recipe, remedy in (
        ("nano", "cascade pretrain"),
        ("one-gpu", "cascade pretrain recipes/base/one-gpu.yaml --out models/one-gpu"),
        ("smollm2", "cascade import SOURCE --out models/smollm2"),
    ):
        cascade("recipe", "use", recipe)
        assert f"→ {remedy}\n" in cascade("doctor", code=1)
    monkeypatch.setattr(doctor, "NEEDED", ("no-such-package",))
    [finding] = doctor.packages()
    assert (finding.found, finding.remedy, finding.needed) == ("missing", "make setup", True)


def evaluated(layout: Layout, name: str, checkpoint: str, prompts: str) -> None:
    folder = layout.evaluation(name)
    write_json(folder / "manifest.json", {"checkpoint": checkpoint})
    write_json(folder / "summary.json", {"domains": {"math": {"avg@k": 0.123456}, "mcqa": {"avg@k": 0.5}}})
    (folder / "prompts.csv").write_text(prompts)


def test_an_evaluated_node_enters_its_round(tmp_path: Path) -> None:
    layout, recipe = Layout(tmp_path), load(ROOT / "recipes" / "nano.yaml")
    rounds = tmp_path / "results" / "lineage"
    for name in ("sft", "if_rl"):
        evaluated(layout, name, f"hash of {name}", "a")
        stages.enter_round(recipe, name, layout)
    assert read_json(rounds / "1" / "sft.json")["checkpoint"] == "hash of sft"
    assert read_json(tmp_path / "results" / "scores" / "sft.json") == {"math": 0.1235, "mcqa": 0.5}
    first = (rounds / "1" / "sft.json").read_bytes()
    evaluated(layout, "sft", "hash of sft", "b")
    stages.enter_round(recipe, "sft", layout)
    assert (rounds / "1" / "sft.json").read_bytes() != first


def test_a_distilled_nodes_entry_depends_on_the_choice_of_teachers(tmp_path: Path) -> None:
    layout, recipe = Layout(tmp_path), load(ROOT / "recipes" / "nano.yaml")
    evaluated(layout, "mopd", "hash", "a")
    entries = []
    for score in (0.1, 0.2):
        write_json(layout.decision("select_teachers"), {"score": score})
        stages.enter_round(recipe, "mopd", layout)
        entries.append(read_json(tmp_path / "results" / "lineage" / "2" / "mopd.json"))
    assert entries[0]["teachers"] != entries[1]["teachers"]


def test_entries_of_nodes_that_left_the_recipe_are_removed(tmp_path: Path) -> None:
    layout, recipe = Layout(tmp_path), load(ROOT / "recipes" / "nano.yaml")
    write_json(tmp_path / "results" / "lineage" / "1" / "former.json", {})
    evaluated(layout, "sft", "hash", "a")
    stages.enter_round(recipe, "sft", layout)
    assert [p.name for p in (tmp_path / "results" / "lineage" / "1").iterdir()] == ["sft.json"]


def test_only_training_nodes_are_evaluated(project: Path) -> None:
    cascade("recipe", "use", "nano")
    with pytest.raises(CascadeError, match=r"teachers\.select_teachers: makes no checkpoint to evaluate"):
        stages.evaluate_node("select_teachers", Layout(project))


def test_a_node_ends_cleanly_on_sigterm(project: Path) -> None:
    """`finally` blocks run, so children are ended and files closed."""
    cascade("recipe", "use", "nano")
    code = (
        "import time\nfrom pathlib import Path\nfrom cascade import stages\nfrom cascade.layout import Layout\n"
        "stages._prepare(Layout(Path.cwd()))\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\nfinally:\n    print('cleaned up', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=project)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    began = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    out, _ = child.communicate(timeout=10)
    assert out == "cleaned up\n"
    assert child.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 5
