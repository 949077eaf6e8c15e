"""Fake-quantised policies, the directory that they write, and what is read from it."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascade.errors import CheckpointError
from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.policy.quantization.fake import targets
from cascade.policy.quantization.formats import FORMATS, dequantize, fake_quantized, unpack
from cascade.recipe import Optimizer, Quantization
from cascade.utils.files import hash_directory, read_json, write_json
from tests.training.miniature import VOCABULARY, make_checkpoint, make_hybrid

OPTIMIZER = Optimizer(learning_rate=0.01, micro_batch_tokens=64)


def rows(count: int = 3, seed: int = 0) -> list[Sequence]:
    ids = torch.randint(6, len(VOCABULARY), (count, 12), generator=torch.Generator().manual_seed(seed)).tolist()
    return [Sequence(row, [False] * 3 + [True] * 9) for row in ids]


def quantized(form: str, keep: tuple[str, ...] = ("lm_head",)) -> Quantization:
    return Quantization.model_validate({"format": form, "keep": keep})


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hybrid(tmp_path_factory.mktemp("hybrid") / "model", 0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("llama") / "model", 0)


# Which weights


def test_linear_layers_and_experts_are_quantised_and_nothing_else(hybrid: Path):
    found = targets(HFPolicy(hybrid).model, ("lm_head",))
    layers = {name.removeprefix("model.layers.") for name in found}
    expert_layers = {
        f"{n}.mixer.{part}"
        for n in (1, 3)
        for part in (
            "experts.up_proj",
            "experts.down_proj",
            "shared_experts.up_proj.weight",
            "shared_experts.down_proj.weight",
        )
    }
    assert layers == {
        "0.mixer.in_proj.weight", "0.mixer.out_proj.weight",
        *(f"2.mixer.{part}_proj.weight" for part in "qkvo"), *expert_layers,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (("lm_head", "experts.*", "in_proj"), 6 + 4 - 1),
        (("lm_head", "layers.0.*", "layers.3.*"), 4 + 4),
        (("*proj",), 1),
        ((), 2 + 4 + 8 + 1),
    ],
)
def test_layers_that_are_kept_are_named_by_the_ends_of_their_names(hybrid: Path, keep: tuple[str, ...], left: int):
    assert len(targets(HFPolicy(hybrid).model, keep)) == left


@pytest.mark.parametrize("entry", ["in_prj", "layers.0", "experts", "backbone.layers.0.*"])
def test_a_name_that_no_layer_has_is_refused(hybrid: Path, entry: str):
    line = rf"^keep: no layer is called {re.escape(entry)}; they are called model\.layers\.0\.mixer\.in_proj, "
    with pytest.raises(CheckpointError, match=line):
        targets(HFPolicy(hybrid).model, ("lm_head", entry))


def test_what_stays_anyway_may_be_named(hybrid: Path):
    model = HFPolicy(hybrid).model
    assert targets(model, ("lm_head", "gate", "embeddings")).keys() == targets(model, ("lm_head",)).keys()


def test_a_head_that_is_the_embeddings_stays(llama: Path):
    model = HFPolicy(llama).model
    model.lm_head.weight = model.model.embed_tokens.weight
    assert "lm_head.weight" not in targets(model, ())


def test_nothing_left_to_quantise_is_an_error(llama: Path):
    with pytest.raises(CheckpointError, match=r"^keep: \*: no layer is left to quantise$"):
        HFPolicy(llama, quantization=quantized("int8", ("*",)))


def test_a_matrix_that_does_not_divide_into_blocks_is_named(llama: Path):
    line = r"^model.layers.0.self_attn.q_proj.weight: 16 inputs are no multiple of the block of 32; name it in `keep`$"
    with pytest.raises(CheckpointError, match=line):
        HFPolicy(llama, quantization=quantized("int4"))


def test_the_model_computes_with_quantised_weights(llama: Path):
    plain, policy = HFPolicy(llama), HFPolicy(llama, quantization=quantized("nvfp4"))
    layer, theirs = policy.model.model.layers[0], plain.model.model.layers[0]
    torch.testing.assert_close(
        layer.mlp.down_proj.weight, fake_quantized(theirs.mlp.down_proj.weight.detach(), FORMATS["nvfp4"])
    )
    # The projections of one input share the scale of the whole, as engines join them.
    joined = torch.cat([getattr(theirs.self_attn, f"{part}_proj").weight.detach() for part in "qkv"])
    ours = torch.cat([getattr(layer.self_attn, f"{part}_proj").weight.detach() for part in "qkv"])
    torch.testing.assert_close(ours, fake_quantized(joined, FORMATS["nvfp4"]))
    assert torch.equal(layer.input_layernorm.weight, theirs.input_layernorm.weight)
    assert torch.equal(policy.model.lm_head.weight, plain.model.lm_head.weight)


# Training


def test_the_gradient_of_a_full_weight_is_that_of_its_quantised_one(llama: Path):
    policy = HFPolicy(llama, OPTIMIZER, quantization=quantized("int8"))
    before = {name: weight.detach().clone() for name, weight in policy._quantized.weights.items()}
    twin = HFPolicy(llama)
    twin.model.load_state_dict(policy.model.state_dict())
    log_probs, _, _ = twin._forward(next(iter(twin._split(rows(), 1))))
    (-log_probs.mean()).backward()
    expected = {name: twin.model.get_parameter(name).grad for name in before}
    total = sum(sum(row.trained) for row in rows())
    policy.step(rows(), lambda values, index: -values.sum() / total, 0.0)
    for name, gradient in expected.items():
        # Clipped to norm 1 by the step.
        found = policy._quantized.weights[name].grad
        cosine = torch.nn.functional.cosine_similarity(found.flatten(), gradient.flatten(), dim=0)
        assert cosine > 0.9999


@pytest.mark.parametrize("form", ["fp8", "nvfp4", "int8"])
def test_distillation_brings_the_quantised_model_closer(hybrid: Path, form: str):
    teacher, policy = HFPolicy(hybrid), HFPolicy(hybrid, OPTIMIZER, quantization=quantized(form))
    for weight in policy._quantized.weights.values():
        weight.data.mul_(1.3)
    policy._quantized.refresh()
    before = policy.forward_kl(rows(), teacher).mean()
    total = sum(sum(row.trained) for row in rows())
    for _ in range(20):
        report = policy.distill(rows(), teacher, lambda values, index: values.sum() / total, 3e-3)
    after = policy.forward_kl(rows(), teacher).mean()
    assert after < 0.5 * before
    assert report.loss < before


def test_killed_it_goes_on_with_the_same_weights(hybrid: Path):
    settings = quantized("nvfp4")
    total = sum(sum(row.trained) for row in rows())
    step = lambda policy: policy.step(rows(), lambda values, index: -values.sum() / total, 0.01)  # noqa: E731
    whole = HFPolicy(hybrid, OPTIMIZER, quantization=settings)
    step(whole)
    state = whole.training_state()
    step(whole)
    resumed = HFPolicy(hybrid, OPTIMIZER, quantization=settings)
    resumed.load_training_state(state)
    step(resumed)
    for name, value in whole.training_state().items():
        torch.testing.assert_close(resumed.training_state()[name], value, rtol=0, atol=0)


# What is written


@pytest.mark.parametrize("form", ["fp8", "nvfp4", "int8"])
@pytest.mark.parametrize("kind", ["llama", "hybrid"])
def test_what_was_written_computes_the_same(form: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    policy = HFPolicy(request.getfixturevalue(kind), quantization=quantized(form))
    before = policy.score(rows()).log_probs
    policy.save(tmp_path / "written")
    loaded = HFPolicy(tmp_path / "written")
    torch.testing.assert_close(loaded.score(rows()).log_probs, before, rtol=0, atol=0)
    torch.testing.assert_close(policy.score(rows()).log_probs, before, rtol=0, atol=0)
    assert loaded.model.generation_config.eos_token_id == policy.model.generation_config.eos_token_id


def test_narrow_weights_that_are_kept_stay_in_their_type(llama: Path, tmp_path: Path):
    narrow = tmp_path / "narrow"
    HFPolicy(llama).model.bfloat16().save_pretrained(narrow)
    HFPolicy(llama).tokenizer.save_pretrained(narrow)
    policy = HFPolicy(narrow, OPTIMIZER, quantization=quantized("int8"))
    total = sum(sum(row.trained) for row in rows())
    policy.step(rows(), lambda values, index: -values.sum() / total, 0.01)
    policy.save(tmp_path / "written")
    assert load_file(tmp_path / "written" / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    loaded = HFPolicy(tmp_path / "written")
    torch.testing.assert_close(loaded.score(rows()).log_probs, policy.score(rows()).log_probs, rtol=0, atol=0)


def test_experts_are_written_one_by_one_with_their_scales(hybrid: Path, tmp_path: Path):
    policy = HFPolicy(hybrid, quantization=quantized("nvfp4"))
    policy.save(tmp_path / "written")
    tensors = load_file(tmp_path / "written" / "model.safetensors")
    experts = policy.model.model.layers[1].mixer.experts.up_proj
    for number in range(4):
        prefix = f"backbone.layers.1.mixer.experts.{number}.up_proj."
        stored = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        torch.testing.assert_close(dequantize(unpack(stored, FORMATS["nvfp4"])), experts[number], rtol=0, atol=0)


def test_the_configuration_says_how_and_what_is_left_out(hybrid: Path, tmp_path: Path):
    HFPolicy(hybrid, quantization=quantized("int8", ("lm_head", "in_proj"))).save(tmp_path / "written")
    settings = read_json(tmp_path / "written" / "config.json")["quantization_config"]
    assert (settings["quant_method"], settings["format"]) == ("compressed-tensors", "pack-quantized")
    assert settings["config_groups"]["group_0"]["weights"]["num_bits"] == 8
    assert settings["config_groups"]["group_0"]["input_activations"] is None
    assert settings["ignore"] == [
        "backbone.layers.0.mixer.in_proj",
        "backbone.layers.1.mixer.gate",
        "backbone.layers.3.mixer.gate",
        "lm_head",
    ]


def test_several_files_are_written_as_one_would_be(hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    policy = HFPolicy(hybrid, quantization=quantized("nvfp4"))
    write = type(policy.model).save_pretrained
    sharded = lambda self, *a, **named: write(self, *a, max_shard_size="8KB", **named)  # noqa: E731
    monkeypatch.setattr(type(policy.model), "save_pretrained", sharded)
    policy.save(tmp_path / "written")
    index = read_json(tmp_path / "written" / "model.safetensors.index.json")
    held = {name: path.name for path in (tmp_path / "written").glob("*.safetensors") for name in load_file(path)}
    assert len(set(held.values())) > 1
    assert index["weight_map"] == held
    loaded = HFPolicy(tmp_path / "written")
    torch.testing.assert_close(loaded.score(rows()).log_probs, policy.score(rows()).log_probs, rtol=0, atol=0)


def test_equal_weights_give_equal_bytes(hybrid: Path, tmp_path: Path):
    for name in ("one", "two"):
        HFPolicy(hybrid, quantization=quantized("fp8")).save(tmp_path / name)
    assert hash_directory(tmp_path / "one") == hash_directory(tmp_path / "two")


def test_a_quantised_checkpoint_is_copied_and_not_trained(llama: Path, tmp_path: Path):
    HFPolicy(llama, quantization=quantized("fp8")).save(tmp_path / "written")
    HFPolicy(tmp_path / "written").save(tmp_path / "copy")
    assert hash_directory(tmp_path / "written") == hash_directory(tmp_path / "copy")
    with pytest.raises(CheckpointError, match=r"written: quantised; train from what it was quantised from$"):
        HFPolicy(tmp_path / "written", OPTIMIZER)


# What is not read


@pytest.fixture
def written(llama: Path, tmp_path: Path) -> Path:
    HFPolicy(llama, quantization=quantized("nvfp4")).save(tmp_path / "written")
    return tmp_path / "written"


def change_weights(directory: Path, change) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_checkpoint_whose_configuration_says_null_is_a_plain_one(llama: Path):
    config = read_json(llama / "config.json")
    write_json(llama / "config.json", {**config, "quantization_config": None})
    HFPolicy(llama)


def test_a_missing_scale_is_named(written: Path):
    change_weights(written, lambda t: t.pop("model.layers.0.mlp.up_proj.weight_scale"))
    line = r"written: model.layers.0.mlp.up_proj: no weight_scale; its files do not have the format that config"
    with pytest.raises(CheckpointError, match=line):
        HFPolicy(written)


def test_a_missing_matrix_is_named(written: Path):
    def remove(tensors: dict) -> None:
        for name in [name for name in tensors if ".up_proj." in name]:
            del tensors[name]

    change_weights(written, remove)
    with pytest.raises(CheckpointError, match=r"missing keys: model.layers.0.mlp.up_proj.weight"):
        HFPolicy(written)


def test_another_way_of_quantising_is_named(written: Path):
    config = read_json(written / "config.json")
    write_json(written / "config.json", {**config, "quantization_config": {"quant_method": "awq"}})
    with pytest.raises(CheckpointError, match=r"written: quantised in a way that is not read here \(awq, None\); give"):
        HFPolicy(written)
