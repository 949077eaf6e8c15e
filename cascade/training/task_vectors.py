"""Task vectors: differences between checkpoints trained from one start (Ilharco et al., arXiv 2212.04089)."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cascade.errors import CheckpointError, RecipeError
from cascade.layout import Layout
from cascade.policy.checkpoint import load_checkpoint
from cascade.recipe import Node, Recipe, TaughtNode
from cascade.recipe.library import checkpoint_of
from cascade.training.teacher_scoring import Teacher

Weights = dict[str, Tensor]


def common_start(recipe: Recipe, node: Node, teachers: dict[str, Teacher], layout: Layout) -> Path | None:
    """The checkpoint from which all teachers descend, for a node that starts with their merge; None for any other.

    Raises RecipeError where a teacher is of an earlier run.
    """
    if not isinstance(node, TaughtNode) or node.start == "init":
        return None
    names = sorted({teacher.node for teacher in teachers.values()})
    if earlier := [name for name in names if name not in recipe.training]:
        raise RecipeError(
            f"teacher {earlier[0]}: of an earlier run, whose common start with the others is not here; "
            f"leave start: merge out, or earlier_runs of {node.teachers}"
        )
    return checkpoint_of(recipe, layout, recipe.common_start(names))


def merged(common: Weights, teachers: Iterable[Weights], scale: float) -> Weights:
    """θ + scale · Σ (φ_k - θ): the common start θ plus the teachers' task vectors. With the scale 1/K for K teachers it
    is their mean. One teacher at a time is needed."""
    found = {name: torch.zeros_like(value) for name, value in common.items()}
    for teacher in teachers:
        for name, value in common.items():
            found[name] += teacher[name] - value
    for name, value in common.items():
        found[name].mul_(scale).add_(value)
    return found


def merge_into(model: PreTrainedModel, common: Path, teachers: list[Path], scale: float | None) -> None:
    """Give the model the weights of the common start plus `scale` times each teacher's task vector; None: 1/K. The
    common start may be among the teachers and is not counted; where it is the only one, the model gets its weights.
    Three models are in memory beside it, as many as training keeps there (gradients and two moments)."""
    start = load_weights(common, weights_of(model))
    others = [checkpoint for checkpoint in dict.fromkeys(teachers) if checkpoint != common]
    loaded = (load_weights(checkpoint, start) for checkpoint in others)
    set_weights(model, merged(start, loaded, scale or 1 / len(others)) if others else start)


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
