"""A model that people have, on one GPU: `python -m benchmarks.gpu.real_model --model DIR --prompts FILE`.

Written for SmolLM2-135M-Instruct and GSM8K: 16 prompts x 8 rollouts of 256 tokens, end-of-turn ignored. Parts, each
written to --out as soon as it is known, beside what the file holds already, so that they may be run one a call:

own            sampling and a training step by themselves, kernels included, and the same step through transformers' own
               forward pass, as models outside the supported list are trained
generate       RL steps against TRL's GRPOTrainer with transformers' `generate`, in turns, in one process
generate-bf16  the same with TRL's weights and optimizer in bfloat16, in which transformers' experts are one kernel (of
               float32 weights, also under autocast, they are a float32 product for each expert)
vllm           with vLLM as TRL's sampler, on the same card

`--model qwen3-moe` makes a Qwen3-MoE of random weights, 1.02 billion parameters (0.3 active), with the tokenizer of
--tokenizer; its figures stand under `qwen3_moe`, with a card and versions of their own.
"""

import argparse
import gc
import json
import logging
import os
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from benchmarks.gpu.speed import ceilings, median_seconds, sampling, training
from benchmarks.rl_step import PROMPTS, ROLLOUTS, compare
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.utils.files import read_json, write_json
from cascade.utils.seeds import derive_seed

NEW_TOKENS = 256
QWEN3_MOE = {
    "vocab_size": 49152,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "moe_intermediate_size": 384,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "norm_topk_prob": True,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="of a model that is made here")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON lines with a `question`")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--steps", type=int, default=3, help="measured steps a side")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--trl-rows", type=int, default=32, help="rows of TRL's micro-batch")
    parser.add_argument("--micro-batch-tokens", type=int, default=16384, help="of ours")
    parser.add_argument("--vllm-memory", type=float, default=0.25, help="vLLM's share of the card's memory")
    parser.add_argument("--out", type=Path, default=Path("results/gpu/real_model.json"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    found: dict[str, Any] = read_json(options.out) if options.out.is_file() else {}
    model, of_model = options.model, found
    made = not (model / "config.json").is_file()
    if made:
        if str(model) != "qwen3-moe" or options.tokenizer is None:
            raise SystemExit(f"{model}: no model there; for a random one say --model qwen3-moe --tokenizer DIR")
        of_model = found.setdefault("qwen3_moe", {})
    device = torch.cuda.get_device_name()
    if of_model.get("device", device) != device:
        raise SystemExit(f"{options.out} is of another card, {of_model['device']}; name another --out")
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__}
    of_model |= {"device": device, "versions": {**of_model.get("versions", {}), **versions}}
    with tempfile.TemporaryDirectory() as scratch:
        if made:
            model = make_model(Path(scratch) / "qwen3-moe", options.tokenizer)
        for part in options.parts:
            for name, value in PARTS[part](model, options, Path(scratch)):
                of_model[name] = value
                print(json.dumps({name: value}), flush=True)
                write_json(options.out, found)
            gc.collect()
            torch.cuda.empty_cache()


def texts(model: Path, prompts: Path) -> list[str]:
    """Of the first questions, by the model's own chat template, up to where it answers."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line) for line in prompts.read_text().splitlines()[:PROMPTS]]
    asked = [f"{row['question'].strip()}\n\nPut the final answer within \\boxed{{}}." for row in rows]
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in asked
    ]


def own(model: Path, options: argparse.Namespace, scratch: Path):
    """(name, value), as soon as it is known."""
    limits = ceilings()
    yield "ceilings", limits
    settings = Optimizer(learning_rate=1e-6, micro_batch_tokens=options.micro_batch_tokens)
    policy = HFPolicy(model, settings, "cuda", update_router=False)
    yield "micro_batch_tokens", options.micro_batch_tokens
    yield "parameters", sum(p.numel() for p in policy.model.parameters())
    sampler = TorchSampler(policy, stop=())
    prompts = [policy.tokenizer(text)["input_ids"] for text in texts(model, options.prompts)]
    asked = [
        SampleRequest(prompt, derive_seed("bench", n, k)) for n, prompt in enumerate(prompts) for k in range(ROLLOUTS)
    ]
    seconds = median_seconds(lambda: sampler.sample(asked, max_new_tokens=NEW_TOKENS), 5, 2)
    yield "sampling_tokens_per_second", len(asked) * NEW_TOKENS / seconds
    first, again = (sampler.sample(asked[:40], max_new_tokens=64) for _ in range(2))
    yield "sampling_repeats_itself", first == again
    step = training(sampler, policy, limits, asked)
    yield "training_tokens_per_second", step["sequence_tokens_per_second"]
    yield "peak_gib", step["peak_gib"]
    yield "log_prob_gap", step["log_prob_gap"]
    yield "training", step
    policy._recompute = True
    yield "training, layers computed again", training(sampler, policy, limits, asked)
    policy._recompute = False
    yield "sampling", sampling(sampler, policy, limits)
    policy._fast = False
    try:
        theirs: dict[str, Any] = training(sampler, policy, limits, asked)
    except torch.OutOfMemoryError:
        theirs = {"out of memory of GiB": torch.cuda.get_device_properties(0).total_memory / 2**30}
    yield "training, transformers' forward pass", theirs


def generate(model: Path, options: argparse.Namespace, scratch: Path):
    yield from against_trl("generate", model, options, scratch)


def generate_bf16(model: Path, options: argparse.Namespace, scratch: Path):
    yield from against_trl("generate_bf16", model, options, scratch, dtype=torch.bfloat16)


def vllm(model: Path, options: argparse.Namespace, scratch: Path):
    yield from against_trl("vllm", model, options, scratch, vllm_memory=options.vllm_memory)


def against_trl(name: str, model: Path, options: argparse.Namespace, scratch: Path, **theirs_is: Any):
    theirs, ours = compare(model, NEW_TOKENS, options, scratch, texts(model, options.prompts), **theirs_is)
    sides = {}
    for side, parts in (("TRL", theirs), ("Cascade", ours)):
        sides[side] = {
            "step_seconds": statistics.median(map(sum, parts)),
            "sampling_seconds": statistics.median(sampled for sampled, _ in parts),
            "training_seconds": statistics.median(trained for _, trained in parts),
            "all_steps": parts,
        }
    yield f"rl_step_over_trl_{name}", sides["TRL"]["step_seconds"] / sides["Cascade"]["step_seconds"]
    yield f"rl steps, trl {name}", sides


def make_model(directory: Path, tokenizer: Path) -> Path:
    torch.manual_seed(0)
    tokens = AutoTokenizer.from_pretrained(tokenizer)
    config = Qwen3MoeConfig(**QWEN3_MOE, eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id)
    with torch.device("cuda"):
        model = Qwen3MoeForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(directory)
    tokens.save_pretrained(directory)
    return directory


PARTS = {"own": own, "generate": generate, "generate-bf16": generate_bf16, "vllm": vllm}


if __name__ == "__main__":
    main()
