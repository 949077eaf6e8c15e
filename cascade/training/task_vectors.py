"""Task vectors: differences between checkpoints trained from one start (Ilharco et al., arXiv 2212.04089)."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cascade.errors import CheckpointError
from cascade.policy.checkpoint import load_checkpoint

Weights = dict[str, Tensor]


def moved(weights: Weights, common: Weights, teachers: list[Weights], scale: float) -> Weights:
    """w + scale · Σ (φ_k - θ): a step along the teachers' task vectors from their common start θ. From w = θ, with the
    scale 1/K for K teachers, it is the mean of the teachers."""
    return {
        name: value + scale * sum(teacher[name] - common[name] for teacher in teachers)
        for name, value in weights.items()
    }


def merge_into(model: PreTrainedModel, common: Path, teachers: list[Path], scale: float | None) -> None:
    """Give the model the weights of the common start, moved along the teachers' task vectors by `scale`; None: by 1/K.
    The common start may be among the teachers and is not counted; where it is the only one, the model gets its
    weights."""
    start = load_weights(common, weights_of(model))
    others = [load_weights(checkpoint, start) for checkpoint in dict.fromkeys(teachers) if checkpoint != common]
    set_weights(model, moved(start, start, others, scale or 1 / len(others)) if others else start)


def correct(model: PreTrainedModel, common: Path, teachers: list[Path], scale: float) -> None:
    """Move the model's weights along the teachers' task vectors, in place."""
    weights = weights_of(model)
    start = load_weights(common, weights)
    others = [load_weights(checkpoint, weights) for checkpoint in dict.fromkeys(teachers)]
    set_weights(model, moved(weights, start, others, scale))


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
    """Overwrite the model's weights in place: an optimizer keeps its state."""
    with torch.no_grad():
        for name, tensor in weights_of(model).items():
            tensor.copy_(weights[name])
