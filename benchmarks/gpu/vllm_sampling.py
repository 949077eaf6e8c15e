"""vLLM as the sampler of RL steps on a NemotronH mixture of experts, beside the torch sampler and transformers.

    python -m benchmarks.gpu.vllm_sampling --out results/gpu/vllm_sampling.json

For models of two sizes with random weights, 16 prompts x 8 rollouts of fixed length (end of turn ignored): tokens a
second of transformers' `generate`, of the torch sampler, and of vLLM beside the trainer, all in bfloat16, and of vLLM
where requests have no seeds of their own; then RL steps that vLLM samples for, weights handed over before each: seconds
of each part, and how far trainer and sampler are apart, as a gap in nats and as the importance weights that
distillation truncates. Runs on CUDA; prints and writes JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import NemotronHConfig, NemotronHForCausalLM, PreTrainedTokenizerFast

from cascade.policy.base import Sequence
from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer, Rollout
from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.rollout.vllm_engine.sampler import VLLMSampler
from cascade.training import losses
from cascade.utils.files import write_json
from cascade.utils.seeds import derive_seed

PROMPTS, ROLLOUTS, PROMPT_TOKENS, VOCABULARY = 16, 8, 32, 4096
LEARNING_RATE = 1e-5
TRUNCATION = (0.5, 2.0)

SIZES: dict[str, dict[str, Any]] = {
    "11M": {
        "new_tokens": 128,
        "hybrid_override_pattern": "ME*EME*E",
        "hidden_size": 256,
        "num_attention_heads": 4,
        "mamba_num_heads": 8,
        "moe_intermediate_size": 192,
        "moe_shared_expert_intermediate_size": 512,
    },
    "141M": {
        "new_tokens": 256,
        "hybrid_override_pattern": "ME*EMEME*EME",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "mamba_num_heads": 24,
        "moe_intermediate_size": 704,
        "moe_shared_expert_intermediate_size": 1408,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=5, help="RL steps")
    parser.add_argument("--repeats", type=int, default=3, help="measured batches of each sampler")
    parser.add_argument("--memory", type=float, default=0.4, help="vLLM's share of the device's memory")
    parser.add_argument("--out", type=Path, default=Path("results/gpu/vllm_sampling.json"))
    options = parser.parse_args()
    import vllm

    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "vllm": vllm.__version__}
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "versions": versions}
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            found[size] = {}
            for name, value in measure(SIZES[size], Path(scratch) / "model", options):
                found[size][name] = value
                print(json.dumps({size: {name: value}}), flush=True)
                write_json(options.out, found)


def measure(settings: dict[str, Any], directory: Path, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """(what, value), as soon as it is known."""
    count = settings["new_tokens"]
    make_model({key: value for key, value in settings.items() if key != "new_tokens"}, directory)
    policy = HFPolicy(directory, Optimizer(learning_rate=LEARNING_RATE, micro_batch_tokens=65536), "cuda")
    yield "parameters", sum(parameter.numel() for parameter in policy.model.parameters())

    yield "transformers", rate(lambda: generate(policy, count), count, options.repeats)

    own = TorchSampler(policy, stop=())
    yield "torch sampler", rate(lambda: own.sample(requests(0), max_new_tokens=count), count, options.repeats)
    own.close()
    torch.cuda.empty_cache()

    sampler = VLLMSampler(policy, Rollout(engine="vllm", max_new_tokens=count, memory=options.memory), stop=())
    try:
        yield "vllm start seconds", seconds(lambda: sampler.refresh(policy))
        yield "vllm", rate(lambda: sampler.sample(requests(0), max_new_tokens=count), count, options.repeats)
        with unseeded():
            yield (
                "vllm without seeds",
                rate(lambda: sampler.sample(requests(0), max_new_tokens=count), count, options.repeats),
            )
        yield "rl steps", [rl_step(policy, sampler, number, count) for number in range(options.steps)]
    finally:
        sampler.close()


@contextmanager
def unseeded() -> Iterator[None]:
    """vLLM then draws for all rows at once: what the seeds of the requests cost. Not how the project samples."""
    from cascade.rollout.vllm_engine import local

    seeded = local.SamplingParams
    local.SamplingParams = lambda **named: seeded(**named | {"seed": None})
    try:
        yield
    finally:
        local.SamplingParams = seeded


def rate(work: Callable[[], Any], count: int, repeats: int) -> dict[str, float]:
    """Of a sampler: seconds of the first batch, in which kernels are compiled, and the median tokens a second after."""
    first = seconds(work)
    later = statistics.median(seconds(work) for _ in range(repeats))
    return {"first seconds": first, "seconds": later, "tokens a second": PROMPTS * ROLLOUTS * count / later}


def rl_step(policy: HFPolicy, sampler: VLLMSampler, number: int, count: int) -> dict[str, float]:
    """Hand the weights over, sample, train by GRPO on a hash of the response as reward; how far both were apart."""
    refreshing = seconds(lambda: sampler.refresh(policy))
    asked, samples = requests(number), list[Sample]()
    sampling = seconds(lambda: samples.extend(sampler.sample(asked, max_new_tokens=count)))
    rewards = torch.tensor([derive_seed(*sample.token_ids) % 1000 / 1000 for sample in samples])
    groups = torch.arange(PROMPTS).repeat_interleave(ROLLOUTS)
    advantages = losses.group_advantages(rewards, groups).repeat_interleave(count).to(policy.device)
    sequences = [
        Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * count)
        for r, s in zip(asked, samples, strict=True)
    ]
    began = time.perf_counter()
    report = policy.step(
        sequences,
        lambda log_probs, index: losses.policy_gradient_loss(log_probs, advantages[index], len(advantages)),
        LEARNING_RATE,
    )
    torch.cuda.synchronize()
    training = time.perf_counter() - began
    sampled = torch.tensor([x for sample in samples for x in sample.log_probs])
    trained = report.scores.log_probs
    gap = (trained - sampled).abs()
    weights = losses.importance_weights(trained, sampled, *TRUNCATION)
    return {
        "refresh seconds": refreshing,
        "sampling seconds": sampling,
        "training seconds": training,
        "gap mean": gap.mean().item(),
        "gap max": gap.max().item(),
        "mismatch KL": losses.mismatch_kl(trained, sampled).mean().item(),
        "tokens outside the truncation": (weights == 0).float().mean().item(),
        "weights' mean inside": weights[weights > 0].mean().item(),
    }


def generate(policy: HFPolicy, count: int) -> None:
    prompts = torch.tensor([request.prompt for request in requests(0)], device=policy.device)
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        policy.model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            min_new_tokens=count,
            max_new_tokens=count,
            pad_token_id=0,
        )


def requests(number: int) -> list[SampleRequest]:
    generator = torch.Generator().manual_seed(derive_seed("vllm", "prompts", number))
    prompts = torch.randint(3, VOCABULARY, (PROMPTS, PROMPT_TOKENS), generator=generator).tolist()
    return [
        SampleRequest(prompt, derive_seed("vllm", number, n, rollout))
        for n, prompt in enumerate(prompts)
        for rollout in range(ROLLOUTS)
    ]


def seconds(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def make_model(settings: dict[str, Any], directory: Path) -> None:
    torch.manual_seed(0)
    config = NemotronHConfig(
        vocab_size=VOCABULARY,
        num_key_value_heads=2,
        head_dim=64,
        mamba_head_dim=64,
        ssm_state_size=64,
        n_groups=1,
        chunk_size=64,
        n_routed_experts=16,
        num_experts_per_tok=4,
        max_position_embeddings=2048,
        initializer_range=0.06,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        **settings,
    )
    model = NemotronHForCausalLM(config)
    model.config.time_step_min = 0.0  # Only the initialisation needs it.
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, **{f"w{n}": n for n in range(2, VOCABULARY)}}, "<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>")
    save_checkpoint(model, tokenizer, directory)


if __name__ == "__main__":
    main()
