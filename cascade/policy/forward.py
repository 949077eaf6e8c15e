"""The engine's own forward passes by kind of model, over blocks of rows; shared prefixes are computed once."""

from transformers import PreTrainedModel

from cascade.policy import llama, nemotron_h
from cascade.policy.blocks import Block, Forward


def supports(model: PreTrainedModel) -> bool:
    """Whether there is one for this model; other models use transformers' forward pass."""
    return nemotron_h.supports(model) or llama.supports(model)


def hidden_states(model: PreTrainedModel, blocks: list[Block], keep: bool = False, recompute: bool = False) -> Forward:
    """Hidden states of all tokens. `keep`: also return the memories, from which decoding continues. `recompute`:
    activation checkpointing, each layer is computed again in the backward pass."""
    module = nemotron_h if nemotron_h.supports(model) else llama
    return module.hidden_states(model, blocks, keep, recompute)
