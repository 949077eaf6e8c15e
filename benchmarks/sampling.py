"""The torch sampler beside transformers' `generate` on Llama-type models: `python -m benchmarks.sampling`.

16 prompts x 8 rollouts of equal length (end-of-turn ignored), temperature 1, the same random weights in float32,
threads and process. The two take turns; the first turn is not counted, medians are. Prompts have 40 to 160 tokens. The
ratio of CPU seconds is beside that of wall time: on a machine that others use it is the one to trust.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from benchmarks.rl_step import byte_tokenizer
from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler

PROMPTS, ROLLOUTS = 16, 8
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
SMALL = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "smollm2": lambda: LlamaForCausalLM(LlamaConfig(**SMOLLM2)),
    "small": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "small experts": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SMALL, head_dim=32, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=192)
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    arguments.add_argument("--tokens", type=int, default=128, help="new tokens a response")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--out", type=Path, help="JSON file")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    found = {}
    for name in options.models:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "model"
            save_checkpoint(MODELS[name](), byte_tokenizer(), directory)
            found[name] = compare(directory, options.tokens, options.repeats)
        print(name, json.dumps(found[name]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def compare(directory: Path, tokens: int, repeats: int) -> dict[str, float]:
    policy = HFPolicy(directory, device="cuda" if torch.cuda.is_available() else "cpu")
    sampler = TorchSampler(policy, stop=())
    draw = random.Random(0)
    prompts = [[draw.randrange(3, 4096) for _ in range(40 + 8 * n)] for n in range(PROMPTS)]
    requests = [SampleRequest(p, 1000 * n + k) for n, p in enumerate(prompts) for k in range(ROLLOUTS)]
    rows, width = [r.prompt for r in requests], max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rows], device=policy.device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=policy.device)

    def generate() -> None:
        with torch.inference_mode():
            policy.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                pad_token_id=0,
            )

    times: dict[str, list[tuple[float, float]]] = {"torch sampler": [], "generate": []}
    for turn in range(repeats + 1):
        for side, work in (
            ("torch sampler", lambda: sampler.sample(requests, max_new_tokens=tokens)),
            ("generate", generate),
        ):
            began = time.perf_counter(), time.process_time()
            work()
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[side].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    (ours, our_cpu), (theirs, their_cpu) = (
        [statistics.median(column) for column in zip(*times[side], strict=True)] for side in times
    )
    count = len(requests) * tokens
    return {
        "torch_sampler_tokens_per_second": round(count / ours),
        "generate_tokens_per_second": round(count / theirs),
        "ratio": round(theirs / ours, 2),
        "ratio_of_cpu_seconds": round(their_cpu / our_cpu, 2),
    }


if __name__ == "__main__":
    main()
