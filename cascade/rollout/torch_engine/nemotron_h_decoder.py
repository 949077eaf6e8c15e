"""Decoding NemotronH: the prompt through the trainer's forward pass, then one fused step a token.

Keys and values of a prompt are kept once for all its rollouts; what the rollouts add is kept per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from cascade.policy.batching import SIMILAR
from cascade.policy.blocks import AttentionMemory, Block, Past, rms_norm
from cascade.policy.nemotron_h import MambaMemory, choose, gated_norm, hidden_states, time_step
from cascade.policy.ssd import ssd_step
from cascade.rollout.torch_engine.decoder import Prefix


class Weights:
    """A model's weights as decoding wants them: its own, and products of them made once per refresh."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.layers: list[Any] = list(model.model.layers)  # type: ignore[arg-type]
        self.qkv = {
            n: torch.cat([layer.mixer.q_proj.weight, layer.mixer.k_proj.weight, layer.mixer.v_proj.weight]).detach()
            for n, layer in enumerate(self.layers)
            if layer.block_type == "full_attention"
        }
        self.decay = {
            n: -layer.mixer.A_log.detach().float().exp()
            for n, layer in enumerate(self.layers)
            if layer.block_type == "linear_attention"
        }
        self.experts = {
            n: tuple(
                w.detach().transpose(1, 2).contiguous()
                for w in (layer.mixer.experts.up_proj, layer.mixer.experts.down_proj)
            )
            for n, layer in enumerate(self.layers)
            if layer.block_type == "moe"
        }


@dataclass(frozen=True)
class ReadPrompts:
    """Prompts after the forward pass, in blocks of similar length: prompt n of those given is number `place[n]`."""

    prompts: list[list[int]]
    place: Tensor
    lengths: Tensor
    memories: list[list[Any]]
    """Per layer, per block of prompts; the blocks one after the other hold all of them."""
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
    """The prompts through the trainer's forward pass, in blocks of similar length; those that begin with what is
    `known` from its end on."""
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
    """Of several rows, one a prefix."""
    width = max(len(prefix.tokens) for prefix in prefixes)
    memories: list[Any] = []
    for rows in zip(*(prefix.memories for prefix in prefixes), strict=True):
        if rows[0] is None:
            memories.append(None)
        elif isinstance(rows[0], MambaMemory):
            memories.append(MambaMemory(torch.cat([r.convolution for r in rows]), torch.cat([r.state for r in rows])))
        else:
            memories.append(
                AttentionMemory(_padded([r.keys for r in rows], width), _padded([r.values for r in rows], width))
            )
    return Past(torch.tensor([len(prefix.tokens) for prefix in prefixes], device=device), memories)


def _padded(parts: list[Tensor], width: int) -> Tensor:
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


class NemotronHDecoder:
    """On the CPU; `cuda_graphs.py` is its counterpart on CUDA."""

    def __init__(self, weights: Weights):
        self.weights = weights
        self._caches: list[_MambaCache | _AttentionCache | None] = []

    def prefill(self, prompts: list[list[int]], rows: Tensor, known: Sequence[Prefix | None] = ()) -> Tensor:
        self._read = read = read_prompts(self.weights.model, prompts, rows.device, known)
        rows = read.place[rows]
        shared = _SharedPrompts(read.lengths, rows)
        for n, memories in enumerate(read.memories):
            kind = self.weights.layers[n].block_type
            if kind == "linear_attention":
                self._caches.append(_MambaCache(self.weights.layers[n].mixer, self.weights.decay[n], memories, rows))
            elif kind == "full_attention":
                self._caches.append(
                    _AttentionCache(self.weights.layers[n].mixer, self.weights.qkv[n], memories, shared)
                )
            else:
                self._caches.append(None)
        self._shared = shared
        return self.weights.model.lm_head(read.hidden)[rows]  # type: ignore[operator]

    def prefix(self, prompt: int) -> Prefix | None:
        return self._read.prefix(prompt)

    def step(self, tokens: Tensor) -> Tensor:
        model: Any = self.weights.model
        x = model.model.embeddings(tokens)
        for n, (layer, cache) in enumerate(zip(self.weights.layers, self._caches, strict=True)):
            normed = rms_norm(x, layer.norm)
            if cache is not None:
                out = cache.step(normed)
            elif layer.block_type == "moe":
                out = self._moe(layer.mixer, normed, *self.weights.experts[n])
            else:
                out = layer.mixer(normed)
            x = x + out
        return model.lm_head(rms_norm(x, model.model.norm_f))

    def _moe(self, mixer: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        chosen, weights = choose(mixer.gate, x)
        inputs = mixer.fc1_latent_proj(x)
        routed = few_token_experts(inputs, chosen, weights, up, down)
        return mixer.fc2_latent_proj(routed) + mixer.shared_experts(x)

    def keep(self, rows: Tensor) -> None:
        prompts = self._shared.keep(rows)
        for cache in self._caches:
            if cache is not None:
                cache.keep(rows, prompts)


class _MambaCache:
    """The last inputs of the convolution, oldest first, and the state [B, G, N, H/G · P]."""

    def __init__(self, mixer: Any, decay: Tensor, memories: list[MambaMemory], rows: Tensor):
        self.mixer = mixer
        self.decay = decay
        window = torch.cat([m.convolution for m in memories])[rows]
        self.window = list(window.unbind(1))
        self.state = torch.cat([m.state for m in memories])[rows]
        self.taps = mixer.conv1d.weight.squeeze(1).t().contiguous()

    def step(self, x: Tensor) -> Tensor:
        mixer = self.mixer
        gate, inputs, dt = mixer.in_proj(x).split([mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], -1)
        self.window.append(inputs)
        mixed = self.window[0] * self.taps[0]
        if mixer.conv1d.bias is not None:
            mixed += mixer.conv1d.bias
        for tap, past in zip(self.taps[1:], self.window[1:], strict=True):
            mixed.addcmul_(past, tap)
        del self.window[0]
        size = mixer.n_groups * mixer.ssm_state_size
        value, b, c = F.silu(mixed).split([mixer.intermediate_size, size, size], -1)
        value = value.unflatten(-1, (mixer.num_heads, mixer.head_dim))
        b, c = (t.unflatten(-1, (mixer.n_groups, mixer.ssm_state_size)) for t in (b, c))
        y = ssd_step(value, time_step(mixer, dt), self.decay, b, c, self.state) + value * mixer.D.unsqueeze(-1)
        return mixer.out_proj(gated_norm(y.flatten(1), gate, mixer.norm))

    def keep(self, rows: Tensor, prompts: Tensor) -> None:
        self.window = [past[rows] for past in self.window]
        self.state = self.state[rows]


class _SharedPrompts:
    """Which row continues which prompt: row i sits on `seat[i]` of [prompts · seats], seats as many as the largest
    group has rows, so that the queries of a group meet their prompt's keys in one matrix product."""

    def __init__(self, lengths: Tensor, rows: Tensor):
        self.lengths = lengths
        self._seat_rows(rows)

    def _seat_rows(self, rows: Tensor) -> None:
        self.rows = rows
        order = rows.argsort(stable=True)
        counts = torch.bincount(rows, minlength=len(self.lengths))
        first = counts.cumsum(0) - counts
        self.seats = int(counts.max())
        seat = torch.empty_like(rows)
        seat[order] = torch.arange(len(rows), device=rows.device) - first[rows[order]]
        self.seat = rows * self.seats + seat
        width = int(self.lengths.max())
        padding = torch.arange(width, device=rows.device) >= self.lengths.unsqueeze(1)
        self.bias = torch.zeros(padding.shape, device=rows.device).masked_fill_(padding, -torch.inf)[:, None, None]

    def keep(self, rows: Tensor) -> Tensor:
        """The prompts that still have a row, by their old numbers."""
        left, rows = self.rows[rows].unique(return_inverse=True)
        self.lengths = self.lengths[left]
        self._seat_rows(rows)
        return left

    def gather(self, per_row: Tensor) -> Tensor:
        """[B, heads, n, d] → [prompts, heads, seats · n, d], empty seats zero."""
        heads, n, d = per_row.shape[1:]
        out = per_row.new_zeros(len(self.lengths) * self.seats, heads, n, d)
        out[self.seat] = per_row
        return out.view(-1, self.seats, heads, n, d).transpose(1, 2).reshape(-1, heads, self.seats * n, d)

    def scatter(self, per_prompt: Tensor) -> Tensor:
        """The way back."""
        prompts, heads, _, d = per_prompt.shape
        by_seat = per_prompt.view(prompts, heads, self.seats, -1, d).transpose(1, 2)
        return by_seat.reshape(prompts * self.seats, heads, -1, d)[self.seat]


class _AttentionCache:
    """Keys and values of the prompts [prompts, heads, L, d] and of what followed, there the keys as [B, heads, d,
    capacity], the faster side for a product with few queries, and the values as [B, heads, capacity, d]."""

    def __init__(self, mixer: Any, qkv: Tensor, memories: list[AttentionMemory], shared: _SharedPrompts):
        self.mixer, self.qkv, self.shared = mixer, qkv, shared
        width = max(m.keys.shape[2] for m in memories)
        self.prompt_keys, self.prompt_values = (
            _padded(parts, width) for parts in ([m.keys for m in memories], [m.values for m in memories])
        )
        self.heads, self.dim = self.prompt_keys.shape[1], mixer.head_dim
        rows = len(shared.rows)
        self.keys = self.prompt_keys.new_empty(rows, self.heads, self.dim, 32)
        self.values = self.prompt_values.new_empty(rows, self.heads, 32, self.dim)
        self.length = 0

    def step(self, x: Tensor) -> Tensor:
        if self.length == self.keys.shape[3]:
            self.keys = torch.cat([self.keys, torch.empty_like(self.keys)], 3)
            self.values = torch.cat([self.values, torch.empty_like(self.values)], 2)
        q, k, v = F.linear(x, self.qkv).split(
            [self.qkv.shape[0] - 2 * self.heads * self.dim, self.heads * self.dim, self.heads * self.dim], -1
        )
        self.keys[..., self.length] = k.view(-1, self.heads, self.dim)
        self.values[:, :, self.length] = v.view(-1, self.heads, self.dim)
        self.length += 1
        q = q.reshape(len(x), self.heads, -1, self.dim) * self.mixer.scaling
        to_prompt = self.shared.gather(q) @ self.prompt_keys.transpose(-1, -2) + self.shared.bias
        to_own = q @ self.keys[..., : self.length]
        weights = torch.cat([self.shared.scatter(to_prompt), to_own], -1).softmax(-1)
        on_prompt, on_own = weights.split([self.prompt_keys.shape[2], self.length], -1)
        y = self.shared.scatter(self.shared.gather(on_prompt) @ self.prompt_values)
        y = y + on_own @ self.values[:, :, : self.length]
        return self.mixer.o_proj(y.reshape(len(x), -1))

    def keep(self, rows: Tensor, prompts: Tensor) -> None:
        width = self.shared.bias.shape[-1]
        self.prompt_keys, self.prompt_values = (
            self.prompt_keys[prompts, :, :width],
            self.prompt_values[prompts, :, :width],
        )
        self.keys, self.values = self.keys[rows], self.values[rows]


def few_token_experts(x: Tensor, chosen: Tensor, weights: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """The routed experts for a decoding step: one batched product over all of them, each given as many places as
    the busiest needs. x [B, D], up [E, D, I], down [E, I, D]. Faster than one product an expert on so few rows."""
    flat = chosen.flatten()
    taken = F.one_hot(flat, len(up)).cumsum(0)
    places = int(taken[-1].max())
    place = flat * places + taken.gather(1, flat.unsqueeze(1)).squeeze(1) - 1
    inputs = x.new_zeros(len(up) * places, x.shape[1])
    inputs[place] = x.repeat_interleave(chosen.shape[1], 0)
    hidden = (inputs.view(len(up), places, -1) @ up).relu_()
    out = (hidden.mul_(hidden) @ down).view(len(inputs), -1)[place]
    return (out.view(*chosen.shape, -1) * weights.unsqueeze(-1)).sum(1)
