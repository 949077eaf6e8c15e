"""Training and sampling on one GPU beside what the card can do: `python -m benchmarks.gpu.speed --model DIR`.

First the ceilings: bytes a second of a large copy, bfloat16 operations a second of a large matrix product. Then one
training step on 128 rollouts of 256 tokens (16 prompts), and a decoding step for batches of several sizes, each with
the time that its arithmetic and its memory traffic would take at the ceilings. Medians; writes JSON to --out.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.cuda_graphs import CHECK, SIZES
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.utils.files import write_json

PROMPTS, ROLLOUTS, PROMPT_TOKENS, NEW_TOKENS = 16, 8, 160, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/gpu/speed.json"))
    parser.add_argument("--micro-batch-tokens", type=int, default=65536)
    options = parser.parse_args()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__},
        "ceilings": ceilings(),
    }
    settings = Optimizer(learning_rate=1e-6, micro_batch_tokens=options.micro_batch_tokens)
    policy = HFPolicy(options.model, settings, "cuda", update_router=False)
    sampler = TorchSampler(policy, stop=())
    found["parameters"] = sum(p.numel() for p in policy.model.parameters())
    found["sampling"] = sampling(sampler, policy, found["ceilings"])
    write_json(options.out, found)
    found["training"] = training(sampler, policy, found["ceilings"])
    write_json(options.out, found)
    print(found)


def requests(prompts: int = PROMPTS) -> list[SampleRequest]:
    numbers = torch.randint(32, 2000, (prompts, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    return [SampleRequest(row, 1000 * n + k) for n, row in enumerate(numbers.tolist()) for k in range(ROLLOUTS)]


def median_seconds(work: Callable[[], Any], repeats: int = 5, warmup: int = 2) -> float:
    times = []
    for number in range(warmup + repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if number >= warmup:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def ceilings() -> dict[str, float]:
    """Bytes a second, read and written, of copying 2 GiB; operations a second of an 8192³ bfloat16 product."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copy = median_seconds(lambda: [target.copy_(source) for _ in range(10)]) / 10
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = median_seconds(lambda: [a @ b for _ in range(10)]) / 10
    return {"bytes_per_second": 2 * 2**31 / copy, "bf16_operations_per_second": 2 * 8192**3 / product}


def active_parameters(model: Any) -> float:
    """Those that take part in a token's matrix products: of the experts the share that is chosen, no embeddings but
    where they are the output matrix too."""
    config, embeddings = model.config, model.get_input_embeddings().weight
    share = getattr(config, "num_experts_per_tok", None) or 1
    share /= getattr(config, "n_routed_experts", None) or getattr(config, "num_experts", None) or 1
    tied = embeddings is model.get_output_embeddings().weight
    return sum(
        p.numel() * (share if ".experts." in name and "shared" not in name else 1)
        for name, p in model.named_parameters()
        if tied or p is not embeddings
    )


def training(
    sampler: TorchSampler, policy: HFPolicy, limits: dict[str, float], asked: list[SampleRequest] | None = None
) -> dict[str, Any]:
    """`tokens` are those computed; `sequence_tokens` count a prompt for each of its rollouts."""
    asked = asked or requests()
    samples = sampler.sample(asked, max_new_tokens=NEW_TOKENS)
    sequences = [
        Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * len(s.token_ids))
        for r, s in zip(asked, samples, strict=True)
    ]
    sampled = torch.tensor([x for s in samples for x in s.log_probs])
    gap = (policy.score(sequences).log_probs - sampled).abs()

    def step() -> int:
        return policy.step(sequences, lambda log_probs, _: -log_probs.sum() / len(sampled), 1e-6).tokens

    tokens, whole = step(), sum(len(sequence.token_ids) for sequence in sequences)
    torch.cuda.reset_peak_memory_stats()
    seconds = median_seconds(step)
    peak = torch.cuda.max_memory_allocated() / 2**30
    operations = 6 * active_parameters(policy.model) * tokens
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        step()
        torch.cuda.synchronize()
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "sequence_tokens": whole,
        "sequence_tokens_per_second": whole / seconds,
        "scoring_seconds": median_seconds(lambda: policy.score(sequences)),
        "floor_seconds": operations / limits["bf16_operations_per_second"],
        "mfu": operations / seconds / limits["bf16_operations_per_second"],
        "peak_gib": peak,
        "log_prob_gap": {"mean": float(gap.mean()), "max": float(gap.max())},
        **kernels(trace, 1),
    }


def sampling(sampler: TorchSampler, policy: HFPolicy, limits: dict[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prompts in (PROMPTS, SIZES[-1] // ROLLOUTS):
        asked = requests(prompts)
        seconds = median_seconds(lambda asked=asked: sampler.sample(asked, max_new_tokens=NEW_TOKENS), 3, 1)  # type: ignore[misc]
        found[f"{len(asked)} rows"] = {
            "seconds": seconds,
            "tokens_per_second": len(asked) * NEW_TOKENS / seconds,
            "prompt_seconds": median_seconds(lambda asked=asked: sampler.sample(asked, max_new_tokens=1), 3, 1),  # type: ignore[misc]
        }
    found["refresh_seconds"] = median_seconds(lambda: sampler.refresh(policy))
    decoder = sampler._graphs
    assert decoder is not None
    held = PROMPT_TOKENS + NEW_TOKENS // 2
    head = policy.model.get_output_embeddings().weight
    weights = 2 * (sum(p.numel() for p in policy.model.model.layers.parameters()) + head.numel())  # type: ignore[operator]
    # Weights are read; of each row the states, read and written, and the keys and values so far, read.
    row = sum(part.row_bytes(n, torch.bfloat16) for part in decoder._stack.parts for n in (0, held))
    by_size = {}
    with torch.inference_mode():
        for size in (8, 32, 64, 128, 256, 512):
            decoder._lengths.fill_(held)

            def replay(size: int = size) -> None:
                decoder._lengths.fill_(held)
                decoder._replay[size]()

            seconds = median_seconds(replay, 9) / CHECK
            floor = (weights + size * row) / limits["bytes_per_second"]
            with profile(activities=[ProfilerActivity.CUDA]) as trace:
                replay()
                torch.cuda.synchronize()
            by_size[size] = {
                "step_seconds": seconds,
                "tokens_per_second": size / seconds,
                "floor_seconds": floor,
                **kernels(trace, CHECK),
            }
    found["steps"] = by_size
    return found


def kernels(trace: Any, steps: int) -> dict[str, Any]:
    """Kernels of a step, how long they run, and the ten that take longest, in microseconds a step."""
    ran = [e for e in trace.key_averages() if e.self_device_time_total > 0 and e.cpu_time_total == 0]
    ran.sort(key=lambda e: -e.self_device_time_total)
    return {
        "kernels": sum(e.count for e in ran) / steps,
        "kernel_seconds": sum(e.self_device_time_total for e in ran) / steps / 1e6,
        "longest": [[e.key[:100], e.count / steps, round(e.self_device_time_total / steps, 1)] for e in ran[:10]],
    }


if __name__ == "__main__":
    main()
