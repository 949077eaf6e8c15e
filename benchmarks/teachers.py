"""What a distillation step with three teachers costs beside an RL step on the same tokens.

    python -m benchmarks.teachers

Each round samples a batch with the sampler of the loop and takes both steps on it, by the classes that the loop uses:
an RL step, and a distillation step for which three teachers of different content score the batch, each its third of
the prompts. A step is sampling, advantages and training; medians over the rounds. Rewards are a hash of the response,
so that every group counts. Sizes are those of the nano recipe's distillation.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import torch

from cascade import environments
from cascade.chat import encode_prompt, prompt_of
from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.recipe import DistillNode, Optimizer, Rollout, TeacherMemory
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.training.algorithms import GRPO, MOPD, AdvantageSource
from cascade.training.batch import Batch
from cascade.training.teacher_scoring import Teacher, Teachers
from cascade.utils.seeds import derive_seed

DOMAINS = ("one", "two", "three")
LEARNING_RATE = 1e-5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", type=Path, default=Path("models/base"))
    arguments.add_argument("--prompts", type=int, default=32)
    arguments.add_argument("--rollouts", type=int, default=4)
    arguments.add_argument("--tokens", type=int, default=160, help="new tokens a response, at most")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--warmup", type=int, default=2)
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        of_domain = {domain: make_teacher(options.model, Path(scratch) / domain, n) for n, domain in enumerate(DOMAINS)}
        print(f"{options.prompts} prompts x {options.rollouts} rollouts, {options.threads} threads, seconds a step")
        print(f"{'teachers wait':>14} {'tokens':>7} {'sampling':>9} {'RL':>6} {'MOPD':>6} {'scoring':>8} {'ratio':>6}")
        for memory in get_args(TeacherMemory):
            teachers = Teachers(of_domain, make_node(options, memory))
            rounds = [measure(options, teachers, n) for n in range(options.warmup + options.rounds)]
            medians = (statistics.median(column) for column in zip(*rounds[options.warmup :], strict=True))
            tokens, sampling, rl, mopd, scoring, ratio = medians
            print(
                f"{memory:>14} {tokens:>7.0f} {sampling:>9.2f} {sampling + rl:>6.2f} {sampling + mopd:>6.2f} "
                f"{scoring:>8.2f} {ratio:>5.2f}x",
                flush=True,
            )


def measure(options: argparse.Namespace, teachers: Teachers, number: int) -> tuple[float, ...]:
    """Tokens; seconds of sampling, of what an RL and a distillation step have beyond it, of scoring; the ratio."""
    policy = HFPolicy(options.model, Optimizer(learning_rate=LEARNING_RATE))
    sampler = TorchSampler(policy)
    rows = environments.get("math").generate(options.prompts, derive_seed("teachers", number), 2)
    prompts = [encode_prompt(policy.tokenizer, *prompt_of(row), thinking=True) for row in rows]
    owners = [n for n in range(len(prompts)) for _ in range(options.rollouts)]
    requests = [SampleRequest(prompts[n], derive_seed("teachers", number, i)) for i, n in enumerate(owners)]
    began = time.perf_counter()
    samples = sampler.sample(requests, max_new_tokens=options.tokens)
    sampling = time.perf_counter() - began
    batch = Batch(
        rollouts=[  # What the advantages look at.
            SimpleNamespace(
                reward=derive_seed(*sample.token_ids) % 1000 / 1000,
                prompt=SimpleNamespace(domain=DOMAINS[n % len(DOMAINS)]),
            )
            for n, sample in zip(owners, samples, strict=True)
        ],
        groups=torch.tensor(owners),
        sequences=[
            Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * len(s.token_ids))
            for r, s in zip(requests, samples, strict=True)
        ],
        sampler_log_probs=torch.tensor([x for sample in samples for x in sample.log_probs]),
        owner=torch.arange(len(samples)).repeat_interleave(torch.tensor([len(s.token_ids) for s in samples])),
    )
    distillation = partial(MOPD, teachers=teachers, node=make_node(options, "device"))
    steps = {"rl": partial(step, policy, batch, GRPO), "mopd": partial(step, policy, batch, distillation)}
    order = ("rl", "mopd") if number % 2 else ("mopd", "rl")
    found = {name: steps[name]() for name in order}
    (_, rl), (scoring, mopd) = found["rl"], found["mopd"]
    return batch.tokens, sampling, rl, mopd, scoring, (sampling + mopd) / (sampling + rl)


def step(policy: HFPolicy, batch: Batch, advantages: AdvantageSource) -> tuple[float, float]:
    """Seconds of the advantages, and of these with the optimizer step."""
    began = time.perf_counter()
    signal = advantages(batch)
    scored = time.perf_counter()
    policy.step(batch.sequences, signal, LEARNING_RATE)
    return scored - began, time.perf_counter() - began


def make_node(options: argparse.Namespace, memory: TeacherMemory) -> DistillNode:
    return DistillNode(
        init="base",
        round=1,
        mix=dict.fromkeys(DOMAINS, 1 / len(DOMAINS)),
        steps=options.rounds,
        prompts=options.prompts,
        rollouts=options.rollouts,
        rollout=Rollout(max_new_tokens=options.tokens),
        optimizer=Optimizer(learning_rate=LEARNING_RATE),
        teachers="chosen",
        teacher_memory=memory,
    )


def make_teacher(model: Path, directory: Path, number: int) -> Teacher:
    """The model with some noise on its weights: a teacher of its own content."""
    policy = HFPolicy(model)
    generator = torch.Generator().manual_seed(derive_seed("teachers", "noise", number))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.002 * torch.randn(parameter.shape, generator=generator)
    policy.save(directory)
    return Teacher(directory.name, directory, directory.name)


if __name__ == "__main__":
    main()
