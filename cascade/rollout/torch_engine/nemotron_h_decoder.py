"""NemotronH's decoding steps on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy.blocks import rms_norm
from cascade.policy.nemotron_h import MambaMemory, choose, gated_norm, time_step
from cascade.policy.ssd import ssd_step
from cascade.rollout.torch_engine.cached_decoder import AttentionCache, Cache, SharedPrompts


class NemotronHWeights:
    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.layers: list[Any] = list(model.model.layers)  # type: ignore[arg-type]
        self.qkv = {
            n: torch.cat([layer.mixer.q_proj.weight, layer.mixer.k_proj.weight, layer.mixer.v_proj.weight]).detach()
            for n, layer in enumerate(self.layers)
            if layer.block_type == "full_attention"
        }
        self.decay = {
            n: -layer.mixer.A_log.detach().float().exp()
            for n, layer in enumerate(self.layers)
            if layer.block_type == "linear_attention"
        }
        self.experts = {
            n: tuple(
                w.detach().transpose(1, 2).contiguous().unbind()
                for w in (layer.mixer.experts.up_proj, layer.mixer.experts.down_proj)
            )
            for n, layer in enumerate(self.layers)
            if layer.block_type == "moe"
        }

    def cache(self, n: int, memories: list[Any], shared: SharedPrompts) -> Cache | None:
        mixer = self.layers[n].mixer
        if n in self.decay:
            return _MambaCache(mixer, self.decay[n], memories, shared.rows)
        return AttentionCache(memories, shared, mixer.scaling) if n in self.qkv else None

    def step(self, tokens: Tensor, shared: SharedPrompts, caches: list[Any]) -> Tensor:
        model: Any = self.model.model
        x = model.embeddings(tokens)
        for n, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            normed = rms_norm(x, layer.norm)
            match layer.block_type:
                case "linear_attention":
                    out = cache.step(normed)
                case "full_attention":
                    out = self._attention(layer.mixer, normed, self.qkv[n], cache)
                case "moe":
                    out = self._moe(layer.mixer, normed, *self.experts[n])
                case _:
                    out = layer.mixer(normed)
            x = x + out
        return rms_norm(x, model.norm_f)

    def _attention(self, mixer: Any, x: Tensor, weight: Tensor, cache: AttentionCache) -> Tensor:
        joint = F.linear(x, weight).unflatten(-1, (-1, mixer.head_dim))
        return mixer.o_proj(cache.step(*joint.split([joint.shape[1] - 2 * cache.heads, cache.heads, cache.heads], 1)))

    def _moe(self, mixer: Any, x: Tensor, up: tuple[Tensor, ...], down: tuple[Tensor, ...]) -> Tensor:
        chosen, weights = choose(mixer.gate, x)
        inputs = mixer.fc1_latent_proj(x)
        routed = few_token_experts(inputs, chosen, weights, up, down)
        return mixer.fc2_latent_proj(routed) + mixer.shared_experts(x)


class _MambaCache:
    """The last inputs of the convolution, oldest first, and the state [B, G, N, H/G · P]."""

    def __init__(self, mixer: Any, decay: Tensor, memories: list[MambaMemory], rows: Tensor):
        self.mixer = mixer
        self.decay = decay
        window = torch.cat([m.convolution for m in memories])[rows]
        self.window = list(window.unbind(1))
        self.state = torch.cat([m.state for m in memories])[rows]
        self.taps = mixer.conv1d.weight.squeeze(1).t().contiguous()

    def step(self, x: Tensor) -> Tensor:
        mixer = self.mixer
        gate, inputs, dt = mixer.in_proj(x).split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], -1)
        self.window.append(inputs)
        mixed = self.window[0] * self.taps[0]
        if mixer.conv1d.bias is not None:
            mixed += mixer.conv1d.bias
        for tap, past in zip(self.taps[1:], self.window[1:], strict=True):
            mixed.addcmul_(past, tap)
        del self.window[0]
        size = mixer.n_groups * mixer.ssm_state_size
        value, b, c = F.silu(mixed).split([mixer.intermediate_size, size, size], -1)
        value = value.unflatten(-1, (mixer.num_heads, mixer.head_dim))
        b, c = (t.unflatten(-1, (mixer.n_groups, mixer.ssm_state_size)) for t in (b, c))
        y = ssd_step(value, time_step(mixer, dt), self.decay, b, c, self.state) + value * mixer.D.unsqueeze(-1)
        return mixer.out_proj(gated_norm(y.flatten(1), gate, mixer.norm))

    def keep(self, rows: Tensor, prompts: Tensor) -> None:
        self.window = [past[rows] for past in self.window]
        self.state = self.state[rows]


def few_token_experts(
    x: Tensor,
    chosen: Tensor,
    weights: Tensor,
    up: tuple[Tensor, ...],
    down: tuple[Tensor, ...],
    gated: bool = False,
) -> Tensor:
    """The routed experts of a decoding step, one product per expert. x [B, D], of each expert up [D, I] or, gated,
    [D, 2 I], and down [I, D]. For so few rows faster than the trainer's, whose weights are the other way round."""
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=len(up)).tolist()
    row = order // chosen.shape[1]
    hidden = _by_expert(x.index_select(0, row), up, counts)
    if gated:
        gate, value = hidden.chunk(2, -1)
        active = F.silu(gate).mul_(value)
    else:
        hidden.relu_()
        active = hidden.mul_(hidden)
    out = _by_expert(active, down, counts).mul_(weights.flatten()[order].unsqueeze(1))
    return torch.zeros_like(x).index_add_(0, row, out)


def _by_expert(rows: Tensor, weights: tuple[Tensor, ...], counts: list[int]) -> Tensor:
    """rows [n, D], sorted by expert, and weights [D, I] of each expert → [n, I]."""
    out = rows.new_empty(len(rows), weights[0].shape[1])
    for part, weight, into in zip(rows.split(counts), weights, out.split(counts), strict=True):
        torch.mm(part, weight, out=into)
    return out
