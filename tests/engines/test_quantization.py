"""Codes, scales and layouts beside those of the libraries whose formats they are; and vLLM on what is written."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-engines` has it")

from cascade.errors import CascadeError
from cascade.policy.base import Sequence
from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.policy.quantization.formats import FORMATS, config_group, dequantize, pack, quantize
from cascade.recipe import Quantization
from cascade.rollout import make_sampler
from cascade.rollout.vllm_engine.local import has_avx512
from tests.engines.test_vllm import SETTINGS, requests, sequences
from tests.training.miniature import VOCABULARY, make_tokenizer

REASON = "compressed-tensors is not here; `make test-engines` installs it"
compressors = pytest.importorskip("compressed_tensors.compressors", reason=REASON)
quantization = pytest.importorskip("compressed_tensors.quantization", reason=REASON)

COMPRESSORS = {
    "float-quantized": compressors.naive_quantized.FloatQuantizationCompressor,
    "nvfp4-pack-quantized": compressors.nvfp4.NVFP4PackedCompressor,
    "pack-quantized": compressors.pack_quantized.PackedQuantizationCompressor,
}


@pytest.fixture
def weight() -> torch.Tensor:
    return 0.05 * torch.randn(48, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FORMATS)
def test_compressed_tensors_reads_and_writes_the_same(name: str, weight: torch.Tensor):
    form = FORMATS[name]
    scheme = quantization.QuantizationScheme(**config_group(form))
    compressor = COMPRESSORS[form.storage]
    stored = pack(quantize(weight, form), form)
    read = compressor.decompress({part: tensor.clone() for part, tensor in stored.items()}, scheme)
    # It computes in the type of the scales.
    torch.testing.assert_close(read["weight"].float(), dequantize(quantize(weight, form)), rtol=2**-8, atol=1e-5)
    scales = {part: tensor for part, tensor in stored.items() if part.endswith("scale")}
    if form.nested:
        scales["weight_scale"] = scales["weight_scale"].float()
    codes = "weight" if form.storage == "float-quantized" else "weight_packed"
    written = compressor.compress({"weight": weight, **scales}, scheme)
    assert torch.equal(written[codes].view(torch.uint8), stored[codes].view(torch.uint8))


@pytest.mark.parametrize("name", FORMATS)
def test_compressed_tensors_has_the_same_scales(name: str, weight: torch.Tensor):
    form = FORMATS[name]
    blocks = weight.unflatten(1, (-1, form.block or 96))
    whole = quantization.utils.generate_gparam(weight.min(), weight.max()) if form.nested else None
    scales, _ = quantization.utils.calculate_qparams(
        blocks.amin(-1),
        blocks.amax(-1),
        quantization.QuantizationArgs(**config_group(form)["weights"]),
        global_scale=whole,
    )
    stored = pack(quantize(weight, form), form)
    assert torch.equal(scales.to(stored["weight_scale"].dtype).float(), stored["weight_scale"].float())
    if whole is not None:
        assert torch.equal(whole, stored["weight_global_scale"])


def test_model_optimizer_has_the_same_nvfp4(weight: torch.Tensor):
    qtensor = pytest.importorskip("modelopt.torch.quantization.qtensor", reason="nvidia-modelopt is not installed")
    theirs, scales, whole = qtensor.NVFP4QTensor.quantize(weight, 16)
    ours = pack(quantize(weight, FORMATS["nvfp4"]), FORMATS["nvfp4"])
    assert torch.equal(theirs._quantized_data, ours["weight_packed"])
    assert torch.equal(scales.float(), ours["weight_scale"].float())
    torch.testing.assert_close(1 / whole.reshape(1), ours["weight_global_scale"])


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A tiny Qwen3: of four bits vLLM's CPU build has no kernel for experts, and none for widths that are no multiple
    of 32."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=96,
        max_position_embeddings=256,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.2,
    )
    save_checkpoint(Qwen3ForCausalLM(config), make_tokenizer(), tmp_path / "dense")
    return tmp_path / "dense"


def in_vllm(policy: HFPolicy) -> tuple[list[Sequence], torch.Tensor]:
    """What vLLM samples from the policy's directory, and its log-probabilities."""
    sampler = make_sampler(SETTINGS, policy)
    try:
        samples = sampler.sample(requests(24), max_new_tokens=24)
    finally:
        sampler.close()
    return sequences(requests(24), samples), torch.tensor([x for sample in samples for x in sample.log_probs])


@pytest.fixture
def int4(dense: Path, tmp_path: Path) -> HFPolicy:
    HFPolicy(dense, quantization=Quantization(format="int4")).save(tmp_path / "int4")
    return HFPolicy(tmp_path / "int4")


@pytest.mark.skipif(not has_avx512(), reason="vLLM's CPU build multiplies by int4 with AVX-512 alone")
def test_vllm_computes_with_the_weights_that_were_written(dense: Path, int4: HFPolicy):
    sampled, theirs = in_vllm(int4)
    gap, gap_to_full = ((of.score(sampled).log_probs - theirs).abs().mean().item() for of in (int4, HFPolicy(dense)))
    # It computes in bfloat16, which without quantisation leaves 0.017 nats; what four bits change is 0.4.
    assert gap < 0.04
    assert gap_to_full > 5 * gap


def test_without_avx512_int4_is_refused_before_an_engine_starts(int4: HFPolicy, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_f": False})
    with pytest.raises(CascadeError, match=r"multiplies by int4 with AVX-512 alone.*; set rollout.engine to torch"):
        in_vllm(int4)


def test_vllm_rounds_the_activations_of_fp8(dense: Path, tmp_path: Path):
    """To e4m3 with a scale for each token, as config.json asks; ours computes with what is rounded of the weights
    alone."""
    HFPolicy(dense, quantization=Quantization(format="fp8")).save(tmp_path / "fp8")
    ours, rounding = HFPolicy(tmp_path / "fp8"), HFPolicy(tmp_path / "fp8")
    for name, module in rounding.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(rounded_by_tokens)
    sampled, theirs = in_vllm(ours)
    exact, rounded = (of.score(sampled).log_probs for of in (ours, rounding))
    changes = torch.stack([theirs - exact, rounded - exact])
    # That it computes in bfloat16 besides shifts what is rounded up and what down.
    assert 0.7 < changes[0].std() / changes[1].std() < 1.4
    assert torch.corrcoef(changes)[0, 1] > 0.3


def rounded_by_tokens(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    scale = (inputs[0].abs().amax(-1, keepdim=True) / 448).clamp(min=1e-12)
    return (inputs[0] / scale).to(torch.float8_e4m3fn).float() * scale
