"""Number formats of quantised weights: codes, scales, and how both are stored.

Only weights are quantised here; engines may round activations too (`Format.activations`). A matrix is [outputs,
inputs]; each scale is of a block of inputs of one output. The stored tensors have the names and layouts of
compressed-tensors, which vLLM and transformers read (`config_group`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The magnitudes of a 4-bit float with 2 bits of exponent and 1 of mantissa; its code is the place, plus 8 if negative.
"""
E4M3_MAX = 448.0
NVFP4_RANGE = E2M1[-1] * E4M3_MAX
"""The largest magnitude that NVFP4 stores, before its scale of the whole matrix."""


@dataclass(frozen=True)
class Format:
    bits: int
    kind: str
    """int: symmetric integers; float: e4m3 for 8 bits, e2m1 for 4."""
    block: int | None
    """Inputs that share a scale; None: all of an output."""

    @property
    def nested(self) -> bool:
        """Whether the blocks' scales are 8-bit floats themselves, with one scale for the matrix."""
        return self.kind == "float" and self.bits == 4

    @property
    def activations(self) -> dict[str, Any] | None:
        """What an engine rounds activations to before the product; None: it leaves them as they come. Nothing is stored
        for it: each token's scale is computed as it comes."""
        if self.kind == "float" and self.bits == 8:
            return {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
        return None

    @property
    def storage(self) -> str:
        """compressed-tensors' name for the layout."""
        if self.kind == "int":
            return "pack-quantized"
        return "nvfp4-pack-quantized" if self.nested else "float-quantized"


FORMATS = {
    "fp8": Format(8, "float", None),
    "nvfp4": Format(4, "float", 16),
    "int8": Format(8, "int", None),
    "int4": Format(4, "int", 32),
    "int2": Format(2, "int", 32),
}


@dataclass(frozen=True)
class Quantized:
    """Weights are `codes` times `scale`. Dimensions before the last two are of further matrices."""

    codes: Tensor
    """[…, outputs, inputs], float32: the values of the format."""
    scale: Tensor
    """[…, outputs, blocks]: float32, bfloat16 for integers, e4m3 where it is multiplied by 1 / `matrix`."""
    matrix: Tensor | None = None
    """[…, 1, 1] float32: NVFP4's scale of the whole matrix, stored as its reciprocal."""


def quantize(weight: Tensor, form: Format, largest: Tensor | None = None) -> Quantized:
    """[…, outputs, inputs] → the nearest values of the format; ties to even. Each scale maps its block's largest
    magnitude to the format's.

    `largest` […, 1, 1]: for NVFP4, the largest magnitude of the matrices that share the scale of the whole; by default
    the matrix's own. Raises ValueError where the inputs are not a multiple of the block.
    """
    weight = weight.float()
    blocks = _blocks(weight, form)
    peak = blocks.abs().amax(-1)
    matrix = None
    if form.nested:
        largest = weight.abs().amax((-2, -1), keepdim=True) if largest is None else largest
        matrix = torch.where(largest > 0, NVFP4_RANGE / largest, torch.ones_like(largest))
        scale = (peak / E2M1[-1] * matrix).clamp(max=E4M3_MAX).to(torch.float8_e4m3fn)
    elif form.kind == "float":
        scale = peak / E4M3_MAX
    else:
        scale = (peak / (2**form.bits - 1) * 2).bfloat16()
    step = _step(scale, matrix).unsqueeze(-1)
    units = torch.where(step > 0, blocks / step, torch.zeros_like(blocks))
    if form.nested:
        codes = _nearest_e2m1(units)
    elif form.kind == "float":
        codes = units.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).float()
    else:
        codes = units.round().clamp(-(2 ** (form.bits - 1)), 2 ** (form.bits - 1) - 1)
    return Quantized(codes.view_as(weight), scale, matrix)


def dequantize(found: Quantized) -> Tensor:
    """[…, outputs, inputs], float32."""
    step = _step(found.scale, found.matrix)
    return (found.codes.unflatten(-1, (step.shape[-1], -1)) * step.unsqueeze(-1)).view_as(found.codes)


def fake_quantized(weight: Tensor, form: Format, largest: Tensor | None = None) -> Tensor:
    """The weights as they are after quantising them and back."""
    return dequantize(quantize(weight, form, largest))


def pack(found: Quantized, form: Format) -> dict[str, Tensor]:
    """One matrix as it is stored, by the ends of the tensors' names."""
    if form.kind == "int":
        offset = (found.codes + 2 ** (form.bits - 1)).to(torch.int32)
        per_word = 32 // form.bits
        words = torch.nn.functional.pad(offset, (0, -offset.shape[-1] % per_word)).unflatten(-1, (-1, per_word))
        shifts = torch.arange(0, per_word * form.bits, form.bits, dtype=torch.int32, device=offset.device)
        packed = (words << shifts).sum(-1, dtype=torch.int32)
        return {"weight_packed": packed, "weight_scale": found.scale, "weight_shape": torch.tensor(found.codes.shape)}
    if form.nested:
        assert found.matrix is not None
        grid = torch.tensor(E2M1, device=found.codes.device)
        places = torch.searchsorted(grid, found.codes.abs()) + 8 * found.codes.signbit()
        low, high = places.unflatten(-1, (-1, 2)).unbind(-1)
        packed = (low + 16 * high).to(torch.uint8)
        return {
            "weight_packed": packed,
            "weight_scale": found.scale,
            "weight_global_scale": found.matrix.reshape(1),
        }
    return {"weight": found.codes.to(torch.float8_e4m3fn), "weight_scale": found.scale}


def unpack(stored: dict[str, Tensor], form: Format) -> Quantized:
    """The inverse of `pack`. Raises ValueError naming a tensor that is missing, or whose shape or type does not fit."""
    scale = _part(stored, "weight_scale", *_scale_types(form))
    matrix = None
    if form.kind == "int":
        outputs, inputs = _part(stored, "weight_shape", torch.int64).tolist()
        packed = _part(stored, "weight_packed", torch.int32)
        shifts = torch.arange(0, 32 // form.bits * form.bits, form.bits, dtype=torch.int32, device=packed.device)
        offset = ((packed.unsqueeze(-1) >> shifts) & (2**form.bits - 1)).flatten(-2)
        if offset.shape[0] != outputs or not inputs <= offset.shape[1] < inputs + len(shifts):
            raise ValueError(f"weight_packed is of {tuple(packed.shape)} words, weight_shape says {outputs} × {inputs}")
        codes = (offset[:, :inputs] - 2 ** (form.bits - 1)).float()
    elif form.nested:
        matrix = _part(stored, "weight_global_scale", torch.float32).reshape(1, 1)
        packed = _part(stored, "weight_packed", torch.uint8).int()
        places = torch.stack([packed & 15, packed >> 4], -1).flatten(-2)
        grid = torch.tensor(E2M1, device=packed.device)
        codes = grid[places & 7] * torch.where(places > 7, -1.0, 1.0)
    else:
        codes = _part(stored, "weight", torch.float8_e4m3fn).float()
    blocks = codes.shape[1] // (form.block or codes.shape[1])
    if tuple(scale.shape) != (len(codes), blocks):
        raise ValueError(f"weight_scale is {tuple(scale.shape)} for {len(codes)} outputs of {blocks} blocks")
    return Quantized(codes, scale, matrix)


def config_group(form: Format) -> dict[str, Any]:
    """compressed-tensors' description of the format."""
    strategy = "tensor_group" if form.nested else "group" if form.block else "channel"
    return {
        "targets": ["Linear"],
        "weights": {
            "num_bits": form.bits,
            "type": form.kind,
            "strategy": strategy,
            "group_size": form.block,
            "symmetric": True,
            "dynamic": False,
        },
        "input_activations": form.activations,
        "output_activations": None,
    }


def format_of(group: Any) -> Format | None:
    """The format that such a description is of, whether or not activations are rounded; None where it is of none of
    these."""
    if not isinstance(group, dict):
        return None
    weights, activations = _essence(group.get("weights")), _essence(group.get("input_activations"))
    return next(
        (
            form
            for form in FORMATS.values()
            if weights == _essence(config_group(form)["weights"]) and activations in (None, _essence(form.activations))
        ),
        None,
    )


def _essence(values: Any) -> dict[str, Any] | None:
    if not isinstance(values, dict):
        return None
    return {key: values.get(key) for key in ("num_bits", "type", "strategy", "group_size", "symmetric", "dynamic")}


def _blocks(weight: Tensor, form: Format) -> Tensor:
    inputs = weight.shape[-1]
    size = form.block or inputs
    if inputs % size:
        raise ValueError(f"{inputs} inputs are no multiple of the block of {size}")
    return weight.unflatten(-1, (-1, size))


def _step(scale: Tensor, matrix: Tensor | None) -> Tensor:
    """What a code of 1 stands for, float32."""
    return scale.float() if matrix is None else scale.float() / matrix


def _nearest_e2m1(units: Tensor) -> Tensor:
    grid = torch.tensor(E2M1, device=units.device)
    middles = (grid[1:] + grid[:-1]) / 2
    # bucketize() counts the middles below a value. A tie goes to the even code: up where the lower one is odd.
    middles[1::2] = torch.nextafter(middles[1::2], torch.zeros_like(middles[1::2]))
    return grid[torch.bucketize(units.abs(), middles)].copysign(units)


def _scale_types(form: Format) -> tuple[torch.dtype, ...]:
    """As they are written, and as other programs write them."""
    if form.nested:
        return (torch.float8_e4m3fn,)
    return (torch.bfloat16,) if form.kind == "int" else (torch.float32, torch.bfloat16)


def _part(stored: dict[str, Tensor], name: str, *dtypes: torch.dtype) -> Tensor:
    if name not in stored:
        raise ValueError(f"no {name}")
    if stored[name].dtype not in dtypes:
        kinds = [str(dtype).removeprefix("torch.") for dtype in (stored[name].dtype, dtypes[0])]
        raise ValueError(f"{name} is {kinds[0]}, not {kinds[1]}")
    return stored[name]
