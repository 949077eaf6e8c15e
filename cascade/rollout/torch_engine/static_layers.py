"""Layers for captured decoding steps: weights and caches have fixed addresses.

A layer's caches have as many rows as the largest batch; a step uses the first `rows` of them. Weights are copies in the
dtype of decoding, overwritten in place when the policy has changed; float32 weights are read from the trainer's own
tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.policy import llama, nemotron_h
from cascade.policy.blocks import AttentionMemory
from cascade.policy.nemotron_h import MambaMemory
from cascade.rollout.torch_engine import kernels


class Layer(Protocol):
    def load(self) -> None:
        """Copy the current weights."""
        ...

    def fill(self, memories: list[Any], source: Tensor) -> None:
        """Set row i to prompt source[i]; prompts are numbered through the memories' blocks in order."""
        ...

    def move(self, source: Tensor) -> None:
        """Copy row source[i] to row i, for all rows at once."""
        ...

    def step(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x [rows, D], after the norm; lengths [rows]: number of earlier positions → [rows, D]."""
        ...


class Cast:
    """A copy of the weights of one or several linear layers, stacked, in the dtype of decoding."""

    def __init__(self, dtype: torch.dtype, *modules: Any):
        self._modules = modules
        self.weight = torch.empty_like(torch.cat([module.weight for module in modules]), dtype=dtype)
        biased = modules[0].bias is not None
        self.bias = torch.empty_like(torch.cat([m.bias for m in modules]), dtype=dtype) if biased else None

    def load(self) -> None:
        start = 0
        for module in self._modules:
            end = start + len(module.weight)
            self.weight[start:end].copy_(module.weight)
            if self.bias is not None:
                self.bias[start:end].copy_(module.bias)
            start = end

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Mamba:
    """Caches the last inputs of the convolution [rows, K - 1, channels] and the state [rows, H, N, P]."""

    def __init__(self, mixer: Any, rows: int, dtype: torch.dtype):
        self.mixer = mixer
        self._in, self._out = Cast(dtype, mixer.in_proj), Cast(dtype, mixer.out_proj)
        self._decay = torch.empty_like(mixer.A_log, dtype=torch.float32)
        self._taps = torch.empty_like(mixer.conv1d.weight.squeeze(1).t().contiguous())
        shape = (rows, mixer.num_heads, mixer.ssm_state_size, mixer.head_dim)
        self._state = torch.zeros(shape, device=self._decay.device)
        self._window = torch.zeros(rows, len(self._taps) - 1, mixer.conv_dim, dtype=dtype, device=self._decay.device)

    def load(self) -> None:
        self._in.load()
        self._out.load()
        self._decay.copy_(-self.mixer.A_log.float().exp())
        self._taps.copy_(self.mixer.conv1d.weight.squeeze(1).t())

    def fill(self, memories: list[MambaMemory], source: Tensor) -> None:
        self._window[: len(source)] = torch.cat([m.convolution for m in memories])[source].to(self._window.dtype)
        state = torch.cat([m.state for m in memories])
        by_head = state.unflatten(3, (-1, self.mixer.head_dim)).transpose(2, 3).flatten(1, 2)
        self._state[: len(source)] = by_head[source]

    def move(self, source: Tensor) -> None:
        self._window[: len(source)] = self._window[source]
        self._state[: len(source)] = self._state[source]

    def step(self, x: Tensor, lengths: Tensor) -> Tensor:
        mixer, rows = self.mixer, len(x)
        gate, inputs, dt = self._in(x).split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], -1)
        mixed = kernels.convolve(self._window[:rows], inputs, self._taps, mixer.conv1d.bias)
        y = kernels.advance_state(
            self._state[:rows], mixed, dt, mixer.dt_bias, self._decay, mixer.D, mixer.n_groups, mixer.time_step_limit
        )
        norm = mixer.norm
        return self._out(
            kernels.gated_norm(y, gate, norm.weight, norm.group_size, norm.variance_epsilon, self._window.dtype)
        )


class Attention:
    """Caches keys and values [rows, heads, capacity, d]; a prompt's are copied to each of its rollouts."""

    def __init__(
        self,
        projections: tuple[Any, ...],
        out: Any,
        held: int,
        size: int,
        scale: float,
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        window: int | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        norms: tuple[Tensor, Tensor, float] | None = None,
    ):
        """`held`: number of key heads; `rotary` and `norms`: arguments of `kernels.attend`."""
        self._qkv, self._out = Cast(dtype, *projections), Cast(dtype, out)
        self._settings = scale, window, rotary, norms
        device = self._qkv.weight.device
        self._keys, self._values = torch.zeros(2, rows, held, capacity, size, dtype=dtype, device=device)

    def load(self) -> None:
        self._qkv.load()
        self._out.load()

    def fill(self, memories: list[AttentionMemory], source: Tensor) -> None:
        start = 0
        for memory in memories:
            end = start + len(memory.keys)
            to = ((source >= start) & (source < end)).nonzero().squeeze(1)
            width = memory.keys.shape[2]
            self._keys[to, :, :width] = memory.keys[source[to] - start].to(self._keys.dtype)
            self._values[to, :, :width] = memory.values[source[to] - start].to(self._values.dtype)
            start = end

    def move(self, source: Tensor) -> None:
        self._keys[: len(source)] = self._keys[source]
        self._values[: len(source)] = self._values[source]

    def step(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows, (heads, _, size) = len(x), self._keys.shape[1:]
        qkv = self._qkv(x).unflatten(-1, (-1, size))
        queries, key, value = qkv.split([qkv.shape[1] - 2 * heads, heads, heads], 1)
        y = kernels.attend(queries, key, value, self._keys[:rows], self._values[:rows], lengths[:rows], *self._settings)
        return self._out(y.flatten(1))


class Stateless:
    """A layer without a cache."""

    def fill(self, memories: list[Any], source: Tensor) -> None: ...

    def move(self, source: Tensor) -> None: ...


class MLP(Stateless):
    def __init__(self, projections: tuple[Any, ...], out: Any, dtype: torch.dtype, gated: bool):
        self._up, self._down = Cast(dtype, *projections), Cast(dtype, out)
        self._active = kernels.swiglu if gated else kernels.squared_relu

    def load(self) -> None:
        self._up.load()
        self._down.load()

    def step(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self._down(self._active(self._up(x), None))


class LatentExperts(Stateless):
    """NemotronH's experts: two dense products of all experts and all rows, with weight 0 for experts not chosen.

    A step of a few hundred rows uses every expert, so all of their weights are read from memory in any case. As long as
    there are fewer rows than the GPU's operations per byte (about 270 in bfloat16 on an H100), the superfluous
    arithmetic is hidden by these reads, and sorting rows by expert would cost more than it saves.
    """

    def __init__(self, mixer: Any, dtype: torch.dtype):
        self.mixer = mixer
        shared = mixer.shared_experts
        self._shared = MLP((shared.up_proj,), shared.down_proj, dtype, gated=False)
        latent = [m for m in (mixer.fc1_latent_proj, mixer.fc2_latent_proj) if not isinstance(m, torch.nn.Identity)]
        self._latent = [Cast(dtype, module) for module in latent]
        up, down = mixer.experts.up_proj, mixer.experts.down_proj
        self._up = torch.empty_like(up.flatten(0, 1), dtype=dtype)
        self._down = torch.empty_like(down.transpose(0, 1).flatten(1), dtype=dtype)

    def load(self) -> None:
        self._shared.load()
        for cast in self._latent:
            cast.load()
        experts = self.mixer.experts
        self._up.view_as(experts.up_proj).copy_(experts.up_proj)
        self._down.view(experts.down_proj.transpose(0, 1).shape).copy_(experts.down_proj.transpose(0, 1))

    def step(self, x: Tensor, lengths: Tensor) -> Tensor:
        weights = kernels.route(x, self.mixer.gate)
        inputs = x.to(self._up.dtype)
        narrow = self._latent[0](inputs) if self._latent else inputs
        routed = F.linear(kernels.squared_relu(F.linear(narrow, self._up), weights), self._down)
        return (self._latent[1](routed) if self._latent else routed) + self._shared.step(inputs, lengths)


class GatedExperts(Stateless):
    """Gated experts: all experts on all rows, as above."""

    def __init__(self, part: llama.Experts, dtype: torch.dtype):
        self.part = part
        self._up = torch.empty_like(part.projections.flatten(0, 1), dtype=dtype)
        self._down = torch.empty_like(part.out.transpose(0, 1).flatten(1), dtype=dtype)

    def load(self) -> None:
        up, down = self.part.projections, self.part.out
        self._up.view_as(up).copy_(up)
        self._down.view(down.transpose(0, 1).shape).copy_(down.transpose(0, 1))

    def step(self, x: Tensor, lengths: Tensor) -> Tensor:
        weights = kernels.softmax_route(x, self.part.router, self.part.top_k, self.part.normalise)
        return F.linear(kernels.swiglu(F.linear(x.to(self._up.dtype), self._up), weights), self._down)


@dataclass(frozen=True)
class Part:
    """A norm and the layer that follows it."""

    norm: Any
    exact: bool
    """Whether the layer's input is float32, as a router's is in the trainer."""
    make: Callable[[int, int, torch.dtype], Layer]
    """(rows, positions, dtype) → the layer."""
    row_bytes: Callable[[int, torch.dtype], int]
    """(positions, dtype) → bytes of its cache per row."""


@dataclass(frozen=True)
class Stack:
    """A model for captured decoding steps."""

    embeddings: Tensor
    parts: list[Part]
    norm: Any
    """The final norm."""
    head: Any


def stack_of(model: Any) -> Stack:
    hybrid = nemotron_h.supports(model)
    parts = [_nemotron_part(layer) for layer in model.model.layers] if hybrid else _llama_parts(model)
    norm = model.model.norm_f if hybrid else model.model.norm
    return Stack(model.get_input_embeddings().weight, parts, norm, model.lm_head)


def _nothing(positions: int, dtype: torch.dtype) -> int:
    return 0


def _keys_and_values(held: int, size: int) -> Callable[[int, torch.dtype], int]:
    return lambda positions, dtype: 2 * held * size * positions * dtype.itemsize


def _nemotron_part(layer: Any) -> Part:
    mixer = layer.mixer
    match layer.block_type:
        case "linear_attention":

            def state(positions: int, dtype: torch.dtype) -> int:
                window = (mixer.conv_kernel_size - 1) * mixer.conv_dim * dtype.itemsize
                return mixer.num_heads * mixer.ssm_state_size * mixer.head_dim * 4 + window

            return Part(layer.norm, False, lambda rows, positions, dtype: Mamba(mixer, rows, dtype), state)
        case "full_attention":
            projections = (mixer.q_proj, mixer.k_proj, mixer.v_proj)
            held = mixer.k_proj.weight.shape[0] // mixer.head_dim
            shape = held, mixer.head_dim, mixer.scaling
            return Part(
                layer.norm,
                False,
                lambda rows, positions, dtype: Attention(projections, mixer.o_proj, *shape, rows, positions, dtype),
                _keys_and_values(held, mixer.head_dim),
            )
        case "moe":
            return Part(layer.norm, True, lambda rows, positions, dtype: LatentExperts(mixer, dtype), _nothing)
        case _:
            return Part(
                layer.norm,
                False,
                lambda rows, positions, dtype: MLP((mixer.up_proj,), mixer.down_proj, dtype, gated=False),
                _nothing,
            )


def _llama_parts(model: Any) -> list[Part]:
    tables: dict[int, tuple[Tensor, Tensor]] = {}

    def rotary(positions: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine, the same tables for all layers."""
        if positions not in tables:
            tables.clear()
            tables[positions] = llama.rotations(model, torch.arange(positions, device=model.device))
        return tables[positions]

    def attention(part: llama.Attention) -> Part:
        norms = None
        if part.head_norms is not None:
            queries, keys = part.head_norms
            norms = queries.weight, keys.weight, queries.variance_epsilon

        def make(rows: int, positions: int, dtype: torch.dtype) -> Layer:
            turns = rotary(positions) if part.rotary else None
            shape = part.held, part.size, part.scale, rows, positions, dtype
            return Attention(part.projections, part.out, *shape, part.window, turns, norms)

        return Part(part.norm, False, make, _keys_and_values(part.held, part.size))

    def of(part: llama.Attention | llama.MLP | llama.Experts) -> Part:
        match part:
            case llama.Attention():
                return attention(part)
            case llama.MLP():
                make: Callable[[int, int, torch.dtype], Layer] = lambda rows, positions, dtype: MLP(  # noqa: E731
                    part.projections, part.out, dtype, gated=True
                )
                return Part(part.norm, False, make, _nothing)
            case llama.Experts():
                return Part(part.norm, True, lambda rows, positions, dtype: GatedExperts(part, dtype), _nothing)

    return [of(part) for part in llama.parts_of(model)]
