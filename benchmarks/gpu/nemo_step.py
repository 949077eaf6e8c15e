"""Engine nemo beside engine hf: the same SFT steps and the same RL steps from the same checkpoint, on GPUs.

    python -m benchmarks.gpu.nemo_step [--out FILE]                    # one GPU
    torchrun --nproc-per-node 2 -m benchmarks.gpu.nemo_step --expert 2  # experts dealt out over two

Prints JSON: each engine's losses, gradient norms, seconds and peak memory, and the gaps between the two. Then nemo's
checkpoint is loaded into transformers, and its saved state continued: both must give what the engine gave. What
bfloat16 alone does to the log-probabilities is measured beside them.
"""

import argparse
import json
import random
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import NemotronHConfig, NemotronHForCausalLM

from cascade.chat import encode_conversation, encode_prompt
from cascade.launch.memory_plan import plan_node
from cascade.policy import make_policy
from cascade.policy.base import Objective, Policy, Sequence
from cascade.policy.checkpoint import load_tokenizer, save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.policy.model_size import shape_of
from cascade.recipe import Optimizer, Parallel, SFTNode
from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.training import losses
from cascade.training.sft import mean_negative_log_prob
from cascade.utils import distributed
from cascade.utils.seeds import derive_seed

BASE = Path("models/base")
OPTIMIZER = Optimizer(learning_rate=1e-4, micro_batch_tokens=16384)
SFT_STEPS, RL_STEPS, SEQUENCES = 6, 3, 128
PROMPTS, ROLLOUTS, NEW_TOKENS = 16, 8, 64
NOISE = 24
"""Conversations from which it is seen how far bfloat16 alone moves log-probabilities."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--engines", nargs="+", default=["hf", "nemo"])
    arguments.add_argument("--models", nargs="+", default=["base", "141M"], choices=["base", "141M"])
    arguments.add_argument("--expert", type=int, default=1)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": distributed.size(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    for name in options.models:
        # One after another, so that what a later one breaks leaves the earlier ones' numbers.
        found[name] = compare(name, options.engines, Parallel(expert=options.expert))
        if distributed.is_main():
            print(json.dumps({name: found[name]}, indent=1), flush=True)
            if options.out:
                options.out.write_text(json.dumps(found, indent=1))


def compare(name: str, engines: list[str], parallel: Parallel) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(distributed.broadcast_from_main(lambda: scratch))
        checkpoint = BASE if name == "base" else folder / "model"
        if name != "base" and distributed.is_main():
            save_checkpoint(random_model(), load_tokenizer(BASE, 2**30), checkpoint)
        distributed.barrier()
        batch, rollouts, rewards = conversations(checkpoint), *sample(checkpoint)
        found: dict[str, Any] = {"bfloat16 against float32": noise(checkpoint, batch[:NOISE])}
        scores: list[torch.Tensor] = []
        for engine in engines:
            try:
                found[engine] = run(engine, checkpoint, batch, rollouts, rewards, parallel, folder, scores)
            except Exception:
                found[engine] = {"error": traceback.format_exc()}
            torch.cuda.empty_cache()
        if len(scores) == 2:
            one, other = (found[engine] for engine in engines)
            gap = (scores[0] - scores[1]).abs()
            found["gap"] = {
                "sft losses": [a - b for a, b in zip(one["sft losses"], other["sft losses"], strict=True)],
                "rl losses": [a - b for a, b in zip(one["rl losses"], other["rl losses"], strict=True)],
                "gradient norms, relative": [
                    a / b - 1 for a, b in zip(one["gradient norms"], other["gradient norms"], strict=True)
                ],
                "log-probabilities before training, mean": gap.mean().item(),
                "log-probabilities before training, max": gap.max().item(),
            }
        distributed.barrier()
    return found


def run(
    engine: str,
    checkpoint: Path,
    batch: list[Sequence],
    rollouts: list[Sequence],
    rewards: torch.Tensor,
    parallel: Parallel,
    folder: Path,
    scores: list[torch.Tensor],
) -> dict[str, Any]:
    """SFT steps from the checkpoint, then RL steps on rollouts of the checkpoint; then save, load, continue."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    policy = make_policy(engine, checkpoint, OPTIMIZER, parallel=parallel)
    before = policy.score(batch).log_probs
    trained = sum(sum(sequence.trained) for sequence in batch)
    losses, norms, seconds = [], [], []
    for _ in range(SFT_STEPS):
        began = time.perf_counter()
        report = policy.step(batch, mean_negative_log_prob(trained), OPTIMIZER.learning_rate)
        losses.append(report.loss)
        norms.append(report.gradient_norm)
        seconds.append(time.perf_counter() - began)
    state = policy.training_state()
    rl_reports, rl_seconds = [], []
    for _ in range(RL_STEPS):
        began = time.perf_counter()
        rl_reports.append(policy.step(rollouts, group_relative(rollouts, rewards), OPTIMIZER.learning_rate))
        rl_seconds.append(time.perf_counter() - began)
    rl = rl_reports[0]
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0
    found = {
        "class": type(getattr(policy, "_net", policy.model)).__module__,
        "sft losses": losses,
        "rl losses": [step.loss for step in rl_reports],
        "gradient norms": [*norms, *(step.gradient_norm for step in rl_reports)],
        "expert load, max over mean": None
        if rl.expert_load is None
        else (rl.expert_load.amax(1) * rl.expert_load.shape[1]).tolist(),
        "tokens a step": report.tokens,
        "tokens an rl step": rl.tokens,
        "sft seconds": seconds,
        "rl seconds": rl_seconds,
        "peak MiB": peak,
        "planned MiB": planned(engine, checkpoint, parallel) / 2**20,
    }
    saved = folder / f"saved-{engine}"
    if distributed.is_main() or policy.sharded:
        policy.save(saved)
    distributed.barrier()
    again = make_policy("hf", saved, None).score(rollouts).log_probs
    found["checkpoint against engine, mean nats"] = (again - policy.score(rollouts).log_probs).abs().mean().item()
    found["sampled from its weights"] = len(sample_from(policy)[0].token_ids)
    del policy
    resumed = make_policy(engine, checkpoint, OPTIMIZER, parallel=parallel)
    resumed.load_training_state(state)
    same = resumed.step(rollouts, group_relative(rollouts, rewards), OPTIMIZER.learning_rate)
    found["resumed rl loss less the first"] = same.loss - rl.loss
    scores.append(before)  # Last: only of an engine that came through.
    return found


def noise(checkpoint: Path, batch: list[Sequence]) -> dict[str, float]:
    """Transformers' own forward pass in bfloat16 against the same in float32: gaps in nats."""
    scores = []
    for dtype in (torch.float32, torch.bfloat16):
        # With causal_conv1d there, transformers' Mamba layers take its kernel for tensors on the CPU too.
        policy = HFPolicy(checkpoint, device=distributed.device())
        policy._fast = False
        policy.model.to(dtype)
        scores.append(policy.score(batch).log_probs)
    gap = (scores[0] - scores[1]).abs()
    return {"mean": gap.mean().item(), "max": gap.max().item()}


def planned(engine: str, checkpoint: Path, parallel: Parallel) -> float:
    """Bytes that the memory plan expects of each GPU."""
    settings = {"init": "base", "round": 1, "epochs": 1, "batch": 1, "optimizer": OPTIMIZER, "engine": engine}
    node = SFTNode(**settings, parallel=parallel if engine == "nemo" else Parallel())  # type: ignore[arg-type]
    return plan_node(shape_of(checkpoint / "config.json"), node, distributed.size(), longest=0, teachers=0).total


def conversations(checkpoint: Path) -> list[Sequence]:
    """Sums, as chats; longer and shorter ones."""
    draw, tokenizer = random.Random(derive_seed(0, "nemo_step")), load_tokenizer(checkpoint, 2**30)
    found = []
    for _ in range(SEQUENCES):
        numbers = [draw.randrange(1, 1000) for _ in range(draw.randrange(2, 40))]
        words = {"role": "user", "content": f"What is {' + '.join(map(str, numbers))}?"}
        steps = ", then ".join(str(sum(numbers[: i + 1])) for i in range(len(numbers)))
        answer = {"role": "assistant", "reasoning_content": steps, "content": f"\\boxed{{{sum(numbers)}}}"}
        conversation = encode_conversation(tokenizer, [words, answer])
        found.append(Sequence(conversation.token_ids, conversation.trained))
    return found


def sample(checkpoint: Path) -> tuple[list[Sequence], torch.Tensor]:
    """Rollouts of the checkpoint and their rewards: the share of even tokens, which differs within every group."""
    policy = make_policy("hf", checkpoint, None)
    requests = prompts(policy)
    samples = TorchSampler(policy).sample(requests, max_new_tokens=NEW_TOKENS)
    rewards = torch.tensor([sum(t % 2 == 0 for t in s.token_ids) / len(s.token_ids) for s in samples])
    sequences = [
        Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * len(s.token_ids))
        for r, s in zip(requests, samples, strict=True)
    ]
    return sequences, rewards.double()


def sample_from(policy: Policy) -> list[Sample]:
    """A sampler reads the engine's weights, whichever way it holds them."""
    return TorchSampler(policy).sample(prompts(policy)[:2], max_new_tokens=4)


def prompts(policy: Policy) -> list[SampleRequest]:
    texts = [[{"role": "user", "content": f"What is {7 * n} + {n * n}?"}] for n in range(PROMPTS)]
    ids = [encode_prompt(policy.tokenizer, text) for text in texts]
    return [SampleRequest(ids[n], derive_seed(n, rollout)) for n in range(PROMPTS) for rollout in range(ROLLOUTS)]


def group_relative(rollouts: list[Sequence], rewards: torch.Tensor) -> Objective:
    groups = torch.arange(PROMPTS).repeat_interleave(ROLLOUTS)
    lengths = torch.tensor([sum(rollout.trained) for rollout in rollouts])
    advantages = losses.group_advantages(rewards, groups).float().repeat_interleave(lengths)

    def objective(log_probs: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        picked = advantages[index.cpu()].to(log_probs.device)
        return losses.policy_gradient_loss(log_probs, picked, len(advantages))

    return objective


def random_model() -> NemotronHForCausalLM:
    torch.manual_seed(0)
    return NemotronHForCausalLM(random_config()).to(torch.bfloat16)


def random_config() -> NemotronHConfig:
    return NemotronHConfig(
        vocab_size=2048,
        hidden_size=768,
        hybrid_override_pattern="ME*EMEME*EME",
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        mamba_num_heads=24,
        mamba_head_dim=64,
        ssm_state_size=64,
        n_groups=2,
        chunk_size=128,
        n_routed_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=768,
        moe_shared_expert_intermediate_size=1536,
        initializer_range=0.02,
        eos_token_id=5,
        bos_token_id=1,
        pad_token_id=0,
        dtype="bfloat16",
    )


if __name__ == "__main__":
    with distributed.process_group():
        main()
