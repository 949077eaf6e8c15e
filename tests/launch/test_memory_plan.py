"""The memory plan: hand-computed sizes, exact parameter counts, the recipes that must fit, and refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from architectures import SETTINGS, make
from click.testing import CliRunner
from safetensors import safe_open

from benchmarks.gpu.nemo_step import random_config
from cascade.cli import main
from cascade.errors import CascadeError
from cascade.launch.memory_plan import AUTOCAST, Plan, check, fit, on_cards, plan, plan_node, resident_models, table
from cascade.layout import Layout
from cascade.policy.logits import CHUNK, HELD
from cascade.policy.model_size import Shape, shape_of
from cascade.recipe import Recipe, SFTNode, load

ROOT = Path(__file__).parents[2]
LARGE = ROOT / "recipes" / "base" / "nemotron-3-nano-30b-a3b-base.json"
PAPER = ROOT / "recipes" / "nemotron-cascade-2-30b-a3b.yaml"


def changed(**changes: object) -> Recipe:
    """The paper's recipe with other keys in node mopd; `place` changes where it runs."""
    content = yaml.safe_load(PAPER.read_text())
    content["pools"]["mopd"] |= changes.pop("place", {})  # type: ignore[operator]
    content["distill"]["mopd"] |= changes
    return Recipe.model_validate(content)


def test_parameters_are_those_of_the_checkpoint() -> None:
    with safe_open(ROOT / "models" / "base" / "model.safetensors", framework="pt") as file:
        sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
    count = sum(_product(size) for name, size in sizes.items() if "correction_bias" not in name)
    shape = shape_of(ROOT / "models" / "base" / "config.json")
    assert shape.parameters == count
    assert (shape.head, shape.width, shape.experts) == (2048 * 128, 128, 16 * 2 * 128 * 128)


def test_the_large_model_by_hand() -> None:
    shape = shape_of(LARGE)
    experts = 128 * 2 * 2688 * 1856
    moe = experts + 128 * 2688 + 2 * 2688 * 3712 + 2688
    mamba = 2688 * 10304 + 4096 * 2688 + 4 * 6144 + 6144 + 3 * 64 + 4096 + 2688
    attention = 2 * 2688 * 4096 + 2 * 2688 * 256 + 2688
    assert shape.parameters == 23 * moe + 23 * mamba + 6 * attention + 2 * 131072 * 2688 + 2688
    assert shape.experts == experts
    assert shape.layer == mamba
    assert shape.cache == 6 * 2 * 2 * 2 * 128
    assert shape.state == 23 * 4 * 64 * 64 * 128


def test_activations_by_hand() -> None:
    shape = shape_of(LARGE)
    mamba = 2 * (2 * 2688 + 10304 + 6144 + 2 * 4096) + 4 * 4096 * 128 / 128
    attention = 2 * (2 * 2688 + 2 * 4096 + 2 * 256)
    moe = 2 * 2 * 2688 + 6 * 2 * (2688 + 2 * 1856) + 2 * 2 * 3712 + 4 * 2688 + 8 * 128
    assert shape.activations == {"mamba": mamba, "moe": moe, "attention": attention}
    assert shape.kept(False, False) == 23 * mamba + 23 * moe + 6 * attention
    assert shape.kept(True, True) == 52 * 2 * 2688 + moe
    # Without expert parallelism NeMo computes Mamba layers again, and no others.
    assert shape.kept(True, False) == 23 * 2 * 2688 + 23 * moe + 6 * attention + mamba
    # NeMo's Mamba layers keep their projection and their output.
    fused = 2 * (2 * 2688 + 10304 + 4096)
    assert shape.kept(False, False, nemo=True) == 23 * fused + 23 * moe + 6 * attention
    assert shape.kept(True, False, nemo=True) == 23 * 2 * 2688 + 23 * moe + 6 * attention + fused


@pytest.mark.parametrize("model_type", ["qwen3", "qwen3_moe"])
def test_other_models(tmp_path: Path, model_type: str) -> None:
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16} if "moe" in model_type else {}
    config = {"model_type": model_type, "vocab_size": 10, "intermediate_size": 24, **sizes, **moe}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(tmp_path / "config.json")
    attention = 2 * (2 * 8 + 2 * 8 + 2 * 4)
    mlp = 2 * (2 * 8 + 3 * 24)
    routed = 2 * 2 * 8 + 2 * 2 * (2 * 8 + 3 * 16) + 4 * 8 + 2 * 4 * 4
    assert shape.kept(False, False) == 2 * (attention + (routed if moe else mlp))
    assert shape.kept(True, False) == 2 * 2 * 8 + attention + (routed if moe else mlp)
    assert shape.experts == (4 * 3 * 8 * 16 if moe else 0)
    assert shape.cache == 2 * 2 * 2 * 4


def test_a_plan_by_hand() -> None:
    recipe, shape = load(PAPER), shape_of(LARGE)
    node = recipe.training["mopd"]
    found = plan_node(shape, node, 64, longest=100352, teachers=4)
    own = shape.parameters / 64
    assert (found.weights, found.gradients, found.optimizer) == (2 * own, 4 * own, 12 * own)
    assert found.teachers == 4 * 2 * own
    assert found.gathered == 10 * (shape.layer + shape.experts / 8)
    assert found.activations == 50176 * shape.kept(True, True)
    # More probabilities than are held: computed again in chunks. A layer of experts takes more at a time.
    assert HELD["cuda"] < 100352 * 131072
    dispatched = 50176 * 2 * 2688 * (6 + 6 * 8 + 6 + 2 * 8)
    assert dispatched > 12 * max(64 * 131072, CHUNK["cuda"])
    assert found.logits == 8 * 131072 * 2688 + dispatched + 4 * 2688 * 100352
    assert found.sampler == 0
    assert found.total == pytest.approx(sum(vars(found).values()))


def measured(shape: Shape, node: SFTNode, gpus: int, peak: float) -> float:
    """Planned over measured, MiB on an H100 or H200 with micro-batches of 16,384 tokens (results/gpu)."""
    return plan_node(shape, node, gpus, longest=0, teachers=0).total / 2**20 / peak


@pytest.mark.parametrize(
    ("model", "engine", "parallel", "gpus", "peak"),
    [
        ("base", "hf", {}, 1, 1107.6),
        ("base", "nemo", {}, 1, 791.2),
        ("141M", "hf", {}, 1, 12038.4),
        ("141M", "nemo", {}, 1, 7195.9),
    ],
)
def test_plans_are_what_was_measured(
    model: str, engine: str, parallel: dict, gpus: int, peak: float, tmp_path: Path
) -> None:
    config = ROOT / "models" / "base" / "config.json"
    if model == "141M":
        config = tmp_path / "config.json"
        random_config().save_pretrained(tmp_path)
    settings = {"init": "base", "round": 1, "epochs": 1, "batch": 1, "engine": engine, "parallel": parallel}
    node = SFTNode.model_validate({**settings, "optimizer": {"learning_rate": 1e-4, "micro_batch_tokens": 16384}})
    assert 0.95 <= measured(shape_of(config), node, gpus, peak) <= 1.10


def test_layers_that_stay_gathered_are_counted() -> None:
    shape, experts = shape_of(LARGE), 23 * 128 * 2 * 2688 * 1856
    assert (shape.all_experts, shape.copies) == (experts, 6)

    def gathered(gpus: int, **parallel: object) -> float:
        node = changed(parallel=parallel).training["mopd"]
        return plan_node(shape, node, gpus, longest=1000, teachers=0).gathered

    assert gathered(8, expert=8) == 6 * (shape.parameters - experts + shape.layer)  # Experts are each GPU's own.
    assert gathered(8, expert=8, keep_gathered=False) == 10 * shape.layer
    assert gathered(8, expert=4) == 10 * (shape.layer + shape.experts / 4)
    assert gathered(8, expert=4, keep_gathered=True) == pytest.approx(
        6 * (shape.parameters - experts + experts / 4 + shape.layer + shape.experts / 4)
    )


def test_the_torch_sampler_has_weights_and_caches_of_its_own() -> None:
    node = changed(rollout={"engine": "torch", "max_new_tokens": 1000}).training["mopd"]
    shape = shape_of(LARGE)
    found = plan_node(shape, node, 64, longest=1000, teachers=0)
    assert found.sampler == 2 * 2 * shape.parameters + 8 * (1000 * shape.cache + shape.state)


def test_the_sampler_takes_as_many_rows_at_a_time_as_have_room(tmp_path: Path) -> None:
    """A dense model of 8 billion parameters, 128 rollouts of 32,768 tokens, one GPU: caches of 576 GiB at once."""
    config = {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288}
    layers = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    (tmp_path / "config.json").write_text(json.dumps(config | layers))
    shape = shape_of(tmp_path / "config.json")
    assert (shape.own_pass, shape.cache) == (True, 36 * 2 * 2 * 8 * 128)
    node = changed(engine="hf", parallel={}, prompts=16, rollouts=8, rollout={"max_new_tokens": 32768}).training["mopd"]
    row = 32768 * shape.cache
    assert 128 * row == 576 * 2**30

    def caches(memory: float | None) -> float:
        return plan_node(shape, node, 1, 32768, teachers=0, memory=memory).sampler - 2 * shape.parameters

    assert caches(None) == 128 * row
    assert caches(8000 * 2**30) == 128 * row  # A fifth of it has room for all.
    assert caches(400 * 2**30) == 16 * row  # 80 GiB: 17.8 rows, and graphs are of 16 or 32.
    assert caches(80 * 2**30) == 8 * row  # The smallest there are.


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_model_has_a_plan(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.config.save_pretrained(tmp_path)
    shape = shape_of(tmp_path / "config.json")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert len(shape.kinds) == len(model.base_model.layers)
    assert all(size > 0 for size in shape.activations.values())
    # What one token adds to transformers' own cache, in float32; the plan counts bfloat16.
    sizes = []
    for length in (12, 20):
        found = model(torch.ones(1, length, dtype=torch.long), use_cache=True).past_key_values
        layers = [layer for layer in found.layers if getattr(layer, "keys", None) is not None and layer.keys.ndim == 4]
        sizes.append(sum(layer.keys.nbytes + layer.values.nbytes for layer in layers))
    windows = {"Mistral", "Gemma2", "Gemma3", "GptOss", "Cohere2"}  # Which forget: the plan does not count on it.
    if name not in windows:
        assert (sizes[1] - sizes[0]) / 8 == 2 * shape.cache


def test_adapters_are_trained_in_place_of_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="pip install -e '.[lora]'")
    config = {"model_type": "qwen3", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 24}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "models" / "base" / "config.json").write_text(json.dumps(config | layers))
    content = load(ROOT / "recipes" / "nano-mopd.yaml").model_dump(mode="json")
    full = plan(Recipe.model_validate(content), "sft", Layout(tmp_path))
    content["sft"]["sft"]["lora"] = {"rank": 3}
    found = plan(Recipe.model_validate(content), "sft", Layout(tmp_path))
    shapes = [(8, 8), (4, 8), (4, 8), (8, 8), (24, 8), (24, 8), (8, 24)]
    adapted = 2 * sum(outputs * inputs for outputs, inputs in shapes)
    adapters = 2 * 3 * sum(outputs + inputs for outputs, inputs in shapes)
    assert found.weights == full.weights + 4 * (adapted + adapters)
    assert found.gradients == 4 * (adapters + 24 * 8)
    assert found.optimizer == 8 * adapters
    assert (found.activations, found.logits) == (full.activations, full.logits)


def test_advice_is_what_the_engine_accepts() -> None:
    recipe, layout = load(ROOT / "recipes" / "nano-mopd.yaml"), Layout(ROOT)

    def advice(gpus: int = 1, **settings: object) -> str:
        content = recipe.model_dump(mode="json")
        content["sft"]["sft"] |= settings
        content["sft"]["sft"]["optimizer"]["micro_batch_tokens"] = 2**20
        content["pools"]["sft"] = {"gpus": gpus, "gpu_gib": 1}
        (refused,) = table(Recipe.model_validate(content), ["sft"], layout)[1]
        return refused.partition("activations take ")[2].partition(": ")[2]

    assert advice() == "set parallel.checkpoint_activations, lower optimizer.micro_batch_tokens"
    assert advice(parallel={"checkpoint_activations": True}) == "lower optimizer.micro_batch_tokens"
    nemo = {"engine": "nemo", "checkpoint_dtype": "init"}
    assert advice(**nemo) == "set parallel.checkpoint_activations, lower optimizer.micro_batch_tokens"
    assert advice(2, **nemo) == (
        "set parallel.checkpoint_activations, raise parallel.context, lower optimizer.micro_batch_tokens"
    )


def test_on_one_gpu_every_layer_of_engine_nemo_is_computed_again() -> None:
    """NeMo's class wraps all blocks there; over several GPUs without expert parallelism Mamba layers alone."""
    shape = shape_of(LARGE)
    node = changed(parallel={"checkpoint_activations": True}).training["mopd"]
    one, two = (plan_node(shape, node, gpus, longest=1000, teachers=0).activations for gpus in (1, 2))
    assert one == 8192 * shape.kept(True, True, nemo=True)
    assert two == 8192 * shape.kept(True, False, nemo=True)


def test_short_sequences_leave_the_gradients_of_a_pass_as_the_peak() -> None:
    """Those in bfloat16 are there whole before they are added to those in float32."""
    shape, settings = shape_of(LARGE), {"parallel": {"expert": 8, "checkpoint_activations": True}}

    def planned(tokens: int) -> Plan:
        node = changed(**settings, optimizer={"learning_rate": 1e-6, "micro_batch_tokens": tokens}).training["mopd"]
        return plan_node(shape, node, 8, longest=0, teachers=0)

    own = shape.parameters / 8
    short, long = planned(256), planned(32768)
    assert short.gradients + short.activations + short.logits == pytest.approx((4 + 2) * own)
    assert long.gradients == 4 * own
    assert long.activations + long.logits > 2 * own


def test_other_cards_than_the_recipe_s() -> None:
    recipe, lowered = on_cards(load(PAPER), 4, 139)
    assert {(recipe.place(name).gpus, recipe.place(name).gpu_gib) for name in recipe.training} == {(4, 139)}
    degrees = [recipe.training[name].parallel for name in ("sft", "if_rl", "code_rl")]
    assert [(each.expert, each.context) for each in degrees] == [(4, 4), (4, 1), (4, 2)]
    assert all(each.checkpoint_activations for each in degrees)
    assert lowered[0] == "sft: parallel.expert 4 instead of 8, context 4 instead of 8: the node has 4 GPUs"
    # 18 bytes a parameter over four cards: 132 GiB of each, before anything is computed.
    found = fit(recipe, "sft", Layout(ROOT))
    assert found.plan.weights + found.plan.gradients + found.plan.optimizer == 18 * shape_of(LARGE).parameters / 4
    assert found.refused is not None
    assert found.refused.endswith("optimizer take 88.2: use more GPUs (enough: 8 GPUs)")
    eight, lowered = on_cards(load(PAPER), 8, 139)
    assert not lowered
    assert fit(eight, "sft", Layout(ROOT)).refused is None
    # Nothing more is changed than has to be.
    refused = {name: fit(eight, name, Layout(ROOT)).refused or "" for name in ("mopd", "code_rl", "rlhf_repair")}
    assert refused["mopd"].endswith(" (enough: parallel.keep_gathered: false, teacher_memory: host)")
    assert refused["code_rl"].endswith(" (enough: parallel.keep_gathered: false)")
    assert refused["rlhf_repair"].endswith(" (enough: teacher_memory: host)")


def test_engine_hf_holds_all_of_it_on_each_gpu() -> None:
    recipe, shape = load(ROOT / "recipes" / "nano-mopd.yaml"), shape_of(ROOT / "models" / "base" / "config.json")
    found = plan_node(shape, recipe.training["sft"], 1, longest=512, teachers=0)
    assert (found.weights, found.gradients, found.optimizer) == tuple(x * shape.parameters for x in (4, 4, 8))
    assert found.activations == 8192 * shape.kept(False, False) * AUTOCAST


def test_the_paper_s_recipe_fits_machines_of_8_times_80_gb() -> None:
    recipe = load(PAPER)
    lines, refused = table(recipe, list(recipe.training), Layout(ROOT))
    assert not refused
    assert len(lines) == 1 + len(recipe.training)
    assert all(recipe.place(name).gpus == 8 and recipe.place(name).gpu_gib == 79 for name in recipe.training)


def test_teachers_that_wait_elsewhere_take_room_for_two() -> None:
    one_gpu = {"engine": "hf", "parallel": {}}
    for others, settings in ((4, one_gpu), (2, one_gpu | {"teacher_memory": "host"})):
        recipe = changed(**settings)
        found = plan(recipe, "mopd", Layout(ROOT))
        assert resident_models(recipe, "mopd") == others
        assert found.teachers == others * found.weights


def test_what_does_not_fit_is_refused_with_a_remedy() -> None:
    recipe = changed(parallel={"expert": 8})
    with pytest.raises(
        CascadeError, match=r"^mopd: needs \d+\.\d GiB of each GPU, .*activations take .*: set parallel.ch"
    ):
        check(recipe, "mopd", Layout(ROOT))


def test_a_base_model_that_nobody_knows(tmp_path: Path) -> None:
    base = load(PAPER).base
    with pytest.raises(
        CascadeError, match=rf"config\.json: no such file, nor .*: `cascade import SOURCE --out {base}`$"
    ):
        plan(load(PAPER), "mopd", Layout(tmp_path))
    (tmp_path / "recipes" / "base").mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / "base" / "one-gpu.yaml", tmp_path / "recipes" / "base")
    with pytest.raises(CascadeError, match=r"`cascade pretrain recipes/base/one-gpu.yaml --out models/one-gpu`$"):
        plan(load(ROOT / "recipes" / "one-gpu.yaml"), "sft", Layout(tmp_path))
    (tmp_path / "recipes" / "base" / LARGE.name).write_text("{}")
    with pytest.raises(CascadeError, match="not the configuration of a causal language model"):
        plan(load(PAPER), "mopd", Layout(tmp_path))


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["recipe", "plan", "nemotron-cascade-2-30b-a3b"])
    assert done.exit_code == 0, done.output
    assert "swe_agentic_rl" in done.output
    done = CliRunner().invoke(main, ["recipe", "plan", "nemotron-cascade-2-30b-a3b", "--gpus", "64"])
    assert done.exit_code == 1
    assert "--gpus and --gpu-gib name cards together" in done.output
    done = CliRunner().invoke(main, ["recipe", "plan", "nemotron-cascade-2-30b-a3b", "--gpus", "4", "--gpu-gib", "79"])
    assert done.exit_code == 1
    assert "if_rl: parallel.expert 4 instead of 8: the node has 4 GPUs" in done.output
    assert "Error: sft: needs" in done.output
    content = yaml.safe_load(PAPER.read_text())
    content["pools"]["sft"] = {"gpus": 1, "gpu_gib": 79}
    text = yaml.safe_dump(content, sort_keys=False)
    (tmp_path / "one.yaml").write_text(text)
    done = CliRunner().invoke(main, ["recipe", "plan", "one.yaml"])
    assert done.exit_code == 1
    assert "Error: sft: needs" in done.output


def _product(size: list[int]) -> int:
    found = 1
    for length in size:
        found *= length
    return found
