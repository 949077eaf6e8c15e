"""The shape of the paper's model (Nemotron-3-Nano-30B-A3B) with random weights, on N GPUs of one host:

    python -m benchmarks.gpu.paper_shape PART … [--gpus N] [--layers L] [--out FILE] [--work DIR]

plan   what `cascade recipe plan` says of the paper's recipe on 4 and 8 cards of 80 and 141 GB; needs no GPU
build  the model alone, for servers that are to start with it
sft    ten SFT steps on packed sequences of 8,192 tokens, ten of 32,768: tokens/s, MFU, peak memory of each card beside
       the planned, the share of communication in one profiled step
rl     five RL steps and five of distillation from two teachers in the host's memory, in turns: seconds of each part,
       the sampler's log-probabilities against the trainer's
save   a step, its state saved, a second step, the checkpoint exported twice; in fresh processes the state loaded, the
       second step again, the exported checkpoint loaded: seconds and bytes, and whether both came to the same

`--layers`: the first L layers of the model; without it the most that the memory plan lets through for the part, and of
which checkpoint and state fit on the disk of --work. Engine nemo, experts over all GPUs, activation checkpointing.

Each run has processes of its own and ends after `--limit` seconds; one that failed leaves its error in the file, one
that did not end what it had found. What the file has whole is not run again (`--again` does), so an interrupted call is
repeated as it is. Without `--servers` the torch sampler samples, which keeps the whole model on each GPU; with it vLLM
servers do (docs/vllm.md), which see `--weights` under the same path.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import NemotronHConfig

from benchmarks.gpu import nemo_step, two_gpus, wide_model
from cascade.launch import memory_plan
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Sequence
from cascade.policy.model_size import Shape, shape_of
from cascade.recipe import DistillNode, Node, Optimizer, Parallel, Rollout, SFTNode, load
from cascade.rollout import make_sampler
from cascade.training.algorithms import MOPD
from cascade.training.node_run import use_deterministic_algorithms
from cascade.training.resume_state import State, load_state, save_state
from cascade.training.sft import mean_negative_log_prob
from cascade.training.teacher_scoring import Teacher, Teachers
from cascade.utils import distributed
from cascade.utils.files import read_json, write_json
from cascade.utils.seeds import derive_seed

OUT = Path("results/gpu/paper_shape.json")
WORK = Path(tempfile.gettempdir()) / "paper_shape"
RECIPE = Path("recipes/nemotron-cascade-2-30b-a3b.yaml")
CONFIG = Path("recipes/base/nemotron-3-nano-30b-a3b-base.json")
CARDS = {f"{gpus} × {gb} GB": (gpus, gib) for gb, gib in ((80, 79), (141, 139)) for gpus in (4, 8)}
"""Number, and GiB of each that programs see."""
LIMIT = 560
LEARNING_RATE = 1e-5
LENGTHS = (8192, 32768)
STEP_TOKENS = 65536
"""Of each process, in an SFT step."""
STEPS, WARM_UP, TURNS, NEW_TOKENS = 10, 2, 5, 256
DOCUMENTS = (0.5, 0.25, 0.125, 0.0625, 0.0625)
"""Of a packed sequence, as shares of its length."""
TEACHERS = ("one", "two")
PARTS = ("sft", "rl", "save")
OTHERS = ("plan", "build")
PEAK = 989e12
"""bfloat16 operations a second of an H100 or H200 as its data sheet has it."""

Found = Iterator[dict[str, Any]]
"""What a run has found so far; the last is all."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("parts", nargs="*", choices=[*OTHERS, *PARTS, []])
    arguments.add_argument("--gpus", type=int, default=max(1, torch.cuda.device_count()))
    arguments.add_argument("--layers", type=int)
    arguments.add_argument("--config", type=Path, default=CONFIG, help="of another model; for trying it out")
    arguments.add_argument("--engine", choices=["hf", "nemo"], default="nemo")
    arguments.add_argument("--servers", nargs="+", default=[], help="addresses of vLLM servers that sample")
    arguments.add_argument("--weights", type=Path, help="where servers read the weights; by default in --work")
    arguments.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="of packed sequences")
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    arguments.add_argument("--limit", type=float, default=LIMIT)
    arguments.add_argument("--again", action="store_true")
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--work", type=Path, default=WORK)
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.worker:
        with distributed.process_group():
            worker(json.loads(options.worker))
        return
    for part in options.parts or PARTS:
        if part == "plan":
            keep(options.out, "plan", planned_recipe())
        else:
            measure(part, options)
        print(f"part {part} done", flush=True)


def measure(part: str, options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    if part == "build" and not options.layers:
        raise SystemExit("build: say --layers")
    layers = options.layers or deepest(part, options)
    where = f"{layers} layers, GPUs {options.gpus}" + (f", servers {len(options.servers)}" if options.servers else "")
    task = {
        "config": str(options.config.absolute()),
        "layers": layers,
        "engine": options.engine,
        "work": str(options.work),
        "lengths": list(options.lengths),
        "steps": options.steps,
        "new_tokens": options.new_tokens,
        "servers": options.servers,
        "weights": str(options.weights or options.work / "weights"),
    }
    if part == "build":
        print(f"{checkpoint_of(task)}: {build(task)} s", flush=True)
        return
    runs: list[tuple[str, str, int]] = [(f"{part}, {where}", part, options.gpus)]
    if part == "save":
        runs = [(f"save, {where}", "save", options.gpus), (f"resume, {where}", "resume", options.gpus)]
    began = time.perf_counter()
    known = read_json(options.out).get("runs", {}) if options.out.exists() else {}
    done = {name for name, run in known.items() if not {"error", "unfinished"} & set(run) and not options.again}
    if part == "save" and runs[1][0] not in done and not _saved(task).exists():
        done.discard(runs[0][0])  # Of another machine, whose files are not here.
    for name, do, gpus in runs:
        if name in done:
            continue
        left = options.limit - (time.perf_counter() - began)
        found = launched({**task, "do": do}, gpus, left)
        keep(options.out, "runs", {name: found})
        if "error" in found:
            return


def launched(task: dict[str, Any], gpus: int, limit: float) -> dict[str, Any]:
    return two_gpus.launched(task, gpus, module="benchmarks.gpu.paper_shape", limit=limit)


def keep(out: Path, key: str, found: dict[str, Any]) -> None:
    known = read_json(out) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {**known, key: {**known.get(key, {}), **found}})


def config(layers: int | None = None, source: Path = CONFIG) -> NemotronHConfig:
    """Of the first `layers` layers of a model; all by default. The tokenizer is the project's base model's."""
    settings = read_json(source)
    pattern = settings["hybrid_override_pattern"][:layers]
    own = {"hybrid_override_pattern": pattern, "num_hidden_layers": len(pattern), "initializer_range": 0.02}
    settings |= {**own, "bos_token_id": 1, "eos_token_id": 5, "pad_token_id": 0, "dtype": "bfloat16"}
    return NemotronHConfig(**{key: settings[key] for key in settings if key not in ("architectures", "model_type")})


def cut_shape(layers: int, source: Path, work: Path) -> Shape:
    folder = work / "configs" / f"{source.stem}-{layers}"
    if not folder.exists():
        config(layers, source).save_pretrained(folder)
    return shape_of(folder / "config.json")


def deepest(part: str, options: argparse.Namespace) -> int:
    """Most layers that fit. Raises SystemExit where none do."""
    memory = _memory()
    disk = shutil.disk_usage(options.work).free

    def fits(layers: int) -> bool:
        shape = cut_shape(layers, options.config, options.work)
        room = max(
            memory_plan.plan_node(
                shape, node, options.gpus, tokens, teachers=2 if part == "rl" else 0, memory=memory
            ).total
            for node, tokens in nodes(part, options)
        )
        files = {"sft": 2, "rl": 2, "save": 2 + 12 + 2}[part] * shape.parameters
        return room <= memory_plan.USABLE * memory and files <= 0.9 * disk + _there(options, layers)

    low, high = 0, len(read_json(options.config)["hybrid_override_pattern"])
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    if low < 2:
        raise SystemExit(f"{part}: not even two layers fit on {options.gpus} GPUs of {memory / 2**30:.0f} GiB")
    print(f"{part}: {low} layers fit on {options.gpus} GPUs of {memory / 2**30:.0f} GiB", flush=True)
    return low


def _memory() -> float:
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: say --layers, and --engine hf")
    # Of the first GPU, without a context on it, which would take memory from the runs.
    import subprocess

    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", "0"]
    return float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]) * 2**20


def _there(options: argparse.Namespace, layers: int) -> int:
    """Bytes of the disk that an earlier call took for this cut."""
    folder = checkpoint_of({"config": str(options.config), "layers": layers, "work": str(options.work)}).parent
    return size_of(folder) if folder.exists() else 0


def nodes(part: str, options: argparse.Namespace) -> list[tuple[Node, int]]:
    """As the memory plan is asked, each with the tokens of its longest sequence."""
    here = layout_of(options.engine, options.gpus)
    if part == "rl":
        return [(distillation(options.engine, here, options.new_tokens), options.new_tokens)]
    longest = max(options.lengths) if part == "sft" else min(options.lengths)
    return [(sft_node(options.engine, here, longest), 0)]


def layout_of(engine: str, gpus: int) -> Parallel:
    return Parallel(expert=gpus if engine == "nemo" else 1, checkpoint_activations=True)


def optimizer(tokens: int) -> Optimizer:
    return Optimizer(learning_rate=LEARNING_RATE, micro_batch_tokens=tokens)


def sft_node(engine: str, parallel: Parallel, tokens: int) -> SFTNode:
    settings: dict[str, Any] = {"init": "base", "round": 1, "epochs": 1, "batch": 1, "engine": engine}
    return SFTNode(**settings, optimizer=optimizer(tokens), parallel=parallel)


def distillation(engine: str, parallel: Parallel, new_tokens: int) -> DistillNode:
    settings: dict[str, Any] = {"init": "base", "round": 1, "mix": dict.fromkeys(TEACHERS, 0.5), "steps": 1}
    settings |= {"prompts": nemo_step.PROMPTS, "rollouts": nemo_step.ROLLOUTS, "teachers": "t", "engine": engine}
    settings |= {"optimizer": optimizer(LENGTHS[0]), "rollout": {"max_new_tokens": new_tokens}}
    return DistillNode(**settings, parallel=parallel, teacher_memory="host")


def checkpoint_of(task: dict[str, Any]) -> Path:
    return Path(task["work"]) / f"{Path(task['config']).stem}-{task['layers']}" / "checkpoint"


def planned_recipe() -> dict[str, Any]:
    """By cards: each training node of the paper's recipe there, in GiB, what was lowered for it, what does not fit."""
    found: dict[str, Any] = {}
    for name, (gpus, gib) in CARDS.items():
        recipe, lowered = memory_plan.on_cards(load(RECIPE), gpus, gib)
        fits = {node: memory_plan.fit(recipe, node, Layout(Path())) for node in recipe.training}
        found[name] = {
            "lowered": lowered,
            "nodes": {
                node: {
                    **{part: round(value / memory_plan.GIB, 1) for part, value in vars(fit.plan).items()},
                    "total": round(fit.plan.total / memory_plan.GIB, 1),
                    "of": round(fit.usable / memory_plan.GIB, 1) if fit.usable else None,
                    "fits": fit.refused is None,
                    "to change": fit.refused,
                }
                for node, fit in fits.items()
            },
        }
    return found


def worker(task: dict[str, Any]) -> None:
    """One run, in every process of it; the first writes what is found, as soon as it is known."""
    began = time.perf_counter()
    if task["do"] in ("save", "resume"):  # Only these are compared to the bit.
        use_deterministic_algorithms()
    built = build(task)
    shape = shape_of(checkpoint_of(task) / "config.json")
    facts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": distributed.size(),
        "torch": torch.__version__,
        "layers": task["layers"],
        "engine": task["engine"],
        "model built s": built,
        "parameters": shape.parameters,
        "active parameters": active(shape, experts_of(task)),
    }

    def write(found: dict[str, Any]) -> None:
        if distributed.is_main():
            write_json(Path(task["result"]), {**found, "seconds": round(time.perf_counter() - began, 1)})

    found: dict[str, Any] = {}
    for found in DO[task["do"]](task):
        write({**found, **facts, "unfinished": True})
    write({**found, **facts})


def active(shape: Shape, experts: int) -> int:
    """Parameters that a token is multiplied with, of `experts` in a layer; of the embedding none."""
    return shape.parameters - shape.all_experts + shape.all_experts * shape.copies // experts - shape.head


def experts_of(task: dict[str, Any]) -> int:
    return int(read_json(Path(task["config"]))["n_routed_experts"])


def build(task: dict[str, Any]) -> float:
    """Seconds. The first process makes the model, where it is not there yet, on its GPU, and leaves no memory taken."""
    began = time.perf_counter()
    if distributed.is_main() and not checkpoint_of(task).exists():
        wide_model.build(checkpoint_of(task), config(task["layers"], Path(task["config"])))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    distributed.barrier()
    return round(time.perf_counter() - began, 1)


def sft(task: dict[str, Any]) -> Found:
    checkpoint, gpu = checkpoint_of(task), torch.cuda.is_available()
    parallel = layout_of(task["engine"], distributed.size())
    limit = matrix_product() if gpu else None
    began = time.perf_counter()
    policy: Any = make_policy(task["engine"], checkpoint, optimizer(max(task["lengths"])), parallel=parallel)
    found: dict[str, Any] = {"load s": round(time.perf_counter() - began, 1), "operations/s, 8192³ product": limit}
    shape = shape_of(checkpoint / "config.json")
    for length in task["lengths"]:
        count = max(1, (STEP_TOKENS if gpu else length) // length) * distributed.size()
        batch = [packed(length, number, task) for number in range(count)]
        policy.micro_batch_tokens = length
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        objective = mean_negative_log_prob(sum(sum(sequence.trained) for sequence in batch))
        reports: list[Any] = []

        def step(batch: list[Sequence] = batch, objective: Any = objective, reports: list[Any] = reports) -> None:
            reports.append(policy.step(batch, objective, LEARNING_RATE))

        times = two_gpus.timed(step, task["steps"])
        tokens = reports[-1].tokens
        operations = 6 * active(shape, experts_of(task)) * tokens / times["step s"] / distributed.size()
        node = sft_node(task["engine"], parallel, length)
        plan = memory_plan.plan_node(shape, node, distributed.size(), longest=0, teachers=0)
        profiled = two_gpus.profiled(step)
        found[f"{length} tokens"] = {
            **times,
            "micro-batches": len(policy._split(batch, distributed.size())),
            "tokens": tokens,
            "tokens/s": round(tokens / times["step s"]),
            "MFU of 989 TFLOP/s": round(operations / PEAK, 4) if gpu else None,
            "MFU of the product": round(operations / limit, 4) if limit else None,
            "losses": [reports[0].loss, reports[-1].loss],
            "gradient norms": [reports[0].gradient_norm, reports[-1].gradient_norm],
            "peak MiB": peaks(),
            "planned MiB": round(plan.total / 2**20),
            "planned parts MiB": {name: round(value / 2**20) for name, value in vars(plan).items()},
            "communication, share of kernels": round(profiled["communication ms"] / profiled["all ms"], 3)
            if profiled
            else None,
            "kernels": profiled,
        }
        yield found


def matrix_product() -> float:
    """bfloat16 operations a second of products of 8192³ on this GPU."""
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=distributed.device()) for _ in range(2))
    seconds = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.matmul(a, b)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * 8192**3 / statistics.median(seconds[2:])


def packed(length: int, number: int, task: dict[str, Any]) -> Sequence:
    """Documents of random tokens, of each the last three quarters trained."""
    sizes = [int(length * share) for share in DOCUMENTS]
    generator = torch.Generator().manual_seed(derive_seed("paper_shape", length, number))
    vocabulary = read_json(Path(task["config"]))["vocab_size"]
    ids = torch.randint(6, vocabulary, (sum(sizes),), generator=generator).tolist()
    return Sequence(ids, [place >= size // 4 for size in sizes for place in range(size)], tuple(sizes))


def peaks() -> list[float]:
    """MiB that tensors took at most, of each process's GPU."""
    used = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return [round(value, 1) for value in distributed.gather(used)]


def rl(task: dict[str, Any]) -> Found:
    """Rollouts of fixed prompts; the reward is the share of even tokens. What a teacher says takes the same time
    whatever its weights are: they are the student's first ones."""
    checkpoint = checkpoint_of(task)
    parallel = layout_of(task["engine"], distributed.size())
    node = distillation(task["engine"], parallel, task["new_tokens"])
    shape = shape_of(checkpoint / "config.json")
    began = time.perf_counter()
    policy: Any = make_policy(task["engine"], checkpoint, node.optimizer, parallel=parallel)
    teachers = Teachers({domain: Teacher(domain, checkpoint, domain) for domain in TEACHERS}, node)
    loaded = time.perf_counter() - began
    if task["servers"]:
        servers = {"engine": "vllm", "servers": task["servers"], "weights": task["weights"]}
        node = node.model_copy(update={"rollout": Rollout(**servers, max_new_tokens=task["new_tokens"])})
    plan = memory_plan.plan_node(
        shape, node, distributed.size(), longest=task["new_tokens"], teachers=2, memory=_device_memory()
    )
    sampler = make_sampler(node.rollout, policy)
    seconds: dict[str, list[float]] = {
        f"{kind}, {part}": []
        for kind in ("rl", "mopd")
        for part in ("weights", "sampling", "scoring", "training", "step")
    }
    written: list[float] = []
    policy.save = timing(policy.save, written)
    gaps: list[list[float]] = []
    try:
        for _ in range(1 + task["steps"] // 2):
            for kind in ("rl", "mopd"):
                clock = Clock(seconds, kind)
                sampler.refresh(policy)
                clock.part("weights")
                batch = two_gpus.sampled(policy, sampler, TEACHERS, task["new_tokens"])
                clock.part("sampling")
                signal: Any = MOPD(batch, teachers, node) if kind == "mopd" else two_gpus.Centred(batch)
                clock.part("scoring")
                report = policy.step(batch.sequences, signal, LEARNING_RATE)
                clock.part("training")
                clock.end()
                gap = (report.scores.log_probs - batch.sampler_log_probs).abs()
                gaps.append([gap.mean().item(), gap.max().item()])
            yield {
                "load s, teachers included": round(loaded, 1),
                "tokens": report.tokens,
                "sampler": "vllm servers" if task["servers"] else "torch",
                "bytes of the weights": size_of(checkpoint),
                "weights written for servers, s": written,
                "median s": {name: statistics.median(values[1:]) for name, values in seconds.items() if values[1:]},
                "all s": seconds,
                "sampler against trainer, nats, mean and most": gaps,
                "peak MiB": peaks(),
                "planned MiB": round(plan.total / 2**20),
            }
    finally:
        sampler.close()


def _device_memory() -> float | None:
    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


class Clock:
    """Seconds of the parts of a step, each from when all processes are done with the one before."""

    def __init__(self, seconds: dict[str, list[float]], kind: str):
        self._seconds, self._kind = seconds, kind
        two_gpus.synchronize()
        self._began = self._last = time.perf_counter()

    def part(self, name: str) -> None:
        two_gpus.synchronize()
        now = time.perf_counter()
        self._seconds[f"{self._kind}, {name}"].append(round(now - self._last, 4))
        self._last = now

    def end(self) -> None:
        self._seconds[f"{self._kind}, step"].append(round(time.perf_counter() - self._began, 4))


def save(task: dict[str, Any]) -> Found:
    """A step, its state; another step, the checkpoint."""
    policy, batch, load_seconds = _to_save(task, checkpoint_of(task))
    folder = _saved(task)
    if distributed.is_main():
        shutil.rmtree(folder, ignore_errors=True)
    distributed.barrier()
    first = _step(policy, batch)
    writes = distributed.is_main() or policy.sharded

    def write_state() -> None:
        if writes:
            state = State(1, {}, policy.training_state())
            save_state(folder / "state.safetensors", state, _inputs(task), policy.sharded)

    def export() -> None:
        if writes:
            policy.save(folder / "exported")

    state_seconds = timed_once(write_state)
    second = _step(policy, batch)
    export_seconds, again_seconds = timed_once(export), timed_once(export)
    scores = policy.score(batch[:1]).log_probs
    if distributed.is_main():
        torch.save({"second": second, "scores": scores}, folder / "found.pt")
    distributed.barrier()
    yield {
        "load s": load_seconds,
        "losses": [first["loss"], second["loss"]],
        "state saved s": state_seconds,
        "state bytes": sum(file.stat().st_size for file in folder.glob("state*.safetensors")),
        "state files": len(list(folder.glob("state*.safetensors"))),
        "exported s": export_seconds,
        "exported again s": again_seconds,
        "exported files": len(list((folder / "exported").glob("*.safetensors"))),
        "exported bytes": size_of(folder / "exported"),
        "peak MiB": peaks(),
    }


def resume(task: dict[str, Any]) -> Found:
    """The state and the checkpoint of `save`, in fresh processes."""
    policy, batch, load_seconds = _to_save(task, checkpoint_of(task))
    folder = _saved(task)
    before = torch.load(folder / "found.pt", weights_only=False)
    read: list[State] = []
    made: list[Any] = []

    def read_state() -> None:
        state, reason = load_state(folder / "state.safetensors", _inputs(task), policy.sharded)
        if state is None:
            raise RuntimeError(f"{folder}: no state to resume from{reason and ': '}{reason}")
        policy.load_training_state(state.tensors)
        read.append(State(state.step, state.progress, {}))

    state_seconds = timed_once(read_state)
    again = _step(policy, batch)
    resumed_peak = peaks()
    parallel = layout_of(task["engine"], distributed.size())
    export_seconds = timed_once(
        lambda: made.append(make_policy(task["engine"], folder / "exported", None, parallel=parallel))
    )
    gap = (made[0].score(batch[:1]).log_probs - before["scores"]).abs()
    yield {
        "load s": load_seconds,
        "state loaded s": state_seconds,
        "resumed after step": read[0].step,
        "the next step's loss, norm and log-probabilities are the same to the bit": again["loss"]
        == before["second"]["loss"]
        and again["norm"] == before["second"]["norm"]
        and torch.equal(again["log_probs"], before["second"]["log_probs"]),
        "exported loaded s": export_seconds,
        "exported against trainer, nats, mean and most": [gap.mean().item(), gap.max().item()],
        "peak MiB": resumed_peak,
    }


def _to_save(task: dict[str, Any], checkpoint: Path) -> tuple[Any, list[Sequence], float]:
    length = min(task["lengths"])
    made: list[Any] = []
    parallel = layout_of(task["engine"], distributed.size())
    seconds = timed_once(
        lambda: made.append(make_policy(task["engine"], checkpoint, optimizer(length), parallel=parallel))
    )
    return made[0], [packed(length, number, task) for number in range(2 * distributed.size())], seconds


def _saved(task: dict[str, Any]) -> Path:
    return checkpoint_of(task).with_name("saved")


def _inputs(task: dict[str, Any]) -> dict[str, Any]:
    return {"layers": task["layers"], "processes": distributed.size()}


def _step(policy: Any, batch: list[Sequence]) -> dict[str, Any]:
    objective = mean_negative_log_prob(sum(sum(sequence.trained) for sequence in batch))
    report = policy.step(batch, objective, LEARNING_RATE)
    return {"loss": report.loss, "norm": report.gradient_norm, "log_probs": report.scores.log_probs}


def timed_once(work: Callable[[], Any]) -> float:
    two_gpus.synchronize()
    began = time.perf_counter()
    work()
    two_gpus.synchronize()
    return round(time.perf_counter() - began, 1)


def timing(work: Callable[[Path], None], seconds: list[float]) -> Callable[[Path], None]:
    def timed(directory: Path) -> None:
        began = time.perf_counter()
        work(directory)
        seconds.append(round(time.perf_counter() - began, 2))

    return timed


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


DO = {"sft": sft, "rl": rl, "save": save, "resume": resume}


if __name__ == "__main__":
    main()
