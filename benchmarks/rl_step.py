"""One RL step (16 prompts x 8 rollouts) against TRL's GRPOTrainer: `make bench`, or `python -m benchmarks.rl_step`.

Same model, prompts, response lengths (end-of-turn ignored), optimizer, precision (float32 on the CPU; on a GPU, which
is used where there is one, bfloat16 autocast of float32 weights), threads, machine and process. The two take turns:
after each step of TRL's, one of ours. The first steps are not counted; medians are. Rewards are a hash of the
response, so that no group is of zero variance and neither side may skip work.

`--before TREE`: our side alone, of this checkout and of another, in turns, each in a process of its own. Seconds of
wall time, of CPU time, and of CPU time of the busiest thread, below which wall time cannot fall. On a machine that
others use, that is the figure to compare.

`--profile`: where the CPU time of our side goes, on one thread, by operation.

With `--write` the ratios go to results/benchmarks/speed.json, as `trl`, by new tokens.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import NemotronHConfig, NemotronHForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from benchmarks import speed
from benchmarks.revisions import HERE
from cascade.policy.base import Sequence
from cascade.policy.checkpoint import load_checkpoint, save_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.processes import ProcessSampler
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.training import losses
from cascade.utils.files import write_json
from cascade.utils.seeds import derive_seed

CUDA = torch.cuda.is_available()
PROMPTS, ROLLOUTS = 16, 8
LEARNING_RATE = 1e-5
OPERATIONS = 16
"""Printed of a profile."""
WORDS = "a farmer has apples pears and some baskets how many remain when he sells half of them each day"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", type=Path, default=Path("models/base"), help="default: models/base, else random")
    arguments.add_argument("--tokens", type=int, nargs="+", default=[32, 128, 512], help="new tokens a response")
    arguments.add_argument("--steps", type=int, default=5, help="measured steps a side")
    arguments.add_argument("--warmup", type=int, default=2)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--trl-rows", type=int, default=32, help="rows of TRL's micro-batch")
    arguments.add_argument("--micro-batch-tokens", type=int, default=8192, help="of ours")
    arguments.add_argument("--out", type=Path, help="JSON file for the times")
    arguments.add_argument("--write", action="store_true", help="the ratios into results/benchmarks/speed.json")
    arguments.add_argument("--before", type=Path, metavar="TREE", help="another checkout, in place of TRL")
    arguments.add_argument("--profile", action="store_true", help="our step by operation, in place of TRL")
    options = arguments.parse_args()
    torch.set_num_threads(1 if options.profile else options.threads)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model
        if not (model / "config.json").is_file():
            model = Path(scratch) / "model"
            make_model(model)
            print(f"no model in {options.model}: a random one of the same kind")
        if options.profile:
            for count in options.tokens:
                profile(model, count, options)
            return
        print(f"{PROMPTS} prompts x {ROLLOUTS} rollouts, {options.threads} threads, medians of {options.steps} steps")
        if options.before:
            for count in options.tokens:
                compare_revisions(model, count, options)
            return
        print(f"{'new tokens':>10} {'':>8} {'step s':>8} {'sampling':>9} {'training':>9} {'ratio':>6}")
        times: dict[int, dict[str, list[tuple[float, float]]]] = {}
        ratios: dict[str, float] = {}
        for count in options.tokens:
            theirs, ours = compare(model, count, options, Path(scratch))
            times[count] = {"TRL: sampling, training": theirs, "Cascade: sampling, training": ours}
            steps = [statistics.median(map(sum, side)) for side in (theirs, ours)]
            ratios[str(count)] = round(steps[0] / steps[1], 2)
            for side, parts, step in zip(("TRL", "Cascade"), (theirs, ours), steps, strict=True):
                sampling, training = (statistics.median(part) for part in zip(*parts, strict=True))
                ratio = f"{steps[0] / steps[1]:>5.1f}x" if parts is ours else ""
                print(f"{count:>10} {side:>8} {step:>8.2f} {sampling:>9.2f} {training:>9.2f} {ratio}", flush=True)
            if options.out:
                device = torch.cuda.get_device_name() if CUDA else "cpu"
                write_json(options.out, {"device": device, "torch": torch.__version__, "seconds": times})
        if options.write:
            speed.write({"trl": ratios})


def compare_revisions(model: Path, count: int, options: argparse.Namespace) -> None:
    """Print the medians of both checkouts' steps, and the medians of their ratios, step by step."""
    arguments = map(str, (model.resolve(), count, options.micro_batch_tokens, options.threads))
    command = [sys.executable, "-P", str(Path(__file__).with_name("own_steps.py")), *arguments]
    sides = [
        subprocess.Popen(
            command,
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # As a run starts its nodes: Linux divides cores by session.
        )
        for tree in (options.before.resolve(), HERE)
    ]
    found: list[list[list[float]]] = [[], []]
    for _ in range(options.warmup + options.steps):
        for side, times in zip(sides, found, strict=True):
            assert side.stdin is not None
            assert side.stdout is not None
            side.stdin.write("\n")
            side.stdin.flush()
            parts = json.loads(side.stdout.readline())
            whole = [sum(pair) for pair in zip(*parts.values(), strict=True)]
            times.append([*parts["sampling"], *parts["training"], *whole])
    for side in sides:
        side.communicate()
    before, after = (times[options.warmup :] for times in found)
    ratios = [[a / b for a, b in zip(*rows, strict=True)] for rows in zip(after, before, strict=True)]
    names = [f"{part}, {kind}" for part in ("sampling", "training", "both") for kind in ("wall", "CPU", "busiest")]
    for name, *columns in zip(names, *(zip(*rows, strict=True) for rows in (before, after, ratios)), strict=True):
        then, now, ratio = map(statistics.median, columns)
        print(f"{count:>10} {name:>18} {then:>8.2f} -> {now:>6.2f} {ratio:>6.2f}", flush=True)


def profile(model: Path, count: int, options: argparse.Namespace) -> None:
    """Print, of the sampling and of the training of one step: seconds, share, calls and rate of each operation."""
    step: Any = OwnStep(model, made_up_texts(), count, options.micro_batch_tokens)
    for number in range(options.warmup):
        step(number)

    def profiled(name: str, work: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as found:
                result = work(*arguments, **named)
            rows = sorted(found.key_averages(), key=lambda row: -row.self_cpu_time_total)
            whole = sum(row.self_cpu_time_total for row in rows)
            print(f"{name}, {count} new tokens: {whole / 1e6:.2f} s of operations")
            for row in rows[:OPERATIONS]:
                seconds = row.self_cpu_time_total / 1e6
                rate = f"{row.flops / 1e9:8.1f} GFLOP {row.flops / 1e9 / seconds:6.0f} a second" if row.flops else ""
                share = 100 * row.self_cpu_time_total / whole
                print(f"  {row.key[:40]:40} {seconds:7.2f} s {share:5.1f} % {row.count:8} calls {rate}", flush=True)
            return result

        return call

    step.sampler.sample = profiled("sampling", step.sampler.sample)
    step.policy.step = profiled("training", step.policy.step)
    step(options.warmup)


def made_up_texts() -> list[str]:
    words = WORDS.split()
    return [" ".join(words[(3 * n + i * i) % len(words)] for i in range(8 + n % 9)) for n in range(PROMPTS)]


def compare(
    model: Path,
    count: int,
    options: argparse.Namespace,
    scratch: Path,
    texts: list[str] | None = None,
    vllm_memory: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(sampling, training) seconds of TRL's steps, and of ours. Rewards and advantages count as training.

    `vllm_memory`: TRL samples by a vLLM of its own on the same device, which takes this share of the memory.
    `dtype`: of TRL's weights; ours are float32.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    texts = texts or made_up_texts()
    step = OwnStep(model, texts, count, options.micro_batch_tokens)
    theirs: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []

    class Timed(GRPOTrainer):
        sampling = 0.0

        def _generate(self, *arguments: Any, **settings: Any) -> Any:
            synchronize()
            start = time.perf_counter()
            found = super()._generate(*arguments, **settings)
            synchronize()
            self.sampling += time.perf_counter() - start
            return found

    class TakeTurns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            synchronize()
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize()
            theirs.append((trainer.sampling, time.perf_counter() - self.start - trainer.sampling))
            assert trainer.sampling > 0, "this version of TRL samples by another method"
            trainer.sampling = 0.0
            ours.append(step(len(ours)))

    settings = GRPOConfig(
        output_dir=str(scratch / "trl"),
        per_device_train_batch_size=options.trl_rows,
        gradient_accumulation_steps=PROMPTS * ROLLOUTS // options.trl_rows,
        num_generations=ROLLOUTS,
        max_completion_length=count,
        generation_kwargs={"min_new_tokens": count} if vllm_memory is None else {"ignore_eos": True},
        **sampling_engine(vllm_memory),
        max_steps=options.warmup + options.steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        beta=0.0,
        bf16=CUDA,
        use_cpu=not CUDA,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    other, tokenizer = load_checkpoint(model, dtype)
    trainer = Timed(
        model=other,
        reward_funcs=lambda completion_ids, **_: [reward(tokens) for tokens in completion_ids],
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
        callbacks=[TakeTurns()],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return theirs[options.warmup :], ours[options.warmup :]


def sampling_engine(vllm_memory: float | None) -> dict[str, Any]:
    if vllm_memory is None:
        return {}
    return {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": vllm_memory}


class OwnStep:
    """Sampling, rewards and one strictly on-policy GRPO step, by the classes that the training loop uses."""

    def __init__(self, model: Path, texts: list[str], count: int, micro_batch_tokens: int):
        settings = Optimizer(learning_rate=LEARNING_RATE, weight_decay=0.0, micro_batch_tokens=micro_batch_tokens)
        self.policy = HFPolicy(model, settings, "cuda" if CUDA else "cpu")
        threads = torch.get_num_threads()
        self.sampler: TorchSampler | ProcessSampler = (
            TorchSampler(self.policy, stop=())
            if CUDA or threads == 1
            else ProcessSampler(self.policy, threads, stop=())
        )
        self.prompts = [self.policy.tokenizer(text)["input_ids"] for text in texts]
        self.count = count
        self.groups = torch.arange(PROMPTS).repeat_interleave(ROLLOUTS)

    def __call__(self, number: int) -> tuple[float, float]:
        start = time.perf_counter()
        self.sampler.refresh(self.policy)
        requests = [
            SampleRequest(prompt, derive_seed("bench", number, n, rollout))
            for n, prompt in enumerate(self.prompts)
            for rollout in range(ROLLOUTS)
        ]
        samples = self.sampler.sample(requests, max_new_tokens=self.count)
        self.policy.tokenizer.batch_decode([sample.token_ids for sample in samples])
        sampled = time.perf_counter()
        rewards = torch.tensor([reward(sample.token_ids) for sample in samples])
        advantages = losses.group_advantages(rewards, self.groups).repeat_interleave(self.count)
        advantages = advantages.to(self.policy.device)
        sequences = [
            Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * self.count)
            for r, s in zip(requests, samples, strict=True)
        ]
        self.policy.step(
            sequences,
            lambda log_probs, index: losses.policy_gradient_loss(log_probs, advantages[index], len(advantages)),
            LEARNING_RATE,
        )
        synchronize()
        return sampled - start, time.perf_counter() - sampled


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def reward(token_ids: list[int]) -> float:
    return derive_seed(*token_ids) % 1000 / 1000


def byte_tokenizer() -> PreTrainedTokenizerFast:
    letters = {letter: number + 3 for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={"<pad>": 0, "<|im_start|>": 1, "<|im_end|>": 2, **letters}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<pad>")


def make_model(directory: Path) -> None:
    """A NemotronH of random weights, 4.2M parameters, with a tokenizer of bytes."""
    torch.manual_seed(0)
    config = NemotronHConfig(
        vocab_size=2048,
        hidden_size=128,
        hybrid_override_pattern="ME*EME*E",
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        mamba_num_heads=8,
        mamba_head_dim=32,
        ssm_state_size=32,
        n_groups=1,
        chunk_size=32,
        n_routed_experts=16,
        num_experts_per_tok=2,
        moe_intermediate_size=192,
        moe_shared_expert_intermediate_size=192,
        initializer_range=0.06,
    )
    save_checkpoint(NemotronHForCausalLM(config), byte_tokenizer(), directory)


if __name__ == "__main__":
    main()
