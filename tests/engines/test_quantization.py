"""Codes, scales and layouts beside those of the libraries whose formats they are."""

import pytest
import torch

from cascade.policy.quantization.formats import FORMATS, config_group, dequantize, pack, quantize

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
