"""The Policy protocol for the model being trained. Engines wrap an unmodified transformers model.

Notation: N is the number of trained tokens of a batch, flattened in the order of the sequences. Everything
per token that crosses this interface (log-probabilities, advantages, weights) is a float32 tensor [N] in
that order, so objectives never see padding, packing, micro-batches or ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sequence:
    """One training sequence. `trained` is its loss mask: whether the prediction of token i counts in the loss.

    `documents`: lengths of the independent parts, if several conversations are packed into one sequence: neither
    attention nor Mamba states cross from one to the next. Empty means one part.
    """

    token_ids: list[int]
    trained: list[bool]
    documents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scores:
    """For every trained token, in order: log π(token | context) and the entropy of π(· | context), in nats."""

    log_probs: Tensor
    entropy: Tensor


Objective = Callable[[Tensor, Tensor], Tensor]
"""(log_probs [n], index [n]) → scalar loss of one micro-batch. `index`: which of the N trained tokens these n are.
Losses of micro-batches add up to the loss of the batch: normalise by batch totals."""


@dataclass(frozen=True)
class StepReport:
    """Result of one optimizer step. `scores` come from the same forward pass as the gradient."""

    loss: float
    gradient_norm: float
    scores: Scores
    expert_load: Tensor | None
    """[layers, experts], share of routed tokens; None for dense models."""
    tokens: int
    """Tokens of the forward pass, with context and without padding."""
    products: dict[int, float] = field(default_factory=dict)
    """d → inner product of the gradients of parts 2d and 2d + 1, before clipping."""


class Policy(Protocol):
    model: PreTrainedModel
    """With engine nemo a whole copy on each device, for the torch sampler: ask for nothing else of it."""
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    sharded: bool
    """Whether weights and optimizer state are sharded over processes. Then all processes must call each method."""

    @property
    def config(self) -> PreTrainedConfig: ...

    @property
    def generation_config(self) -> GenerationConfig | None: ...

    def score(self, sequences: list[Sequence]) -> Scores:
        """Log-probabilities and entropies without gradient, on the CPU."""
        ...

    def step(
        self, sequences: list[Sequence], objective: Objective, learning_rate: float, parts: list[int] | None = None
    ) -> StepReport:
        """One optimizer step on the objective summed over micro-batches. `parts`, of each sequence: micro-batches are
        then of one part each, and the report has products of gradients of parts (one process of engine hf only)."""
        ...

    def save(self, directory: Path) -> None:
        """Write a Hugging Face directory that transformers, vLLM and NeMo Automodel load unchanged. It ends training:
        the model is rounded to the type in which its weights are stored."""
        ...

    def to_host(self) -> None:
        """Move to the host's memory, until `to_device`. Both may be called from any thread."""
        ...

    def to_device(self) -> None: ...

    def training_state(self) -> dict[str, Tensor]:
        """Weights and optimizer state by name, for resuming exact to the bit. Each process has its own part."""
        ...

    def load_training_state(self, state: dict[str, Tensor]) -> None: ...
