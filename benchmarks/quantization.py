"""What two bits cost by domain, and what distillation wins back, beside fine-tuning on the same rows.

    python -m benchmarks.quantization --seeds 1 2

From recipes/nano-quantized.yaml: its data, and its fine-tuned model as the checkpoint that is released. That is
quantised in each of --formats and evaluated from what was written (ptq). In --format two trainings start from its
weights, with the same rows, order, steps and learning rate, and straight-through gradients: forward KL to the
checkpoint (qad), and cross-entropy on the rows themselves (sft). Each is written, loaded again and evaluated. What is
in --work is not made again, so an interrupted run goes on.

Writes results/benchmarks/quantization.json: scores by domain with 95 % intervals over prompts; the differences to the
checkpoint, to ptq and between qad and sft, paired by prompt, the seeds averaged; recovery, (after − ptq) /
(checkpoint − ptq), with 95 % intervals of a bootstrap over prompts.
"""

import argparse
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from cascade.evaluation.checkpoint_runner import CheckpointRunner
from cascade.evaluation.statistics import mean_interval
from cascade.layout import Layout
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer, Quantization, Recipe, load
from cascade.training.lr_schedule import learning_rate
from cascade.training.prompts import load_prompts
from cascade.training.quantize import mean, sft_files
from cascade.training.sft import PackedSequences, mean_negative_log_prob
from cascade.training.shuffle import ShuffledEpochs
from cascade.utils.files import read_json, write_atomic, write_json
from cascade.utils.machine import machine
from cascade.utils.seeds import derive_seed

RECIPE = Path("recipes") / "nano-quantized.yaml"
RESAMPLES = 10_000

Rewards = dict[str, dict[str, float]]
"""Domain → prompt → mean reward."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=["fp8", "int8", "nvfp4", "int4", "int2"])
    parser.add_argument("--format", default="int2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8, help="packed sequences a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--prompts", type=int, default=120, help="of each domain's benchmark")
    parser.add_argument("--work", type=Path, default=Path(".cascade/quantization-nano"))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/quantization.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    layout = prepare(options.work.resolve())
    recipe = load(layout.params)
    whole = layout.checkpoint("sft")
    divergences: dict[str, float] = {}
    found = {"checkpoint": evaluated(recipe, layout, whole, options.prompts)}
    for form in options.formats:
        checkpoint = written(layout, form, partial(quantised, whole, form))
        found[f"ptq {form}"] = evaluated(recipe, layout, checkpoint, options.prompts)
    for seed in options.seeds:
        for method in ("qad", "sft"):
            name = f"{method} {options.format} {seed}"
            checkpoint = written(layout, name, partial(trained, layout, whole, method, seed, options))
            found[name] = evaluated(recipe, layout, checkpoint, options.prompts)
    names = [*options.formats, *(f"{m} {options.format} {s}" for s in options.seeds for m in ("qad", "sft"))]
    for name in names:
        divergences[name] = divergence(recipe, layout, whole, layout.checkpoint(folder(name)))
    summary = summarise(found, options) | {"forward_kl": divergences}
    write_json(options.out, {"machine": machine(), "torch": torch.__version__, **summary})
    print(as_table(summary))


def prepare(work: Path) -> Layout:
    """A project with the recipe's data and its fine-tuned model."""
    layout = Layout(work)
    raw = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | {"threads": 1}
    write_atomic(layout.params, yaml.safe_dump(raw, sort_keys=False))
    shutil.copytree("models/base", work / "models" / "base", dirs_exist_ok=True)
    for name, made in (("curate", work / "data" / "report.json"), ("sft", layout.checkpoint("sft") / "config.json")):
        if not made.exists():
            environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
            subprocess.run([sys.executable, "-m", "cascade", "node", name], cwd=work, env=environment, check=True)
    return layout


def folder(name: str) -> str:
    return name.replace(" ", "_")


def written(layout: Layout, name: str, make: Any) -> Path:
    directory = layout.checkpoint(folder(name))
    if not directory.exists():
        print(f"== {name}", flush=True)
        make().save(directory)
    return directory


def quantised(whole: Path, form: str, optimizer: Optimizer | None = None) -> HFPolicy:
    return HFPolicy(whole, optimizer, quantization=Quantization.model_validate({"format": form}))


def trained(layout: Layout, whole: Path, method: str, seed: int, options: argparse.Namespace) -> HFPolicy:
    settings = {"learning_rate": options.rate, "min_learning_rate": options.rate / 10, "warmup_steps": 5}
    optimizer = Optimizer.model_validate({**settings, "schedule": "cosine"})
    policy, teacher = quantised(whole, options.format, optimizer), HFPolicy(whole)
    data = PackedSequences(sft_files(layout), layout.root / "sequences.arrow")
    order = ShuffledEpochs(len(data), seed, "quantization", "sequences")
    for step in range(options.steps):
        batch = [data[order[i]] for i in range(step * options.batch, (step + 1) * options.batch)]
        tokens = sum(sum(sequence.trained) for sequence in batch)
        rate = learning_rate(optimizer, step, options.steps)
        if method == "qad":
            report = policy.distill(batch, teacher, mean(tokens), rate)
        else:
            report = policy.step(batch, mean_negative_log_prob(tokens), rate)
        if step % 10 == 0:
            print(f"{method} {seed}: step {step} loss {report.loss:.4f}", flush=True)
    return policy


def divergence(recipe: Recipe, layout: Layout, whole: Path, checkpoint: Path) -> float:
    """Forward KL on the first sequences of data/sft, which the trainings may have seen, in nats a token."""
    saved = layout.root / "divergences" / f"{checkpoint.name}.json"
    if not saved.exists():
        data = PackedSequences(sft_files(layout), layout.root / "sequences.arrow")
        rows = [data[i] for i in range(min(16, len(data)))]
        write_json(saved, HFPolicy(checkpoint).forward_kl(rows, HFPolicy(whole)).mean().item())
    return float(read_json(saved))


def evaluated(recipe: Recipe, layout: Layout, checkpoint: Path, prompts: int) -> Rewards:
    saved = layout.root / "rewards" / f"{checkpoint.name}.json"
    found: Rewards = read_json(saved) if saved.exists() else {}
    if missing := [domain for domain in recipe.domains if domain not in found]:
        runner = CheckpointRunner(recipe, "hf", checkpoint, threads=1)
        try:
            for domain in missing:
                rewards: dict[str, list[float]] = {}
                for row in runner.run(load_prompts(layout.benchmark(domain), domain)[:prompts]):
                    if row["reward"] is not None:
                        rewards.setdefault(row["prompt_id"], []).append(row["reward"])
                found[domain] = {prompt: sum(values) / len(values) for prompt, values in rewards.items()}
                write_json(saved, found)
        finally:
            runner.close()
    return found


def summarise(found: dict[str, Rewards], options: argparse.Namespace) -> dict[str, Any]:
    domains = list(found["checkpoint"])
    ptq = f"ptq {options.format}"
    seeds = {m: [found[f"{m} {options.format} {s}"] for s in options.seeds] for m in ("qad", "sft")}
    table: dict[str, Any] = {}
    for domain in domains:
        prompts = [p for p in found["checkpoint"][domain] if all(p in rewards[domain] for rewards in found.values())]

        def of(rewards: Rewards, domain: str = domain, prompts: list[str] = prompts) -> np.ndarray:
            return np.array([rewards[domain][prompt] for prompt in prompts])

        whole, lost = of(found["checkpoint"]), of(found[ptq])
        mean_of = {method: np.mean([of(rewards) for rewards in runs], axis=0) for method, runs in seeds.items()}
        table[domain] = {
            "prompts": len(prompts),
            "checkpoint": score(whole),
            "ptq": {form: score(of(found[f"ptq {form}"])) for form in options.formats},
            "ptq_loss": {form: difference(of(found[f"ptq {form}"]) - whole) for form in options.formats},
            **{m: score(values) for m, values in mean_of.items()},
            **{f"{m}_minus_ptq": difference(values - lost) for m, values in mean_of.items()},
            **{f"{m}_minus_checkpoint": difference(values - whole) for m, values in mean_of.items()},
            "qad_minus_sft": difference(mean_of["qad"] - mean_of["sft"]),
            **{f"{m}_recovery": recovery(lost, values, whole, domain, m) for m, values in mean_of.items()},
        }
    settings = {key: getattr(options, key) for key in ("format", "seeds", "steps", "batch", "rate", "prompts")}
    return {"settings": settings, "domains": table}


def score(values: np.ndarray) -> list[float]:
    """Mean and its 95 % interval."""
    interval = mean_interval(values.tolist(), len(values))
    return [float(values.mean()), interval.low, interval.high]


def difference(values: np.ndarray) -> list[float]:
    """Mean of paired differences and its 95 % interval."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return [float(values.mean()), float(values.mean()) - half, float(values.mean()) + half]


def recovery(lost: np.ndarray, after: np.ndarray, whole: np.ndarray, *keys: str) -> list[float] | None:
    """(after − lost) / (whole − lost) of the means; None where the loss is not significant."""
    if difference(lost - whole)[2] >= 0:
        return None
    generator = np.random.default_rng(derive_seed("recovery", *keys))
    drawn = generator.integers(len(lost), size=(RESAMPLES, len(lost)))
    gaps = (whole - lost)[drawn].mean(1)
    rates = ((after - lost)[drawn].mean(1) / np.where(gaps > 0, gaps, np.nan))[gaps > 0]
    rate = float((after - lost).mean() / (whole - lost).mean())
    return [rate, *(float(q) for q in np.quantile(rates, [0.025, 0.975]))]


def as_table(summary: dict[str, Any]) -> str:
    form = summary["settings"]["format"]
    lines = [
        f"| domain | checkpoint | {form} | qad | sft | recovered by qad | by sft | qad − sft |",
        "| --- " * 8 + "|",
    ]
    for domain, row in summary["domains"].items():
        cells = [row["checkpoint"], row["ptq"][form], row["qad"], row["sft"]]
        rates = [row["qad_recovery"], row["sft_recovery"]]
        shown = [f"{100 * v:.1f} [{100 * low:.1f}, {100 * high:.1f}]" for v, low, high in cells]
        shown += ["–" if r is None else f"{100 * r[0]:.0f} % [{100 * r[1]:.0f}, {100 * r[2]:.0f}]" for r in rates]
        shown.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in row["qad_minus_sft"])))
        lines.append(f"| {domain} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
