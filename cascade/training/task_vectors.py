"""Task vectors: differences between checkpoints trained from one start (Ilharco et al., arXiv 2212.04089)."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cascade.errors import CheckpointError
from cascade.policy.checkpoint import load_checkpoint

Weights = dict[str, Tensor]


def merged(common: Weights, teachers: list[Weights], scale: float) -> Weights:
    """θ + scale · Σ (φ_k - θ): the common start θ plus the teachers' task vectors. With the scale 1/K for K teachers it
    is their mean."""
    return {name: value + scale * sum(teacher[name] - value for teacher in teachers) for name, value in common.items()}


def merge_into(model: PreTrainedModel, common: Path, teachers: list[Path], scale: float | None) -> None:
    """Give the model the weights of the common start plus `scale` times each teacher's task vector; None: 1/K. The
    common start may be among the teachers and is not counted; where it is the only one, the model gets its weights."""
    start = load_weights(common, weights_of(model))
    others = [load_weights(checkpoint, start) for checkpoint in dict.fromkeys(teachers) if checkpoint != common]
    set_weights(model, merged(start, others, scale or 1 / len(others)) if others else start)


def weights_of(model: PreTrainedModel) -> Weights:
    """Parameters and buffers by name, those that share memory once; not copied."""
    return {
        name: tensor.detach()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point()
    }


def load_weights(checkpoint: Path, like: Weights) -> Weights:
    """A checkpoint's weights, on the devices of `like`. Raises CheckpointError where they are of another model."""
    found = weights_of(load_checkpoint(checkpoint)[0])
    if {n: t.shape for n, t in found.items()} != {n: t.shape for n, t in like.items()}:
        raise CheckpointError(
            f"{checkpoint}: its weights have other names or shapes than the student's; merge only "
            "checkpoints of one model"
        )
    return {name: tensor.to(like[name].device) for name, tensor in found.items()}


def set_weights(model: PreTrainedModel, weights: Weights) -> None:
    """Overwrite the model's weights in place."""
    with torch.no_grad():
        for name, tensor in weights_of(model).items():
            tensor.copy_(weights[name])
