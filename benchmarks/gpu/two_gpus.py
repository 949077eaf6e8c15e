"""Training on two GPUs beside training on one, in parts that can be run one by one:

    python -m benchmarks.gpu.two_gpus PART … [--out results/gpu/two_gpus.json] [--work DIR]

prepare  the models: `141M`, of nemo_step, and `wide`, of wide_model (2.7 billion parameters)
links    NCCL alone: bandwidth of large collectives, seconds of small ones
hf       engine hf, 141M, one and two GPUs                                → hf_scaling
nemo     engine nemo, wide, one and two GPUs                              → nemo_scaling
layouts  engine nemo, wide, two GPUs, the other ways to lay it out
fsdp2    plain transformers and FSDP2, wide, two GPUs                     → nemo_over_fsdp2
refresh  the torch sampler's weights after a step of nemo, 141M and wide  → refresh_seconds (of 141M)
mopd     a step of distillation from three teachers beside one of RL      → mopd_over_rl_step
graph    models/base by each engine: SFT, RL, distillation from two teachers, a node killed and resumed
plan     what `cascade recipe plan` now says of the runs so far            → plan_ratio_min, plan_ratio_max

Each part adds to the file what it measured, under `runs` each run with its seconds, its tokens a second, its peak and
planned memory, and for one step what its kernels took (of that, communication), by name.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import nemo_step, two_gpus_graph, wide_model
from cascade.launch.memory_plan import plan_node
from cascade.policy import make_policy
from cascade.policy.base import Policy, Sequence
from cascade.policy.batching import micro_batches
from cascade.policy.checkpoint import load_checkpoint, load_tokenizer, save_checkpoint
from cascade.policy.model_size import shape_of
from cascade.recipe import DistillNode, Optimizer, Parallel, SFTNode
from cascade.rollout.base import Sampler
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.training.algorithms import MOPD
from cascade.training.batch import Batch
from cascade.training.sft import mean_negative_log_prob
from cascade.training.teacher_scoring import Teacher, Teachers
from cascade.utils import distributed

OUT = Path("results/gpu/two_gpus.json")
WORK = Path(tempfile.gettempdir()) / "two_gpus"
LARGE, SMALL = 65536, 16384
"""Tokens of a micro-batch. With small ones both engines wait for kernel launches."""
OPTIMIZER = Optimizer(learning_rate=1e-4, micro_batch_tokens=LARGE)
SEQUENCES, WARM_UP, STEPS = 512, 2, 5
NEW_TOKENS = 256
"""Of a rollout, in steps of RL and distillation."""
LIMIT = 420
"""Seconds that one run may take."""
EXPERT = {"expert": 2}


def _sizes(name: str, gpus: int, task: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    return [
        (name if tokens == LARGE else f"{name}, micro-batches of {tokens}", gpus, {**task, "tokens": tokens})
        for tokens in (LARGE, SMALL)
    ]


RUNS: dict[str, list[tuple[str, int, dict[str, Any]]]] = {
    "links": [("links", 2, {"do": "links", "model": "141M"})],
    "hf": [run for n in (1, 2) for run in _sizes("hf 141M", n, {"do": "train", "model": "141M", "engine": "hf"})],
    "nemo": [
        *_sizes("nemo wide", 1, {"do": "train", "model": "wide", "engine": "nemo"}),
        *_sizes("nemo wide", 2, {"do": "train", "model": "wide", "engine": "nemo", "parallel": EXPERT}),
    ],
    "layouts": [
        (name, 2, {"do": "train", "model": model, "engine": "nemo", "parallel": parallel, "brief": True})
        for name, model, parallel in (
            ("nemo wide, expert 1", "wide", {}),
            ("nemo wide, expert 1, kept gathered", "wide", {"keep_gathered": True}),
            ("nemo wide, gathered by layer", "wide", {**EXPERT, "keep_gathered": False}),
            ("nemo wide, activations again", "wide", {**EXPERT, "checkpoint_activations": True}),
            ("nemo 141M", "141M", EXPERT),
            ("nemo 141M, expert 1", "141M", {}),
        )
    ],
    # The largest micro-batch that fits; smaller ones are tried where it does not.
    "fsdp2": [
        (
            "transformers and FSDP2 wide",
            2,
            {"do": "fsdp2", "model": "wide", "tokens": LARGE // n},
        )
        for n in (1, 2, 4, 8, 16)
    ],
    "refresh": [
        (f"refresh {model}", 2, {"do": "refresh", "model": model, "engine": "nemo", "parallel": EXPERT})
        for model in ("141M", "wide")
    ],
    "mopd": [("mopd wide", 2, {"do": "mopd", "model": "wide", "engine": "nemo", "parallel": EXPERT})],
}
GRAPHS: dict[str, dict[str, Any]] = {
    "hf": {},
    "nemo, expert 2": {"engine": "nemo", "parallel": EXPERT},
}
PARTS = ["prepare", *RUNS, "graph", "plan"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("parts", nargs="*", choices=[*PARTS, []])
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--work", type=Path, default=WORK)
    arguments.add_argument("--only", help="runs whose name contains this")
    arguments.add_argument("--merge", type=Path, nargs="+", default=[], help="add what is in these files")
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.worker:
        with distributed.process_group():
            worker(json.loads(options.worker))
        return
    for file in options.merge:
        other = json.loads(file.read_text())
        keep(options.out, other["runs"], other["graphs"])
    for part in options.parts or ([] if options.merge else PARTS):
        if part == "prepare":
            prepare(options.work)
        elif part == "plan":
            runs = json.loads(options.out.read_text())["runs"] if options.out.exists() else {}
            keep(options.out, {name: planned_anew(run, options.work) for name, run in runs.items() if "task" in run})
        elif part == "graph":
            chosen = {name: engine for name, engine in GRAPHS.items() if not options.only or options.only in name}
            keep(options.out, {}, two_gpus_graph.run(options.work, chosen))
        else:
            for name, gpus, task in RUNS[part]:
                if not options.only or options.only in name:
                    found = launched({**task, "work": str(options.work)}, gpus)
                    keep(options.out, {f"{name}, GPUs {gpus}": found})
                    if part == "fsdp2" and "error" not in found:
                        break
        print(f"part {part} done", flush=True)


def prepare(work: Path) -> None:
    """Models and inputs; what is there stays."""
    for name, make in (("141M", nemo_step.random_config), ("wide", wide_model.config)):
        folder = work / name
        if not (folder / "checkpoint").exists():
            began = time.perf_counter()
            if name == "wide":
                wide_model.build(folder / "checkpoint", make())
            else:
                tokenizer = load_tokenizer(nemo_step.BASE, 2**30)
                save_checkpoint(nemo_step.random_model(), tokenizer, folder / "checkpoint")
            print(f"{name}: built in {time.perf_counter() - began:.0f} s", flush=True)


def launched(
    task: dict[str, Any], gpus: int, module: str = "benchmarks.gpu.two_gpus", limit: float = LIMIT
) -> dict[str, Any]:
    """What a run of `module` found, or its error: a part goes on with its other runs."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", str(gpus), "-m", module]
        command += ["--worker", json.dumps({**task, "result": str(result)})]
        environment = {"OMP_NUM_THREADS": "4", "CASCADE_PATIENCE": "300", "MAMBA_DETERMINISTIC": "1", **os.environ}
        began = time.perf_counter()
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
            printed = f"{done.stdout}\n{done.stderr}"
        except subprocess.TimeoutExpired as error:
            printed = f"no end after {limit:.0f} s\n{error.stderr or b''!r}"
        found = json.loads(result.read_text()) if result.exists() else {"error": _errors(printed)}
    found["seconds, start included"] = round(time.perf_counter() - began, 1)
    print(json.dumps({**task, "gpus": gpus, **{k: v for k, v in found.items() if k != "kernels"}}), flush=True)
    return found


def _errors(printed: str) -> str:
    lines = [line for line in printed.splitlines() if "Error" in line or "error:" in line or "OutOfMemory" in line]
    return "\n".join([*dict.fromkeys(lines[:8]), "…", *printed.splitlines()[-5:]])[:3000]


def keep(out: Path, runs: dict[str, Any], graphs: dict[str, Any] | None = None) -> None:
    """Merge runs into the file, and say again what follows from all that it has."""
    known = json.loads(out.read_text()) if out.exists() else {}
    known["runs"] = {**known.get("runs", {}), **runs}
    known["graphs"] = {**known.get("graphs", {}), **(graphs or {})}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({**summary(known["runs"]), "graphs": known["graphs"], "runs": known["runs"]}, indent=1) + "\n"
    )


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """The figures asked for; a ratio of two runs only where the same kind of card did both."""

    def ratio(above: str, below: str, key: str = "tokens/s") -> float | None:
        one, other = runs.get(above, {}), runs.get(below, {})
        if key not in one or key not in other or one["device"] != other["device"]:
            return None
        return round(one[key] / other[key], 3)

    # On CPUs, where this is tried out, no peak is measured.
    planned = [run for run in runs.values() if run.get("planned MiB") and run["peak MiB"]]
    fits = [round(run["planned MiB"] / run["peak MiB"], 3) for run in planned]
    mopd = runs.get("mopd wide, GPUs 2", {})
    return {
        "hf_scaling": ratio("hf 141M, GPUs 2", "hf 141M, GPUs 1"),
        "nemo_scaling": ratio("nemo wide, GPUs 2", "nemo wide, GPUs 1"),
        "nemo_over_fsdp2": ratio("nemo wide, GPUs 2", "transformers and FSDP2 wide, GPUs 2"),
        "refresh_seconds": runs.get("refresh 141M, GPUs 2", {}).get("refresh s"),
        "mopd_over_rl_step": round(mopd["mopd step s"] / mopd["rl step s"], 3) if "mopd step s" in mopd else None,
        "plan_ratio_min": min(fits, default=None),
        "plan_ratio_max": max(fits, default=None),
        "devices": sorted({run["device"] for run in runs.values() if "device" in run}),
    }


def worker(task: dict[str, Any]) -> None:
    """One run, in every process of it; the first writes what was found."""
    checkpoint = Path(task["work"]) / task["model"] / "checkpoint"
    do: Callable[..., dict[str, Any]] = globals()[task["do"]]
    began = time.perf_counter()
    more = {key: task[key] for key in ("tokens", "brief") if key in task}
    found = do(checkpoint, task.get("engine"), Parallel(**task.get("parallel", {})), **more)
    gpu = torch.cuda.is_available()
    found |= {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processes": distributed.size(),
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if distributed.is_main():
        Path(task["result"]).write_text(json.dumps(found))


def links(checkpoint: Path, engine: str | None, parallel: Parallel) -> dict[str, Any]:
    """GB/s of what one process has, in collectives of 512 MiB, and microseconds of those of 4 KiB."""
    import torch.distributed as dist

    found = {}
    for unit, size in (("GB/s", 2**29), ("µs", 2**12)):
        own = torch.ones(size // 2, dtype=torch.bfloat16, device=distributed.device())
        whole = own.new_empty(len(own) * distributed.size())
        kinds: dict[str, Callable[[], Any]] = {
            "all-reduce": partial(dist.all_reduce, own),
            "all-gather": partial(dist.all_gather_into_tensor, whole, own),
            "reduce-scatter": partial(dist.reduce_scatter_tensor, own, whole),
        }
        for name, collective in kinds.items():
            seconds = []
            for _ in range(8):
                synchronize()
                began = time.perf_counter()
                for _ in range(10):
                    collective()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds.append((time.perf_counter() - began) / 10)
            best = min(seconds)
            found[f"{name}, {unit}"] = round(size / best / 1e9, 1) if unit == "GB/s" else round(best * 1e6, 1)
    began = time.perf_counter()
    for _ in range(20):
        distributed.barrier()
    return found | {"barrier over gloo, µs": round((time.perf_counter() - began) / 20 * 1e6)}


def train(
    checkpoint: Path, engine: str, parallel: Parallel, brief: bool = False, tokens: int = LARGE
) -> dict[str, Any]:
    """SFT steps of about 139,000 tokens. `brief`: fewer, and their kernels are not looked at."""
    batch = conversations(checkpoint)
    began = time.perf_counter()
    optimizer = OPTIMIZER.model_copy(update={"micro_batch_tokens": tokens})
    policy: Any = make_policy(engine, checkpoint, optimizer, parallel=parallel)
    loaded = time.perf_counter() - began
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    objective = mean_negative_log_prob(sum(sum(sequence.trained) for sequence in batch))

    def step() -> Any:
        return policy.step(batch, objective, OPTIMIZER.learning_rate)

    found = timed(step, 3 if brief else STEPS)
    report = step()
    # Full micro-batches are planned. Engine nemo's budget counts padding.
    parts = policy._split(batch, distributed.size())
    largest = max(parts.block_tokens(n) if engine == "nemo" else parts[n].tokens for n in range(len(parts)))
    planned = planned_bytes(checkpoint, engine, parallel, largest, distributed.size())
    return found | {
        "task": {
            "model": checkpoint.parent.name,
            "engine": engine,
            "parallel": parallel.model_dump(exclude_defaults=True),
        },
        "largest micro-batch": largest,
        "class": type(getattr(policy, "_net", policy.model)).__module__,
        "load s": round(loaded, 1),
        "loss": report.loss,
        "gradient norm": report.gradient_norm,
        "tokens": report.tokens,
        "tokens/s": round(report.tokens / found["step s"]),
        "peak MiB": peak(),
        **planned,
        "kernels": {} if brief else profiled(step),
    }


def planned_bytes(checkpoint: Path, engine: str, parallel: Parallel, tokens: int, processes: int) -> dict[str, Any]:
    """What `cascade recipe plan` says of an SFT node with micro-batches of so many tokens."""
    settings: dict[str, Any] = {"init": "base", "round": 1, "epochs": 1, "batch": 1, "engine": engine}
    optimizer = OPTIMIZER.model_copy(update={"micro_batch_tokens": tokens})
    node = SFTNode(**settings, optimizer=optimizer, parallel=parallel)
    plan = plan_node(shape_of(checkpoint / "config.json"), node, processes, longest=0, teachers=0)
    return {
        "planned MiB": round(plan.total / 2**20, 1),
        "planned parts MiB": {name: round(value / 2**20) for name, value in vars(plan).items()},
    }


def planned_anew(run: dict[str, Any], work: Path) -> dict[str, Any]:
    """A run with the plan of today's code, beside the peak that it had."""
    task = run["task"]
    config = work / task["model"] / "config"
    if not config.exists():
        made = wide_model.config() if task["model"] == "wide" else nemo_step.random_config()
        made.save_pretrained(config)
    parallel, tokens = Parallel(**task["parallel"]), run["largest micro-batch"]
    return run | planned_bytes(config, task["engine"], parallel, tokens, run["processes"])


def timed(step: Callable[[], Any], steps: int | None = None) -> dict[str, Any]:
    """Of a step that every process does: seconds, the median of those after the first ones."""
    seconds = []
    for _ in range(WARM_UP + (steps or STEPS)):
        synchronize()
        began = time.perf_counter()
        step()
        synchronize()
        seconds.append(round(time.perf_counter() - began, 4))
    return {"all s": seconds, "step s": statistics.median(seconds[WARM_UP:])}


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    distributed.barrier()


def peak() -> float:
    """MiB, of the process that needed most."""
    used = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return round(max(distributed.gather(used)), 1)


def profiled(step: Callable[[], Any]) -> dict[str, Any]:
    """One step: milliseconds that its kernels took, those of communication, and the longest by name."""
    if not torch.cuda.is_available():
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        began = time.perf_counter()
        step()
        synchronize()
        seconds = time.perf_counter() - began
    by_name: Counter[str] = Counter()
    count = 0
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            by_name[event.name[:90]] += event.self_device_time_total / 1000
            count += 1
    messages = sum(value for name, value in by_name.items() if "nccl" in name.lower())
    return {
        "step ms": round(1000 * seconds, 1),
        "launched": count,
        "all ms": round(sum(by_name.values()), 1),
        "communication ms": round(messages, 1),
        "longest ms": {name: round(value, 1) for name, value in by_name.most_common(18)},
    }


def conversations(checkpoint: Path) -> list[Sequence]:
    usual, nemo_step.SEQUENCES = nemo_step.SEQUENCES, SEQUENCES
    try:
        return nemo_step.conversations(checkpoint)
    finally:
        nemo_step.SEQUENCES = usual


def fsdp2(checkpoint: Path, engine: str | None, parallel: Parallel, tokens: int) -> dict[str, Any]:
    """What one would write by hand: transformers' model in float32, each layer a unit of FSDP2 that computes in
    bfloat16, the loss on its logits, AdamW. The same conversations, in micro-batches of `tokens`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    batch = conversations(checkpoint)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = load_checkpoint(checkpoint)[0]
    mesh = init_device_mesh(kind, (distributed.size(),))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIMIZER.learning_rate, weight_decay=0.1, fused=True)
    parts = list(micro_batches(batch, tokens, False, torch.device(distributed.device()), distributed.size()))
    trained = sum(sum(sequence.trained) for sequence in batch)
    count = sum(part.tokens for part in parts)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        own = parts[distributed.rank() :: distributed.size()]
        for number in range(-(-len(parts) // distributed.size())):
            part = own[min(number, len(own) - 1)]
            (block,) = part.blocks
            logits = model(input_ids=block.tokens, use_cache=False).logits.flatten(0, 1)[part.source]
            loss = torch.nn.functional.cross_entropy(logits.float(), part.target, reduction="sum") / trained
            (loss * (1.0 if number < len(own) else 0.0)).backward()
            del logits, loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.gradient_clip)
        optimizer.step()

    found = timed(step)
    return found | {
        "micro-batch tokens": tokens,
        "peak MiB": peak(),
        "tokens": count,
        "tokens/s": round(count / found["step s"]),
        "kernels": profiled(step),
    }


def refresh(checkpoint: Path, engine: str, parallel: Parallel) -> dict[str, Any]:
    """Seconds from the end of a step until the torch sampler has its weights, and of the batches before and after."""
    policy = make_policy(engine, checkpoint, OPTIMIZER, parallel=parallel)
    sampler = TorchSampler(policy)
    requests = distributed.shard(nemo_step.prompts(policy))
    batch = conversations(checkpoint)[:64]
    objective = mean_negative_log_prob(sum(sum(sequence.trained) for sequence in batch))
    sampling, refreshing = [], []
    for _ in range(5):
        synchronize()
        began = time.perf_counter()
        samples = sampler.sample(requests, max_new_tokens=nemo_step.NEW_TOKENS)
        synchronize()
        sampling.append(round(time.perf_counter() - began, 4))
        policy.step(batch, objective, OPTIMIZER.learning_rate)
        synchronize()
        began = time.perf_counter()
        sampler.refresh(policy)
        synchronize()
        refreshing.append(round(time.perf_counter() - began, 4))
    samples = sampler.sample(requests, max_new_tokens=nemo_step.NEW_TOKENS)
    pairs = distributed.gather_shards(list(zip(requests, samples, strict=True)))
    said = torch.tensor([x for _, sample in pairs for x in sample.log_probs])
    sequences = [_sequence(request.prompt, sample.token_ids) for request, sample in pairs]
    gap = (policy.score(sequences).log_probs - said).abs()
    return {
        "refresh s": statistics.median(refreshing[1:]),
        "all refresh s": refreshing,
        "all sampling s": sampling,
        "sampler against trainer, nats": [gap.mean().item(), gap.max().item()],
    }


def _sequence(prompt: list[int], response: list[int]) -> Sequence:
    return Sequence(prompt + response, [False] * len(prompt) + [True] * len(response))


def mopd(checkpoint: Path, engine: str, parallel: Parallel) -> dict[str, Any]:
    """Steps of RL and steps of distillation from three teachers, in turns, on rollouts of the same number and length.
    The teachers' weights are the student's first ones: what a teacher says takes the same time."""
    policy = make_policy(engine, checkpoint, OPTIMIZER, parallel=parallel)
    sampler = TorchSampler(policy)
    domains = ("one", "two", "three")
    settings: dict[str, Any] = {"init": "base", "round": 1, "mix": dict.fromkeys(domains, 1 / 3), "steps": 1}
    settings |= {"prompts": 16, "rollouts": 8, "teachers": "t", "engine": engine, "optimizer": OPTIMIZER}
    settings["rollout"] = {"max_new_tokens": NEW_TOKENS}
    found: dict[str, Any] = {}
    node = DistillNode(**settings, parallel=parallel)
    teachers = Teachers({domain: Teacher(domain, checkpoint, domain) for domain in domains}, node)
    for memory in ("device", "host"):
        if memory == "host":  # The same ones, which take a while to load.
            teachers._node = node.model_copy(update={"teacher_memory": memory})
            for teacher in teachers._kept.values():
                teacher.to_host()
        seconds: dict[str, list[float]] = {"rl": [], "mopd": [], "scoring": []}
        for _ in range(WARM_UP + STEPS):
            for kind in ("rl", "mopd"):
                synchronize()
                began = time.perf_counter()
                sampler.refresh(policy)
                batch = sampled(policy, sampler, domains)
                signal: Any = Centred(batch)
                if kind == "mopd":
                    scoring = time.perf_counter()
                    signal = MOPD(batch, teachers, node)
                    seconds["scoring"].append(round(time.perf_counter() - scoring, 4))
                policy.step(batch.sequences, signal, OPTIMIZER.learning_rate)
                synchronize()
                seconds[kind].append(round(time.perf_counter() - began, 4))
        medians = {f"{kind} step s": statistics.median(values[WARM_UP:]) for kind, values in seconds.items()}
        if memory == "device":
            found |= medians
        found[f"teachers on {memory}"] = {**medians, **seconds, "peak MiB": peak()}
    return found


def sampled(policy: Policy, sampler: Sampler, domains: tuple[str, ...], new_tokens: int = NEW_TOKENS) -> Batch:
    """128 rollouts of up to `new_tokens` tokens, each process its share, every domain as many."""
    requests = nemo_step.prompts(policy)
    own = distributed.shard(requests)
    samples = distributed.gather_shards(sampler.sample(own, max_new_tokens=new_tokens))
    lengths = torch.tensor([len(sample.token_ids) for sample in samples])
    domain_of = [domains[n // nemo_step.ROLLOUTS % len(domains)] for n in range(len(samples))]
    rollouts: Any = [SimpleNamespace(prompt=SimpleNamespace(domain=domain)) for domain in domain_of]
    return Batch(
        rollouts,
        torch.arange(len(samples)) // nemo_step.ROLLOUTS,
        [_sequence(request.prompt, sample.token_ids) for request, sample in zip(requests, samples, strict=True)],
        torch.tensor([x for sample in samples for x in sample.log_probs]),
        torch.arange(len(samples)).repeat_interleave(lengths),
    )


class Centred:
    """Advantages of a reward that differs in each group: the rollout's share of even tokens."""

    def __init__(self, batch: Batch):
        rewards = torch.tensor([_even(sequence) for sequence in batch.sequences], dtype=torch.float64)
        self._objective = nemo_step.group_relative(batch.sequences, rewards)

    def __call__(self, log_probs: Tensor, index: Tensor) -> Tensor:
        return self._objective(log_probs, index)


def _even(sequence: Sequence) -> float:
    own = [token for token, trained in zip(sequence.token_ids, sequence.trained, strict=True) if trained]
    return sum(token % 2 == 0 for token in own) / len(own)


if __name__ == "__main__":
    main()
