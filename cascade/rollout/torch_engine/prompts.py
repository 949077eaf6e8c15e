"""Prefill: each distinct prompt goes once through the trainer's forward pass, for all decoders."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy.batching import SIMILAR
from cascade.policy.blocks import AttentionMemory, Block, Past
from cascade.policy.forward import hidden_states
from cascade.policy.nemotron_h import MambaMemory
from cascade.rollout.torch_engine.decoder import Prefix


@dataclass(frozen=True)
class ReadPrompts:
    """Prompts after the forward pass, in blocks of similar length: prompt n of the input is at index `place[n]`."""

    prompts: list[list[int]]
    place: Tensor
    lengths: Tensor
    memories: list[list[Any]]
    """Memory per layer and block of prompts; the blocks, concatenated, have all prompts."""
    hidden: Tensor
    """[prompts, D] at their last tokens, after the final norm."""

    def prefix(self, prompt: int) -> Prefix:
        place, length = int(self.place[prompt]), len(self.prompts[prompt])
        memories = []
        for of_blocks in self.memories:
            row = place
            for memory in of_blocks:
                rows = len(memory.state if isinstance(memory, MambaMemory) else memory.keys)
                if row < rows:
                    memories.append(_row(memory, row, length))
                    break
                row -= rows
            else:
                memories.append(None)
        return Prefix(self.prompts[prompt], memories)


def read_prompts(
    model: PreTrainedModel, prompts: list[list[int]], device: torch.device, known: Sequence[Prefix | None] = ()
) -> ReadPrompts:
    """Run the prompts through the trainer's forward pass, in blocks of similar length; prompts with a `known` prefix
    start from its end."""
    before = [len(prefix.tokens) if prefix else 0 for prefix in known] or [0] * len(prompts)
    new = [prompt[start:] for prompt, start in zip(prompts, before, strict=True)]
    order = sorted(range(len(prompts)), key=lambda n: (before[n] > 0, -len(new[n])))
    groups: list[list[int]] = []
    for n in order:
        first = groups[-1][0] if groups else n
        similar = len(new[n]) >= SIMILAR[device.type] * len(new[first])
        if not groups or not similar or (before[n] > 0) != (before[first] > 0):
            groups.append([])
        groups[-1].append(n)
    place = torch.empty(len(prompts), dtype=torch.long)
    place[torch.tensor(order)] = torch.arange(len(prompts))
    blocks, ends, start = [], [], 0
    for group in groups:
        width = len(new[group[0]])
        tokens = torch.tensor([new[n] + [0] * (width - len(new[n])) for n in group], device=device)
        own = torch.tensor([len(new[n]) for n in group], device=device)
        past = _past([prefix for n in group if (prefix := known[n])], device) if before[group[0]] else None
        blocks.append(Block(tokens, own if len(new[group[-1]]) < width else None, past=past))
        ends.append(start + torch.arange(len(group), device=device) * width + own - 1)
        start += tokens.numel()
    forward = hidden_states(model, blocks, keep=True)
    memories = [
        [_closed_up(memory, block) for memory, block in zip(of_blocks, blocks, strict=True)] if of_blocks else []
        for of_blocks in forward.memories
    ]
    lengths = torch.tensor([len(prompts[n]) for n in order], device=device)
    return ReadPrompts(prompts, place.to(device), lengths, memories, forward.hidden[torch.cat(ends)])


def _row(memory: Any, row: int, length: int) -> Any:
    if isinstance(memory, MambaMemory):
        return MambaMemory(memory.convolution[row : row + 1], memory.state[row : row + 1])
    return AttentionMemory(memory.keys[row : row + 1, :, :length], memory.values[row : row + 1, :, :length])


def _past(prefixes: list[Prefix], device: torch.device) -> Past:
    """Concatenate the memories of several prefixes, one row each."""
    width = max(len(prefix.tokens) for prefix in prefixes)
    memories: list[Any] = []
    for rows in zip(*(prefix.memories for prefix in prefixes), strict=True):
        if rows[0] is None:
            memories.append(None)
        elif isinstance(rows[0], MambaMemory):
            memories.append(MambaMemory(torch.cat([r.convolution for r in rows]), torch.cat([r.state for r in rows])))
        else:
            memories.append(
                AttentionMemory(padded([r.keys for r in rows], width), padded([r.values for r in rows], width))
            )
    return Past(torch.tensor([len(prefix.tokens) for prefix in prefixes], device=device), memories)


def padded(parts: list[Tensor], width: int) -> Tensor:
    """[rows, heads, width, d] from parts of [rows, heads, at most width, d]."""
    return torch.cat([F.pad(part, (0, 0, 0, width - part.shape[2])) for part in parts])


def _closed_up(memory: Any, block: Block) -> Any:
    """Keys and values without the padding between a block's past and its own tokens."""
    if block.past is None or not isinstance(memory, AttentionMemory):
        return memory
    before = block.past.lengths.unsqueeze(1)
    own = block.tokens.shape[1] if block.lengths is None else block.lengths.unsqueeze(1)
    at = torch.arange(int((before + own).max()), device=before.device)
    gap = before.max() - before
    source = torch.where(at < before, at, (at + gap).clamp(max=memory.keys.shape[2] - 1))[:, None, :, None]
    keys, values = (t.gather(2, source.expand(-1, t.shape[1], -1, t.shape[3])) for t in (memory.keys, memory.values))
    return AttentionMemory(keys, values)
