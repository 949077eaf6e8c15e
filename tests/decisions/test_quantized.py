"""Quantise, check against what it was quantised from, distil where it lost; and what is refused."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from cascade.decisions.gate import gate
from cascade.decisions.history import FileHistory
from cascade.decisions.repair import qad
from cascade.errors import CascadeError, CheckpointError, RecipeError
from cascade.evaluation.benchmark import evaluate
from cascade.launch import memory_plan
from cascade.layout import Layout
from cascade.policy import checkpoint as checkpoint_module
from cascade.policy.hf import HFPolicy
from cascade.policy.quantization import store
from cascade.recipe import Recipe
from cascade.report.page import build_report
from cascade.report.table import result_table
from cascade.stages import evaluate_node, run_node
from cascade.tracking import Journal
from cascade.training.quantize import probe, run_qad, run_quantize
from cascade.utils.files import hash_directory, hash_file, read_json, write_atomic, write_json
from tests.evaluation.project import share, write_evaluation
from tests.training.miniature import OPTIMIZER, make_hybrid, make_recipe, packed_rows, prompt_rows, write_rows
from tests.training.test_on_policy import steps_of
from tests.training.test_resume import Killed

DOMAINS = ("one", "two")


def recipe_with(
    quantize: dict | None = None, distil: dict | None = None, gate: dict | None = None, **sections
) -> Recipe:
    """sft → small (NVFP4) → small_qad → release."""
    raw = make_recipe().model_dump(mode="json")
    nodes = {
        "quantize": {"small": {"init": "sft", "round": 1, "format": "nvfp4", "rows": 4} | (quantize or {})},
        "qad": {
            "small_qad": {"init": "small", "reads_round": 1, "round": 2, "steps": 4, "batch": 3, "budget": 0}
            | {"optimizer": OPTIMIZER | {"learning_rate": 3e-3}, "checkpoint_every": 1}
            | (distil or {})
        },
        "gate": {
            "release": {"round": 2, "candidate": "small_qad", "registered_name": "miniature", "budget": 0}
            | (gate or {})
        },
    }
    return Recipe.model_validate({**raw, **nodes, **sections})


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """sft is trained and evaluated."""
    monkeypatch.delenv("CASCADE_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    layout = Layout(tmp_path)
    write_json(layout.params, {})
    make_hybrid(layout.checkpoint("sft"), 1)
    write_rows(layout.sft_data / "part-0.parquet", packed_rows(7))
    for domain in DOMAINS:
        write_rows(layout.benchmark(domain), prompt_rows(domain, 3))
    score(layout, "sft", one=30, two=30)
    return layout


def score(layout: Layout, node: str, **solved: int) -> None:
    write_evaluation(layout, node, {d: share(n) for d, n in solved.items()}, hash_directory(layout.checkpoint(node)))


def quantised(layout: Layout, recipe: Recipe | None = None, **solved: int) -> None:
    run_quantize(recipe or recipe_with(), "small", layout)
    score(layout, "small", **solved)


# Post-training quantisation


def test_the_node_publishes_what_it_wrote_with_its_numbers(layout: Layout):
    run_quantize(recipe_with(), "small", layout)
    written, parent = layout.checkpoint("small"), layout.checkpoint("sft")
    assert store.is_quantized(written)
    (step,) = steps_of(layout, "small")
    ours, theirs = ((path / "model.safetensors").stat().st_size for path in (written, parent))
    assert step["quantize/size_share"] == ours / theirs
    assert step["quantize/bytes"] == ours
    rows = probe(recipe_with(), recipe_with().quantize["small"], "small", layout, layout.root / "again")
    assert len(rows) == 4
    divergence = HFPolicy(written).forward_kl(rows, HFPolicy(parent)).mean().item()
    assert step["quantize/forward_kl"] == pytest.approx(divergence, rel=1e-5)
    manifest = read_json(layout.training("small") / "manifest.json")
    assert manifest["checkpoint"] == hash_directory(written)
    assert manifest["inputs"]["parent"] == hash_directory(parent)
    assert not layout.work("small").exists()


def exchange_scales(tensors: dict[str, torch.Tensor]) -> None:
    """Of two experts: shapes and types fit, so it loads."""
    scales = [f"backbone.layers.1.mixer.experts.{n}.up_proj.weight_scale" for n in (0, 1)]
    tensors[scales[0]], tensors[scales[1]] = tensors[scales[1]], tensors[scales[0]]


def reverse_scales(tensors: dict[str, torch.Tensor]) -> None:
    name = "backbone.layers.0.mixer.out_proj.weight_scale"
    tensors[name] = tensors[name].view(torch.uint8).flip(0).view(torch.float8_e4m3fn)


def double_a_scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.layers.2.mixer.v_proj.weight_global_scale"] *= 2


@pytest.mark.parametrize("break_it", [exchange_scales, reverse_scales, double_a_scale])
def test_a_broken_export_is_refused_before_it_counts(layout: Layout, monkeypatch: pytest.MonkeyPatch, break_it):
    write = checkpoint_module.quantize_files

    def broken(directory: Path, *arguments: object) -> None:
        write(directory, *arguments)  # type: ignore[arg-type]
        tensors = load_file(directory / "model.safetensors")
        break_it(tensors)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(checkpoint_module, "quantize_files", broken)
    line = r"small/checkpoint: the checkpoint loads, but its log-probabilities are [\d.e-]+ nats off"
    with pytest.raises(CheckpointError, match=line):
        run_quantize(recipe_with(), "small", layout)
    assert not layout.checkpoint("small").exists()
    assert not (layout.training("small") / "manifest.json").exists()


def test_a_missing_scale_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    pack = store.pack
    monkeypatch.setattr(store, "pack", lambda *a: {k: t for k, t in pack(*a).items() if k != "weight_global_scale"})
    with pytest.raises(
        CheckpointError, match=r"small/checkpoint: backbone.layers.0.mixer.in_proj: no weight_global_scale"
    ):
        run_quantize(recipe_with(), "small", layout)
    assert not layout.checkpoint("small").exists()


def test_a_checkpoint_that_changed_after_its_evaluation_does_not_pass_the_gate(layout: Layout):
    quantised(layout, one=30, two=30)
    recipe = recipe_with(gate={"round": 1, "candidate": "small"})
    path = layout.checkpoint("small") / "model.safetensors"
    tensors = load_file(path)
    exchange_scales(tensors)
    os.unlink(path)
    save_file(tensors, path, metadata={"format": "pt"})
    line = r"models/small: its files are not those that the node wrote; `cascade node small` makes it again"
    with pytest.raises(CascadeError, match=line):
        gate(recipe, "release", layout, FileHistory(layout))
    with pytest.raises(CascadeError, match=line):
        evaluate(recipe, "small", layout)
    assert not any(entry["kind"] == "model" for entry in Journal(layout.journal("release")).entries())


# Check and distillation


def test_where_nothing_is_lost_the_quantised_checkpoint_is_passed_on(layout: Layout):
    quantised(layout, one=30, two=30)
    decision = qad(recipe_with(), "small_qad", layout, FileHistory(layout))
    assert (decision["regressed"], decision["teachers"]) == ([], {})
    assert hash_directory(layout.checkpoint("small_qad")) == hash_directory(layout.checkpoint("small"))


def test_where_a_domain_is_lost_it_is_distilled_from_what_it_was_quantised_from(layout: Layout):
    recipe = recipe_with(distil={"steps": 30})
    quantised(layout, one=10, two=30)
    decision = qad(recipe, "small_qad", layout, FileHistory(layout))
    assert decision["regressed"] == ["one"]
    assert {domain: t["node"] for domain, t in decision["teachers"].items()} == {"one": "sft", "two": "sft"}
    *steps, written = steps_of(layout, "small_qad")
    assert len(steps) == read_json(layout.training("small_qad") / "metrics.json")["steps"] == 30
    assert written.keys() == {"quantize/forward_kl", "quantize/bytes", "quantize/size_share"}
    teacher = HFPolicy(layout.checkpoint("sft"))
    rows = probe(recipe, recipe.quantize["small"], "small", layout, layout.root / "again")
    before, after = (
        HFPolicy(layout.checkpoint(node)).forward_kl(rows, teacher).mean() for node in ("small", "small_qad")
    )
    assert after < 0.8 * before
    assert store.is_quantized(layout.checkpoint("small_qad"))
    # The first step's loss is that of the quantised checkpoint: its training starts from what was quantised.
    assert steps[0]["train/loss"] == pytest.approx(before.item(), rel=0.5)


def test_the_gate_registers_it_under_an_alias_of_its_own(layout: Layout):
    recipe = recipe_with()
    quantised(layout, recipe, one=10, two=30)
    qad(recipe, "small_qad", layout, FileHistory(layout))
    score(layout, "small_qad", one=30, two=30)
    assert gate(recipe, "release", layout, FileHistory(layout))["passed"]
    (entry,) = (entry for entry in Journal(layout.journal("release")).entries() if entry["kind"] == "model")
    assert (entry["name"], entry["alias"]) == ("miniature", "champion-nvfp4")
    assert (entry["tags"]["format"], entry["tags"]["parent"]) == ("nvfp4", "small")
    assert entry["tags"]["teacher/one"].startswith("sft ")


def test_killed_it_goes_on_and_ends_with_the_same_bytes(layout: Layout):
    def kill(step: int, *_: object) -> None:
        if step == 2:
            raise Killed

    quantised(layout, one=10, two=30)
    run_qad(recipe_with(), "small_qad", layout)
    whole = hash_directory(layout.checkpoint("small_qad"))
    with pytest.raises(Killed):
        run_qad(recipe_with(), "small_qad", layout, kill)
    run_qad(recipe_with(), "small_qad", layout)
    assert hash_directory(layout.checkpoint("small_qad")) == whole


def test_the_report_sets_it_beside_what_it_was_made_from(layout: Layout):
    recipe = recipe_with()
    quantised(layout, recipe, one=10, two=30)
    qad(recipe, "small_qad", layout, FileHistory(layout))
    score(layout, "small_qad", one=20, two=30)
    text = result_table(recipe, layout)
    share_of_size = steps_of(layout, "small")[0]["quantize/size_share"]
    assert f"small: nvfp4, {100 * share_of_size:.0f} % of the size of sft, KL " in text
    last = steps_of(layout, "small_qad")[-1]
    assert last["quantize/size_share"] == share_of_size
    divergence = last["quantize/forward_kl"]
    rows = probe(recipe, recipe.quantize["small"], "small", layout, layout.root / "again")
    after, whole = (HFPolicy(layout.checkpoint(node)) for node in ("small_qad", "sft"))
    assert divergence == pytest.approx(after.forward_kl(rows, whole).mean().item(), rel=1e-4)
    assert f"small_qad: nvfp4, {100 * share_of_size:.0f} % of the size of sft, KL {divergence:.4f} " in text
    assert "small_qad: recovered 50 % of what its start lacked on the teachers (one 50 %)." in text
    assert "1 of 1 regression checks led to a repair." in text
    page = build_report(recipe, layout).read_text(encoding="utf-8")
    assert '<h2 id="quantized">Quantised</h2>' in page
    assert "Regression check small_qad: repaired" in page
    assert "The repair won back 50 % of what was lost." in page


def test_from_quantising_to_the_registry_by_the_commands_of_the_stages(layout: Layout):
    recipe = recipe_with(distil={"steps": 2}, quantize={"rows": 2}, gate={"significance": 0.5})
    write_atomic(layout.params, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    for domain in DOMAINS:
        write_rows(layout.benchmark(domain), prompt_rows(domain, 24))
    evaluate_node("sft", layout)
    for name in ("small", "small_qad"):
        run_node(name, layout)
        evaluate_node(name, layout)
        manifest = read_json(layout.evaluation(name) / "manifest.json")
        assert store.is_quantized(layout.checkpoint(name))
        assert manifest["checkpoint"] == hash_directory(layout.checkpoint(name))
        entry = read_json(layout.root / "results" / "lineage" / str(recipe.training[name].round) / f"{name}.json")
        assert entry["checkpoint"] == manifest["checkpoint"]
    assert entry["teachers"] == hash_file(layout.decision("small_qad"))
    run_node("release", layout)
    decision = read_json(layout.decision("release"))
    assert decision["checkpoint"] == hash_directory(layout.checkpoint("small_qad"))
    assert decision["read"].keys() == {"sft", "small_qad"}
    registered = [e for e in Journal(layout.journal("release")).entries() if e["kind"] == "model"]
    assert [entry["alias"] for entry in registered] == ["champion-nvfp4"] * decision["passed"]


# The recipe


def test_they_are_nodes_of_the_graph():
    recipe = recipe_with()
    assert recipe.parents("small") == ["sft"]
    assert recipe.parents("small_qad") == ["small", "sft"]
    assert recipe.qad["small_qad"].against == recipe.gate["release"].against == ["sft"]
    assert recipe.gate["release"].alias == "champion-nvfp4"
    assert recipe.awaited("small_qad") == ["sft", "rl", "small"]
    assert recipe.teachers_chosen_by("small_qad") == "small_qad"
    assert list(recipe.checks) == ["mend", "small_qad"]


def test_what_is_quantised_is_not_in_the_comparisons_of_other_nodes():
    raw = recipe_with(gate={"round": 3, "candidate": "mend", "against": None}).gate["release"]
    assert raw.against == ["sft", "rl", "mopd"]
    assert raw.alias == "champion"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"quantize": {"format": "fp3"}}, "quantize.small.format"),
        (
            {"quantize": {"round": 2}},
            "quantize.small.round: 2; who reads a quantised checkpoint reads that of its init too,",
        ),
        ({"quantize": {"engine": "nemo"}}, "engine: nemo does not quantise; say hf"),
        ({"quantize": {"lora": {}}}, "lora: all weights are quantised and trained; take it out"),
        ({"distil": {"init": "sft"}}, "qad.small_qad.init: 'sft' cannot be used here; have small"),
        ({"distil": {"round": 3}}, "qad.small_qad.round: 3; qad opens the round after the one it reads, 2"),
        (
            {"distil": {"against": ["rl"]}},
            "qad.small_qad.against: rl; it is compared with, and distilled from, what small",
        ),
        (
            {"teachers": {"choose": {"round": 1, "candidates": ["sft", "rl", "small"]}}},
            "'small' is quantised; leave it",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, line: str):
    with pytest.raises((RecipeError, ValueError), match=line):
        recipe_with(**changes)


def test_what_is_quantised_does_not_teach_a_repair():
    settings = {"reads_round": 1, "round": 2, "steps": 1, "prompts": 4, "rollouts": 2, "optimizer": OPTIMIZER}
    settings |= {"init": "rl", "against": ["sft", "small"], "mix": {"one": 0.5, "two": 0.5}}
    settings |= {"rollout": {"max_new_tokens": 4}}
    with pytest.raises(
        (RecipeError, ValueError), match=r"repair.mend.against: 'small' is quantised, and does not teach"
    ):
        recipe_with(repair={"mend": settings})


def test_what_is_quantised_is_not_trained_on():
    raw = recipe_with().model_dump(mode="json")
    raw["rl"]["rl"]["init"] = "small"
    with pytest.raises((RecipeError, ValueError), match=r"rl.rl.init: 'small' is quantised; start from what it was"):
        Recipe.model_validate(raw)


@pytest.mark.parametrize(("node", "remedy"), [("small", "more memory"), ("small_qad", "micro_batch_tokens")])
def test_what_does_not_fit_is_refused_before_it_is_loaded(layout: Layout, node: str, remedy: str):
    make_hybrid(layout.root / "models" / "base", 0)
    recipe = recipe_with(pools={node: {"gpus": 1, "gpu_gib": 1e-4}})
    with pytest.raises(CascadeError, match=rf"^{node}: needs .* GiB of each GPU, .*{remedy}"):
        memory_plan.check(recipe, node, layout)


def test_without_rows_for_sft_it_is_refused(layout: Layout):
    for path in layout.sft_data.iterdir():
        path.unlink()
    with pytest.raises(CascadeError, match=r"data/sft: no Parquet files; `cascade node curate` writes them"):
        run_quantize(recipe_with(), "small", layout)
