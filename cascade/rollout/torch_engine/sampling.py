"""Token sampling by the inverse of the cumulative distribution, with random numbers that depend on the seed alone."""

import numpy as np
import torch
from torch import Tensor


def uniforms(seeds: list[int], count: int) -> Tensor:
    """[len(seeds), count] numbers in [0, 1): the Philox stream of each seed, position by position."""
    streams = [np.random.Generator(np.random.Philox(key=seed)).random(count, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(streams))


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B] at the temperature, before the cut at top_p. logits [B, V]."""
    scaled = logits.float() / temperature if temperature != 1 else logits.float()
    scaled = scaled - scaled.amax(-1, keepdim=True)
    mass = scaled.exp()
    log_total = mass.sum(-1).log()
    if top_p < 1:
        # The smallest set of likeliest tokens that reaches top_p: a token stays if those above it fall short.
        ordered, order = mass.sort(dim=-1, descending=True, stable=True)
        above = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(above >= top_p * mass.sum(-1, keepdim=True), 0)
        mass = torch.empty_like(mass).scatter_(-1, order, ordered)
    cumulative = mass.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not raise the point to the total, which is beyond the last possible token.
    point = torch.minimum(uniform.unsqueeze(1) * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, point, right=True)
    return tokens.squeeze(1), scaled.gather(1, tokens).squeeze(1) - log_total
