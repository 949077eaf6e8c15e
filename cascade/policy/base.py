"""The model being trained, behind one protocol. Engines wrap a plain transformers model from outside.

Notation: N is the number of trained tokens of a batch, flattened in the order of the sequences. Everything
per token that crosses this interface (log-probabilities, advantages, weights) is a float32 tensor [N] in
that order, so objectives never see padding, packing, micro-batches or ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sequence:
    """One sequence to train on. `trained[i]` says whether token i, given those before it, counts.

    `documents` holds the lengths of the independent parts where several conversations are packed into one
    sequence: neither attention nor Mamba state crosses from one to the next. Empty means one part.
    """

    token_ids: list[int]
    trained: list[bool]
    documents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scores:
    """Of every trained token, in order: log π(token | before) and the entropy of π(· | before), in nats."""

    log_probs: Tensor
    entropy: Tensor


Objective = Callable[[Tensor, Tensor], Tensor]
"""(log_probs [n], index [n]) → scalar loss of one micro-batch. `index` says which of the N trained tokens
these n are. Losses of micro-batches add up to the loss of the batch: normalise by batch totals."""


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did. `scores` were computed in the same forward pass as the gradient."""

    loss: float
    gradient_norm: float
    scores: Scores
    expert_load: Tensor | None
    """[layers, experts], share of routed tokens; None for dense models."""
    tokens: int
    """Tokens that went through the forward pass, context included, padding not."""


class Policy(Protocol):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    sharded: bool
    """Each process holds a part of weights and optimizer state. Then every process calls every method, at once."""

    def score(self, sequences: list[Sequence]) -> Scores:
        """Log-probabilities and entropies without gradient, on the CPU."""
        ...

    def step(self, sequences: list[Sequence], objective: Objective, learning_rate: float) -> StepReport:
        """One optimizer step on the objective summed over micro-batches."""
        ...

    def save(self, directory: Path) -> None:
        """Write a Hugging Face directory that transformers, vLLM and NeMo Automodel load unchanged."""
        ...

    def to_host(self) -> None:
        """Leave the device's memory, until `to_device`. Both may be called from another thread than the main one."""
        ...

    def to_device(self) -> None: ...

    def training_state(self) -> dict[str, Tensor]:
        """Weights and optimizer state by name: what resuming needs, exact to the bit. Of this process's part."""
        ...

    def load_training_state(self, state: dict[str, Tensor]) -> None: ...
