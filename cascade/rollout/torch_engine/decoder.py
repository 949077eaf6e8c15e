"""The protocol for step-by-step decoding of a batch, and its implementation for any model, with transformers' cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class Prefix:
    """A prompt and each layer's memory of it, as one row: prefill of a prompt that begins with it can start from its
    end."""

    tokens: list[int]
    memories: list[Any]


class Decoder(Protocol):
    def prefill(self, prompts: list[list[int]], rows: Tensor, known: Sequence[Prefix | None] = ()) -> Tensor:
        """Prefill each prompt once; row i of the batch continues prompt rows[i]. Returns logits [len(rows), V] of the
        next tokens. `known`: for each prompt a prefix, from `prefix`; empty: none."""
        ...

    def prefix(self, prompt: int) -> Prefix | None:
        """The prefix of a prompt after prefill; None if the decoder reads every prompt from its beginning."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token per row; returns logits [B, V] of the next."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order."""
        ...


class TransformersDecoder:
    """Prompts are padded on the left, with an attention mask; positions start at each prompt's first token."""

    def __init__(self, model: PreTrainedModel):
        self.model = model

    def prefill(self, prompts: list[list[int]], rows: Tensor, known: Sequence[Prefix | None] = ()) -> Tensor:
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=rows.device)
        lengths = torch.tensor([len(p) for p in prompts], device=rows.device)
        self._mask = (torch.arange(width, device=rows.device) >= width - lengths.unsqueeze(1)).long()
        self._position = lengths
        self._cache = DynamicCache(config=self.model.config)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(tokens, positions)
        self.keep(rows)
        return logits[rows]

    def prefix(self, prompt: int) -> Prefix | None:
        return None

    def step(self, tokens: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], 1)
        logits = self._forward(tokens.unsqueeze(1), self._position.unsqueeze(1))
        self._position = self._position + 1
        return logits

    def keep(self, rows: Tensor) -> None:
        self._mask, self._position = self._mask[rows], self._position[rows]
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        arguments: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True, "logits_to_keep": 1}
        output = self.model(input_ids=tokens, attention_mask=self._mask, position_ids=positions, **arguments)
        return output.logits[:, -1]
