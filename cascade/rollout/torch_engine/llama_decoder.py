"""Decoding steps of Llama-type models on CPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy import llama
from cascade.policy.blocks import rms_norm
from cascade.policy.elementwise import turned
from cascade.rollout.torch_engine.cached_decoder import AttentionCache, Cache, SharedPrompts
from cascade.rollout.torch_engine.nemotron_h_decoder import few_token_experts


class LlamaWeights:
    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.parts = llama.parts_of(model)
        self.joint = {
            n: _stacked(part.projections) for n, part in enumerate(self.parts) if isinstance(part, llama.Attention)
        }
        self.experts = {
            n: (_transposed(part.projections), _transposed(part.out))
            for n, part in enumerate(self.parts)
            if isinstance(part, llama.Experts)
        }

    def cache(self, n: int, memories: list[Any], shared: SharedPrompts) -> Cache | None:
        part = self.parts[n]
        return AttentionCache(memories, shared, part.scale, part.window) if isinstance(part, llama.Attention) else None

    def step(self, tokens: Tensor, shared: SharedPrompts, caches: list[Any]) -> Tensor:
        model: Any = self.model.model
        x = model.embed_tokens(tokens)
        cos, sin = llama.rotations(self.model, shared.positions)
        for n, (part, cache) in enumerate(zip(self.parts, caches, strict=True)):
            normed = rms_norm(x, part.norm)
            match part:
                case llama.Attention():
                    q, k, v = part.split([F.linear(normed, *self.joint[n])])
                    if part.rotary:
                        q, k = turned(q, cos, sin), turned(k, cos, sin)
                    out = part.out(cache.step(q, k, v))
                case llama.MLP():
                    gate, up = llama.gate_and_up([projection(normed) for projection in part.projections])
                    out = part.out(F.silu(gate).mul_(up))
                case llama.Experts():
                    chosen, weights = llama.choose(part, normed)
                    out = few_token_experts(normed, chosen, weights, *self.experts[n], gated=True)
            x = x + out
        return rms_norm(x, model.norm)


def _transposed(weight: Tensor) -> tuple[Tensor, ...]:
    """[E, out, in] → of each expert [in, out]."""
    return weight.detach().transpose(1, 2).contiguous().unbind()


def _stacked(projections: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """The layers' weights and biases, concatenated."""
    weight = torch.cat([module.weight for module in projections]).detach()
    biases = [module.bias for module in projections]
    return weight, None if biases[0] is None else torch.cat(biases).detach()
