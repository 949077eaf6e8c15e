"""Fake quantisation: the model computes with weights that were quantised and back, and what is trained are the full
weights behind them.

The gradient of a quantised weight is taken as that of its full weight (straight-through estimator, arXiv 1308.3432).
The model itself stays plain, as with adapters: the forward passes and samplers know nothing of quantisation.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from cascade.errors import CheckpointError
from cascade.policy.quantization.formats import FORMATS, Format, fake_quantized
from cascade.recipe import Quantization

TOGETHER = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}
"""Projections of the same input, which engines join to one matrix: NVFP4's scale of the whole is then one of all."""
ROUTERS = ("Router", "Gate")


class FakeQuantized:
    """The full weights of a model whose own are quantised. The model is changed.

    Raises CheckpointError where nothing is left to quantise, `keep` has a name that no layer has, or a matrix does not
    divide into blocks.
    """

    def __init__(self, model: nn.Module, settings: Quantization):
        self.form = FORMATS[settings.format]
        self._own = targets(model, settings.keep)
        if not self._own:
            raise CheckpointError(f"keep: {', '.join(settings.keep)}: no layer is left to quantise")
        self.weights = {
            name: nn.Parameter(own.detach().clone(), requires_grad=own.requires_grad) for name, own in self._own.items()
        }
        """Name → full weight."""
        for name, own in self._own.items():
            if own.requires_grad:
                own.register_post_accumulate_grad_hook(self._hook(name))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Quantise anew, after the full weights changed."""
        largest = shared_largest(self.weights) if self.form.nested else {}
        for name, own in self._own.items():
            own.copy_(quantized_as(name, self.weights[name], self.form, largest.get(name)))

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Raises RuntimeError where a weight is missing or of another shape."""
        for name, full in self.weights.items():
            if name not in weights or weights[name].shape != full.shape:
                raise RuntimeError("other weights")
            full.copy_(weights[name])
        self.refresh()

    def _hook(self, name: str) -> Any:
        full = self.weights[name]

        @torch.no_grad()
        def pass_on(own: Tensor) -> None:
            full.grad = own.grad if full.grad is None or own.grad is None else full.grad.add_(own.grad)
            own.grad = None

        return pass_on


def quantized_as(name: str, weight: Tensor, form: Format, largest: Tensor | None) -> Tensor:
    try:
        return fake_quantized(weight, form, largest)
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}; name it in `keep`") from None


def targets(model: nn.Module, keep: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Name → weight [outputs, inputs] of each linear layer, [experts, outputs, inputs] of stacked experts; without what
    `keep` names, routers and tied weights. Raises CheckpointError for a name in `keep` that no layer has."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    found: dict[str, nn.Parameter] = {}
    unused, layers = set(keep), []
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            stacked = parameter.ndim == 3 and path.rpartition(".")[2] == "experts"
            layer = f"{path}.{leaf}" if stacked else path
            kept = {entry for entry in keep if fnmatch(f".{layer}", f"*.{entry}")}
            unused -= kept
            router = type(module).__name__.endswith(ROUTERS)
            if router or not (stacked or (type(module) is nn.Linear and leaf == "weight")):
                continue
            layers.append(layer)
            if not kept and id(parameter) not in embeddings:
                found[f"{path}.{leaf}"] = parameter
    if unused:
        names = ", ".join(layers[:2])
        raise CheckpointError(f"keep: no layer is called {min(unused)}; they are called {names}, …")
    return found


def shared_largest(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name → largest magnitude [1, 1], [experts, 1, 1] of stacked experts, of the weight and those it is joined with.
    Names end with `.weight`, or are of stacked experts."""
    own = {name: weight.detach().float().abs().amax((-2, -1), keepdim=True) for name, weight in weights.items()}
    groups: dict[str, list[str]] = {}
    for name in own:
        path, _, layer = name.removesuffix(".weight").rpartition(".")
        groups.setdefault(f"{path}.{TOGETHER.get(layer, layer)}", []).append(name)
    return {
        name: torch.stack([own[member] for member in members]).amax(0)
        for members in groups.values()
        for name in members
    }
