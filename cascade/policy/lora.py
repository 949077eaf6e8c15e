"""Low-rank adapters (LoRA, arXiv 2106.09685): of a weight W only B A is trained, and W + α/r · B A is computed with.

peft makes the adapters: which layers have one, their initial values, their scale. The model itself stays plain: its
adapted weights are the merged ones, computed again after every step. So the forward passes, samplers and checkpoints
know nothing of adapters, and the policy that is trained is, to the bit, the one that samples and is saved. The gradient
of a merged weight, dW, becomes that of its adapter in the backward pass, dA = α/r · Bᵀ dW and dB = α/r · dW Aᵀ, and is
dropped at once: at most one layer's is in memory.
"""

import copy
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cascade.errors import CascadeError
from cascade.policy.model_size import mamba_sizes
from cascade.recipe import Lora

ADAPTER = "default"
"""peft's name for the only adapter."""


class Adapters:
    """The adapters of a model, which is changed: its weights are frozen, and those with an adapter are merged weights.

    `net` is peft's model: the same modules with the weights before training, and the adapters; it is not computed with.
    Raises CascadeError where peft is missing, and for targets that the model does not have or that are no linear layers
    of their own.
    """

    def __init__(self, model: nn.Module, settings: Lora, seed: int):
        self.net = with_adapters(model, settings, seed)
        self._layers = _linear_layers(self.net, model)
        self._merged: dict[str, nn.Parameter] = {}
        model.requires_grad_(False)
        for name, layer in self._layers.items():
            module: Any = model.get_submodule(name)
            module.weight = self._merged[name] = nn.Parameter(layer.get_base_layer().weight.detach().clone())
            self._merged[name].register_post_accumulate_grad_hook(self._hook(name))
        self.merge()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """A [rank, inputs] and B [outputs, rank] of each layer, by name."""
        found = {}
        for name, layer in self._layers.items():
            found[f"{name}.lora_A"] = layer.lora_A[ADAPTER].weight
            found[f"{name}.lora_B"] = layer.lora_B[ADAPTER].weight
        return found

    @torch.no_grad()
    def merge(self) -> None:
        """Compute the merged weights, after the adapters changed."""
        for name, layer in self._layers.items():
            self._merged[name].copy_(layer.get_base_layer().weight + layer.get_delta_weight(ADAPTER))

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().to("cpu", copy=True) for name, value in self.parameters.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Raises RuntimeError where the state is of other adapters."""
        own = self.parameters
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            raise RuntimeError("other adapters")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])
        self.merge()

    def _hook(self, name: str) -> Any:
        layer = self._layers[name]
        first, second = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        scale = layer.scaling[ADAPTER]

        @torch.no_grad()
        def pass_on(weight: Tensor) -> None:
            gradient = weight.grad
            assert gradient is not None
            weight.grad = None
            _add(first, scale * (second.T @ gradient))
            _add(second, scale * (gradient @ first.T))

        return pass_on


def with_adapters(model: nn.Module, settings: Lora, seed: int) -> nn.Module:
    """A copy of the model that shares its weights, with peft's adapters. A is drawn from `seed`, B is zero."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise CascadeError("lora needs peft; pip install -e '.[lora]'") from None
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    targets = _all_linear(model) if settings.targets == "all-linear" else list(settings.targets)
    alpha: Any = settings.alpha  # Declared as an integer there, and only divided by the rank.
    config = LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return inject_adapter_in_model(config, twin, adapter_name=ADAPTER)
        except ValueError as error:
            raise CascadeError(f"lora.targets: {' '.join(str(error).split())}") from None


def _all_linear(model: Any) -> list[str]:
    """The names of all linear layers but the output matrix. Kernels of Mamba layers read the weight of out_proj past
    its module, so peft refuses it there."""
    head = model.get_output_embeddings()
    refused = "out_proj" if mamba_sizes(model.config) else None
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module is not head and name.rpartition(".")[2] != refused
    ]


def _linear_layers(net: nn.Module, model: nn.Module) -> dict[str, Any]:
    """Name → peft's layer. Raises CascadeError for one whose weight is no matrix of its own."""
    from peft.tuners.lora import Linear, LoraLayer

    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, Any] = {}
    for name, layer in net.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        base: Any = layer.get_base_layer()
        if not isinstance(layer, Linear) or not isinstance(base, nn.Linear):
            raise CascadeError(f"lora.targets: {name} is a {type(base).__name__}, not a linear layer; leave it out")
        if owners[id(base.weight)] > 1:
            raise CascadeError(f"lora.targets: the weight of {name} is tied to another module; leave it out")
        found[name] = layer
    return found


def _add(parameter: nn.Parameter, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters."""

    adapters: int
    adapted: int
    """Of the weights that have an adapter."""
    largest: int
    """Of the largest of these weights."""


@cache
def sizes_of(config_file: Path, settings: Lora) -> Sizes:
    """From a model's configuration alone. Raises CascadeError as `Adapters` does."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(config_file, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        layers = _linear_layers(with_adapters(model, settings, 0), model).values()
    shapes = [layer.get_base_layer().weight.shape for layer in layers]
    adapters = sum(settings.rank * (outputs + inputs) for outputs, inputs in shapes)
    return Sizes(adapters, sum(map(math.prod, shapes)), max(map(math.prod, shapes)))
