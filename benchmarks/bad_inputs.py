"""Give the command line bad inputs of every kind and write down what it prints: docs/errors.md.

python -m benchmarks.bad_inputs
"""

import contextlib
import copy
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from cascade.cli import main
from cascade.utils.files import write_atomic

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"

HEAD = """# What bad input prints

Made by `python -m benchmarks.bad_inputs`, which runs every line of it; the suite checks that it is current.
Every error is one line a problem: what is wrong, where, what to do. The exit status is 1, without a traceback.
"""

Recipe = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """`change` alters the nano recipe, `prepare` the project's files, before `command` is run there."""

    what: str
    command: str
    change: Callable[[Recipe], object] = lambda recipe: None
    prepare: Callable[[Path], object] = lambda project: None


def _set(path: str, value: Any) -> Callable[[Recipe], None]:
    def change(recipe: Recipe) -> None:
        *sections, key = path.split(".")
        for section in sections:
            recipe = recipe[section]
        recipe[key] = value

    return change


def _drop(path: str) -> Callable[[Recipe], None]:
    def change(recipe: Recipe) -> None:
        *sections, key = path.split(".")
        for section in sections:
            recipe = recipe[section]
        del recipe[key]

    return change


def _rename(path: str, name: str) -> Callable[[Recipe], None]:
    def change(recipe: Recipe) -> None:
        section, node = path.split(".")
        recipe[section][name] = recipe[section].pop(node)

    return change


def _second_origin(recipe: Recipe) -> None:
    recipe["sft"]["other"] = copy.deepcopy(recipe["sft"]["sft"])
    recipe["teachers"]["select_teachers"]["candidates"].append("other")


def _local_source(recipe: Recipe) -> None:
    recipe["curation"]["sources"] = {"mine": {"path": "rows.*", "domain": "math", "environment": "math", "sft": 5}}
    for section in ("rl", "teachers", "distill", "repair", "gate"):
        recipe[section] = {}


def _write(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda project: write_atomic(project / name, content)


def _append(name: str, content: str) -> Callable[[Path], None]:
    return lambda project: write_atomic(project / name, (project / name).read_text() + content)


def _tokenizer(project: Path) -> None:
    shutil.copytree(ROOT / "models" / "base", project / "models" / "base", ignore=lambda d, n: ["model.safetensors"])


def _both(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(project: Path) -> None:
        for step in steps:
            step(project)

    return prepare


CASES = {
    "The recipe": [
        Case("no recipe", "recipe check", prepare=lambda project: (project / "params.yaml").unlink()),
        Case("not YAML", "recipe check", prepare=_write("params.yaml", "sft: [")),
        Case("a block taken from elsewhere", "recipe check", prepare=_append("params.yaml", "x: &a {}\ny: *a\n")),
        Case("a typo", "recipe check", _set("rl.if_rl.optimizer.learning_rte", 1e-4)),
        Case("a missing key", "recipe check", _drop("sft.sft.epochs")),
        Case("a wrong value", "recipe check", _set("rl.if_rl.steps", 0)),
        Case("a cycle", "recipe check", _set("rl.if_rl.init", "multi_domain_rl")),
        Case("a node that is not there", "recipe check", _set("rl.if_rl.init", "stf")),
        Case("an unknown environment", "recipe check", _set("curation.sources.mcqa.generator", "mcq")),
        Case("a mix that does not sum to 1", "recipe check", _set("rl.multi_domain_rl.mix.mcqa", 0.6)),
        Case("a domain without prompts", "recipe check", _set("rl.if_rl.mix", {"poetry": 1.0})),
        Case("a level that there is not", "recipe check", _set("curation.sources.mcqa.levels", {5: 1.0})),
        Case("adapters without a rank", "recipe check", _set("rl.if_rl.lora", {"ranks": 8})),
        Case("a teacher of another fine-tuning", "recipe check", _second_origin),
        Case("a gate before its candidate", "recipe check", _set("gate.release.round", 1)),
        Case("a conversation longer than a sequence", "recipe check", _set("curation.max_tokens", 4096)),
        Case("a node whose name is taken", "recipe check", _rename("rl.if_rl", "report")),
        Case("a name that MLflow refuses", "recipe check", _set("gate.release.registered_name", "org/nano")),
        Case("an alias that MLflow keeps for itself", "recipe check", _set("gate.release.alias", "latest")),
        Case("a recipe nobody knows", "recipe use nanoo"),
    ],
    "Nodes and checkpoints": [
        Case("a node that is not there", "node if_lr"),
        Case("an evaluation of a gate", "evaluate release"),
        Case("no base model", "node curate"),
        Case("no checkpoint to start from", "node if_rl"),
        Case("no checkpoint to talk with", "chat sft"),
    ],
    "Data": [
        Case("no such file", "node curate", _local_source, _tokenizer),
        Case("a broken Parquet file", "node curate", _local_source, _both(_tokenizer, _write("rows.parquet", b"PAR"))),
        Case("a file of neither kind", "node curate", _local_source, _both(_tokenizer, _write("rows.csv", "a,b\n"))),
        Case(
            "rows that are all bad", "node curate", _local_source, _both(_tokenizer, _write("rows.jsonl", "{\n[1]\n"))
        ),
    ],
    "Rollout files": [
        Case("no such file", "score rollouts.jsonl"),
        Case("an unknown environment", "score rows.jsonl --environment chess", prepare=_write("rows.jsonl", "{}\n")),
    ],
    "Servers": [Case("a port that is taken", "ui --prefect-port {port}")],
}


def page() -> str:
    """The page, from running every case."""
    parts = [HEAD]
    for title, cases in CASES.items():
        parts.append(f"\n## {title}\n")
        for case in cases:
            parts.append(f"\n{case.what}:\n\n```\n$ cascade {case.command.format(port='4200')}\n{run(case)}\n```\n")
    return "".join(parts)


def run(case: Case) -> str:
    """What the command prints as its error, in a fresh project."""
    with tempfile.TemporaryDirectory() as folder, _taken_port() as port, _inside(Path(folder).resolve()) as project:
        recipe = yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text(encoding="utf-8"))
        case.change(recipe)
        (project / "recipes").mkdir()
        for path in (project / "params.yaml", project / "recipes" / "nano.yaml"):
            path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        case.prepare(project)
        result = CliRunner().invoke(main, case.command.format(port=port).split())
        if result.exit_code != 1 or not isinstance(result.exception, SystemExit):
            raise AssertionError(f"{case.what}: {result.exit_code}, {result.exception!r}\n{result.output}")
        lines = result.output.partition("Error: ")[2].strip()
        return f"Error: {lines}".replace(f"{project}/", "").replace(str(project), ".").replace(str(port), "4200")


@contextlib.contextmanager
def _inside(project: Path) -> Iterator[Path]:
    before = Path.cwd()
    environment = dict(os.environ)
    # Nothing listens there: what is measured stays in the temporary project.
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    os.chdir(project)
    try:
        yield project
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


@contextlib.contextmanager
def _taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


if __name__ == "__main__":
    write_atomic(PAGE, page())
