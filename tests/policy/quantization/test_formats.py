"""Codes and scales against values computed by hand, in float64."""

import math

import pytest
import torch

from cascade.policy.quantization.formats import (
    E2M1,
    FORMATS,
    Quantized,
    config_group,
    dequantize,
    fake_quantized,
    format_of,
    pack,
    quantize,
    unpack,
)


def values(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def matrix(outputs: int = 48, inputs: int = 96, seed: int = 0) -> torch.Tensor:
    return 0.05 * torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def e4m3_by_hand(x: float) -> float:
    """The nearest 8-bit float with 4 bits of exponent (bias 7) and 3 of mantissa, ties to even, in Python's floats."""
    magnitude = min(abs(x), 448.0)
    exponent = max(-6, math.floor(math.log2(magnitude))) if magnitude else -6
    step = 2.0 ** (exponent - 3)
    return math.copysign(round(magnitude / step) * step, x)  # round() is to even.


def e2m1_by_hand(x: float) -> float:
    magnitude = min(abs(x), 6.0)
    best = min(E2M1, key=lambda v: (abs(v - magnitude), E2M1.index(v) % 2))
    return math.copysign(best, x)


# Number tables


def test_every_middle_of_two_4_bit_floats_goes_to_the_even_one():
    # A row whose largest magnitude is 6 has scale 1 where the matrix's is 6 · 448.
    middles = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    row = [*middles, *(-m for m in middles), 6.0, 0.0]
    found = quantize(values(row, [6.0 * 448] + [0.0] * 15), FORMATS["nvfp4"])
    assert found.scale[0].tolist() == [1.0]
    expected = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert found.codes[0].tolist() == [*expected, *(-v for v in expected), 6.0, 0.0]


@pytest.mark.parametrize("seed", range(3))
def test_4_bit_floats_are_the_nearest(seed: int):
    weight = matrix(8, 64, seed)
    found = quantize(weight, FORMATS["nvfp4"])
    steps = (found.scale.double() / found.matrix.double()).tolist()  # type: ignore[union-attr]
    for row, (weights, codes) in enumerate(zip(weight.tolist(), found.codes.tolist(), strict=True)):
        for column, (w, code) in enumerate(zip(weights, codes, strict=True)):
            assert code == e2m1_by_hand(w / steps[row][column // 16])


@pytest.mark.parametrize("seed", range(3))
def test_8_bit_floats_are_the_nearest(seed: int):
    weight = matrix(8, 64, seed)
    found = quantize(weight, FORMATS["fp8"])
    for weights, codes, (scale,) in zip(weight.tolist(), found.codes.tolist(), found.scale.tolist(), strict=True):
        assert scale == pytest.approx(max(map(abs, weights)) / 448, rel=1e-6)
        assert codes == [e4m3_by_hand(w / scale) for w in weights]
        assert max(map(abs, codes)) == 448.0


# Scales of blocks


def test_the_scales_of_nvfp4_by_hand():
    # Largest magnitudes of the blocks of 16: 3, 1.5, 0.3; of the matrix: 3.
    blocks = [[3.0] + [0.0] * 15, [-1.5] + [0.0] * 15, [0.3, 0.1] + [0.0] * 14]
    found = quantize(torch.tensor(blocks).view(1, -1), FORMATS["nvfp4"])
    of_all = 6.0 * 448.0 / 3.0
    assert found.matrix is not None
    assert found.matrix.item() == of_all == 896.0
    # 3 / 6 · 896 = 448; 1.5 / 6 · 896 = 224; 0.3 / 6 · 896 = 44.8, of which the nearest 8-bit float is 44.
    assert found.scale[0].tolist() == [448.0, 224.0, 44.0]
    assert found.codes[0, [0, 16, 32]].tolist() == [6.0, -6.0, 6.0]
    # 0.1 / (44 / 896) = 2.036, the nearest is 2: stored as 2 · 44 / 896.
    assert dequantize(found)[0, 33].item() == pytest.approx(2 * 44 / 896, rel=1e-6)
    assert dequantize(found)[0, 32].item() == pytest.approx(6 * 44 / 896, rel=1e-6)


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4", 4), ("int2", 2)])
def test_the_scales_of_integers_by_hand(name: str, bits: int):
    form, weight = FORMATS[name], matrix(4, 64)
    found = quantize(weight, form)
    size = form.block or 64
    for row in range(4):
        for block in range(64 // size):
            part = weight[row, block * size : (block + 1) * size].double()
            exact = part.abs().max() / ((2**bits - 1) / 2)
            scale = found.scale[row, block].double()
            assert abs(scale - exact) <= exact * 2**-8  # Stored in bfloat16.
            codes = (part / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            torch.testing.assert_close(found.codes[row, block * size : (block + 1) * size].double(), codes)


def test_a_block_of_zeros_stays_zero():
    weight = matrix()
    weight[3] = 0
    for form in FORMATS.values():
        assert fake_quantized(weight, form)[3].eq(0).all()
        assert fake_quantized(torch.zeros(2, 32), form).eq(0).all()


@pytest.mark.parametrize(("name", "largest"), [("fp8", 0.03), ("nvfp4", 0.1), ("int8", 0.01), ("int4", 0.1)])
def test_the_relative_error_is_that_of_the_format(name: str, largest: float):
    weight = matrix()
    error = (fake_quantized(weight, FORMATS[name]) - weight).norm() / weight.norm()
    assert largest / 2 < error < largest


@pytest.mark.parametrize("name", FORMATS)
def test_stacked_experts_are_quantised_one_by_one(name: str):
    experts = torch.stack([matrix(seed=seed) * 10**seed for seed in range(3)])
    together = fake_quantized(experts, FORMATS[name])
    for expert, found in zip(experts, together, strict=True):
        torch.testing.assert_close(fake_quantized(expert, FORMATS[name]), found, rtol=0, atol=0)


def test_inputs_that_do_not_divide_into_blocks_are_refused():
    with pytest.raises(ValueError, match=r"^40 inputs are no multiple of the block of 32$"):
        quantize(matrix(4, 40), FORMATS["int4"])


# Storage


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("inputs", [32, 96])
def test_what_is_stored_is_what_was_quantised(name: str, inputs: int):
    form = FORMATS[name]
    found = quantize(matrix(6, inputs), form)
    again = unpack(pack(found, form), form)
    torch.testing.assert_close(dequantize(again), dequantize(found), rtol=0, atol=0)


def test_the_packed_layouts_by_hand():
    # Integers: the lowest bits first, plus 2^(bits-1). Of four bits: -8 … -1 are 0 … 7.
    codes = torch.arange(-8, 0).float().repeat(1, 4)
    packed = pack(Quantized(codes, torch.ones(1, 1).bfloat16()), FORMATS["int4"])
    assert packed["weight_packed"].tolist() == [[0x76543210] * 4]
    assert packed["weight_shape"].tolist() == [1, 32]
    # 4-bit floats: two a byte, the first in the lower half; 8 is the sign.
    codes = torch.tensor([[0.5, -6.0] + [0.0] * 14])
    found = Quantized(codes, torch.ones(1, 1).to(torch.float8_e4m3fn), torch.full((1, 1), 2.0))
    packed = pack(found, FORMATS["nvfp4"])
    assert packed["weight_packed"].tolist() == [[0xF1] + [0] * 7]
    assert packed["weight_global_scale"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("nvfp4", lambda s: s.pop("weight_scale"), "no weight_scale"),
        ("nvfp4", lambda s: s.pop("weight_global_scale"), "no weight_global_scale"),
        (
            "int4",
            lambda s: s.update(weight_scale=s["weight_scale"][:2]),
            r"weight_scale is \(2, 3\) for 6 outputs of 3 b",
        ),
        ("fp8", lambda s: s.update(weight_scale=s["weight_scale"].half()), "weight_scale is float16, not float32"),
        ("int2", lambda s: s.update(weight_packed=s["weight_packed"][:4]), "weight_packed is of .* says 6 × 96"),
    ],
)
def test_parts_that_do_not_fit_are_named(name: str, change, line: str):
    stored = pack(quantize(matrix(6, 96), FORMATS[name]), FORMATS[name])
    change(stored)
    with pytest.raises(ValueError, match=line):
        unpack(stored, FORMATS[name])


def test_scales_of_fp8_may_be_in_bfloat16_as_llm_compressor_writes_them():
    stored = pack(quantize(matrix(6, 96), FORMATS["fp8"]), FORMATS["fp8"])
    stored["weight_scale"] = stored["weight_scale"].bfloat16()
    expected = stored["weight"].float() * stored["weight_scale"].float()
    assert torch.equal(dequantize(unpack(stored, FORMATS["fp8"])), expected)


def test_formats_are_recognised_by_their_description():
    for form in FORMATS.values():
        assert format_of(config_group(form)) == form
        assert format_of({**config_group(form), "input_activations": None}) == form
    group = config_group(FORMATS["int4"])
    assert format_of({**group, "weights": {**group["weights"], "group_size": 128}}) is None
    assert format_of({**group, "input_activations": {"num_bits": 8}}) is None
    assert format_of(None) is None


def test_only_fp8_has_engines_round_activations_and_stores_nothing_for_it():
    """vLLM has no kernel for experts in FP8 but those that round activations."""
    rounded = {name: config_group(form)["input_activations"] for name, form in FORMATS.items()}
    assert rounded.pop("fp8") == {
        "num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True
    }  # fmt: skip
    assert set(rounded.values()) == {None}
    group = config_group(FORMATS["fp8"])
    static = {**group["input_activations"], "strategy": "tensor", "dynamic": False}
    assert format_of({**group, "input_activations": static}) is None
