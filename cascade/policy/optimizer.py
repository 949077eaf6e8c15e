"""The optimizer of a recipe."""

import torch
from torch import nn

from cascade.recipe import Optimizer


def make_optimizer(parameters: list[nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    """AdamW. Weight decay on matrices only: not on norms, biases, and the per-head parameters of the state space."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
