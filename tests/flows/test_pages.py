"""What stands on a run's page, and what a form's words mean."""

import base64
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from cascade.errors import CheckpointError, RecipeError
from cascade.layout import Layout
from cascade.recipe import load
from cascade.utils.files import hash_directory, read_json, write_json
from cascade.utils.progress import Progress
from tasks import progress
from tasks.approvals import held_back
from tasks.artifacts import curation_page, data_url, scores_page
from tasks.checkpoints import checkpoint_named, folder_name
from tasks.distillation import arrange, distillation_of

ROOT = Path(__file__).parents[2]
RECIPE = load(ROOT / "recipes" / "nano-mopd.yaml")


def checkpoint(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(content)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Layout:
    (tmp_path / "recipes").mkdir()
    for file in ("params.yaml", "recipes/nano.yaml"):
        (tmp_path / file).write_text((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    for name in ("base", "sft", "multi_domain_rl"):
        checkpoint(tmp_path / "models" / name, name)
    return Layout(tmp_path)


def test_approval_holds_back_what_follows_and_nothing_else() -> None:
    assert held_back(RECIPE, ()) == set()
    assert held_back(RECIPE, ("release",)) == {"release"}
    # Teachers are selected when every node of their round is evaluated, so they too follow from multi_domain_rl.
    assert held_back(RECIPE, ("multi_domain_rl",)) == {"multi_domain_rl", "select_teachers", "mopd", "release"}
    with pytest.raises(RecipeError, match="no node 'mopt'"):
        held_back(RECIPE, ("mopt",))


def test_steps_become_progress_not_too_often(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shown: list[tuple[float, str]] = []
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def create(percent: float, key: str, description: str) -> UUID:
        shown.append((percent, key))
        return UUID(int=1)

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "update_progress_artifact", lambda i, p, description: shown.append((p, description)))
    said = Progress("if_rl", 4, 0)
    steps = progress.StepProgress()
    for step, at in ((0, 0.0), (1, 9.0), (2, 11.0), (3, 12.0)):
        clock[0] = at
        said.step(step, {"reward": "0.500"})
    lines = capsys.readouterr().err.splitlines()
    for line, at in zip(lines, (0.0, 9.0, 11.0, 12.0), strict=True):
        clock[0] = at
        steps.line(line)
    steps.line("if_rl: mcqa: 40 rollouts judged in 1.0 s")
    assert [found[0] for found in shown] == [25.0, 75.0, 100.0]
    assert shown[0][1] == "progress-if-rl"
    assert shown[1][1].startswith("if_rl: step 3 of 4, reward 0.500")


def test_a_node_goes_on_where_its_progress_cannot_be_shown(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    tried: list[float] = []
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def away(percent: float, key: str, description: str) -> UUID:
        tried.append(clock[0])
        clock[0] += 60
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(progress, "create_progress_artifact", away)
    steps = progress.StepProgress()
    for step, at in enumerate((0.0, 100.0, 650.0, 700.0), 1):
        clock[0] = at
        steps.line(f"if_rl  {step}/9  reward 0.500  left 0:01")
    assert tried == [0.0, 700.0]
    told = (
        "if_rl: its progress cannot be shown in Prefect (All connection attempts failed); it goes on, again in 600 s\n"
    )
    assert capsys.readouterr().err == 2 * told


def test_checkpoints_by_node_directory_and_base(home: Layout) -> None:
    assert checkpoint_named("sft", RECIPE, home) == home.root / "models" / "sft"
    assert checkpoint_named("base", RECIPE, home) == home.root / "models" / "base"
    other = checkpoint(home.root / "elsewhere", "{}")
    assert checkpoint_named("elsewhere", RECIPE, home) == other
    assert checkpoint_named(str(other), RECIPE, home) == other
    with pytest.raises(CheckpointError, match="no checkpoint there; name a node"):
        checkpoint_named("mopd", RECIPE, home)


def test_a_registered_model_is_found_by_its_content(home: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{home.root}/store.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client = MlflowClient(tracking_uri=store, registry_uri=store)
    registered = home.root / ".cascade" / "runs" / "nano" / "models" / "mopd"
    checkpoint(registered, "registered")
    checkpoint(home.checkpoint("mopd"), "another since")
    client.create_registered_model("ours")
    tags = {"checkpoint": "models/mopd", "checkpoint_hash": hash_directory(registered)}
    client.create_model_version("ours", str(registered), tags=tags)
    client.set_registered_model_alias("ours", "champion", "1")
    assert checkpoint_named("models:/ours@champion", RECIPE, home) == registered
    assert checkpoint_named("models:/ours/1", RECIPE, home) == registered
    (registered / "config.json").write_text("changed")
    with pytest.raises(CheckpointError, match="no longer has the checkpoint"):
        checkpoint_named("models:/ours@champion", RECIPE, home)
    for unknown in ("models:/ours@nobody", "models:/ours/2", "models:/theirs@champion", "models:/ours"):
        with pytest.raises(CheckpointError, match="is expected"):
            checkpoint_named(unknown, RECIPE, home)


def test_names_of_folders() -> None:
    assert folder_name("models:/cascade-nano@champion") == "cascade-nano@champion"
    assert folder_name("../../etc/passwd") == "etc-passwd"


def test_a_choice_of_teachers(home: Layout, tmp_path: Path) -> None:
    chosen = distillation_of(str(home.root), "multi_domain_rl", ("math=sft",), "mopd", "nano", ())
    same = distillation_of(str(home.root), "multi_domain_rl", ("math=models/sft",), "mopd", "nano", ())
    assert chosen.directory == same.directory
    assert chosen.directory != distillation_of(str(home.root), "sft", ("math=sft",), "mopd", "nano", ()).directory
    own = Layout(tmp_path / "own")
    checkpoint(own.checkpoint("multi_domain_rl"), "of the project, since")
    for _ in range(2):
        arrange(chosen, RECIPE, own)
    assert hash_directory(own.checkpoint("multi_domain_rl")) == hash_directory(home.checkpoint("multi_domain_rl"))
    teachers = read_json(own.decision("select_teachers"))["teachers"]
    assert set(teachers) == set(RECIPE.distill["mopd"].mix)
    assert {domain: found["node"] for domain, found in teachers.items() if found["node"] == "sft"} == {"math": "sft"}
    assert teachers["mcqa"]["hash"] == hash_directory(home.checkpoint("multi_domain_rl"))


@pytest.mark.parametrize(("teacher", "node"), [("maths=sft", "mopd"), ("math", "mopd"), ("math=sft", "if_rl")])
def test_a_choice_that_cannot_be(home: Layout, teacher: str, node: str) -> None:
    with pytest.raises(RecipeError) as error:
        distillation_of(str(home.root), "sft", (teacher,), node, "nano", ())
    assert "\n" not in str(error.value)


def test_pages_by_hand(home: Layout) -> None:
    domains = {"mcqa": {"avg@k": 0.25, "ci_low": 0.2, "ci_high": 0.31}}
    page = scores_page("sft", {"k": 2, "domains": domains, "mean": {"avg@k": 0.25}})
    assert "| domain | avg@2 | 95 % interval |" in page
    assert "| mcqa | 25.0 | 20.0 – 31.0 |" in page
    steps = {"dedupe": {"in": 10, "out": 8, "rejected": {"duplicate": 2}}, "length": {"rejected": {}}}
    report = {"rl": {"drawn": 10, "kept": 8, "steps": steps}, "packing": {"sequences": 5, "fill_rate": 0.9}}
    write_json(home.root / "data" / "report.json", report)
    assert "| rl | 10 | 8 | duplicate 2 |" in curation_page(home)
    assert "5 sequences of SFT, 90% of their tokens used." in curation_page(home)
    (home.root / "a.png").write_bytes(b"\x89PNG")
    assert base64.b64decode(data_url(home.root / "a.png").removeprefix("data:image/png;base64,")) == b"\x89PNG"
