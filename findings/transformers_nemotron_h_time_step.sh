#!/usr/bin/env bash
# transformers 5.18.0: log-probabilities of a NemotronH, of a whole sequence at once and token by token with the
# cache; and its setting `time_step_limit`, to which the released models' own code holds the time step of Mamba
# layers.
# Expected: both ways give the same numbers, and another limit gives others.
# Seen: they differ by 0.07 nats (a small model of random weights), since the pass over a sequence holds the time step
# above `time_step_min`, which elsewhere is the smallest of the initialisation, and the cached one does not; and no
# pass reads `time_step_limit`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "torch==2.13.0" numpy "transformers==5.18.0"
OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import logging

import torch
import transformers
from transformers import NemotronHConfig, NemotronHForCausalLM

logging.disable()
tokens = torch.arange(20)[None]


def model(**settings):
    torch.manual_seed(0)
    config = NemotronHConfig(
        vocab_size=64, hidden_size=32, layers_block_type=["mamba", "attention"], num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=8, n_groups=1, chunk_size=8,
        initializer_range=0.5, **settings,
    )
    return NemotronHForCausalLM(config).eval()


@torch.no_grad()
def at_once(model):
    return model(tokens, use_cache=False).logits[:, 10:].log_softmax(-1)


@torch.no_grad()
def one_by_one(model):
    cache = model(tokens[:, :10], use_cache=True).past_key_values
    logits = [model(tokens[:, [at]], past_key_values=cache, use_cache=True).logits for at in range(10, 20)]
    return torch.cat(logits, dim=1).log_softmax(-1)


def gap(one, other):
    return (one - other).abs().max().item()


as_made = model()
whole = at_once(as_made)
cached = gap(whole, one_by_one(as_made))
limited = gap(whole, at_once(model(time_step_limit=(0.5, 0.6))))
freed = model()
freed.model.layers[0].mixer.time_step_limit = (0.0, float("inf"))
control = gap(at_once(freed), one_by_one(freed))
print("transformers", transformers.__version__, "- time_step_limit", as_made.config.time_step_limit)
print(f"at once and one by one differ by {cached:.4f} nats, without the clamp by {control:.7f}")
print(f"time_step_limit (0.5, 0.6) changes {limited} nats")
assert cached > 1000 * control, "changed: both ways give the same log-probabilities"
assert limited == 0, "changed: time_step_limit is read"
PY
