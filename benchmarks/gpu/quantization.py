"""A fine-tuned model in every number format, on one GPU: size, distance, scores, what distillation wins back, products.

    python -m benchmarks.gpu.quantization [--parts model formats products vllm served] [--out FILE] [--work DIR]

Parts, each written to --out as soon as it is known, beside what the file holds already; what is in --work is not made
again, so an interrupted run goes on:

model     the base model of recipes/base/one-gpu.yaml, 141M parameters, pretrained in --pretrain steps; data, SFT
          and its evaluation as recipes/one-gpu.yaml has them
formats   a `quantize` node of each format and its evaluation, from what it wrote; of --distilled also a `qad` node
          (regression check, distillation where it finds one) and its evaluation
products  the matrix products of the model's layers in bfloat16 and in FP8 (weights by output, activations by token),
          by number of rows
vllm      each written directory in vLLM: seconds to start, tokens a second of 128 responses of 256 tokens, and the
          log-probabilities of what it samples from our own of the same directory
served    the evaluation of each written directory, sampled by vLLM

The evaluations of `formats` compute with the weights' values in the trainer's precision. Where a card has no NVFP4,
that is what its engines do too; in FP8 they also round activations.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from benchmarks.gpu.path import run
from cascade.errors import CascadeError
from cascade.evaluation.benchmark import evaluate
from cascade.layout import Layout
from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.policy.quantization.fake import targets
from cascade.pretraining.pretrain import pretrain
from cascade.recipe import Rollout, load
from cascade.report.results import load_results
from cascade.rollout.base import SampleRequest
from cascade.training.quantize import probe
from cascade.utils.files import read_json, write_atomic, write_json
from cascade.utils.machine import machine
from cascade.utils.seeds import derive_seed

FORMATS = ("fp8", "nvfp4", "int8", "int4", "int2")
SERVED = ("sft", "fp8", "nvfp4", "int8", "int4")
"""Of int2 vLLM has no kernel."""
KEPT = {form: ["lm_head", "in_proj"] for form in ("nvfp4", "int8", "int4")}
"""Of Mamba's input projection there are 3,224 outputs: vLLM's kernels for weights alone need a multiple of 64."""
ROWS = (1, 16, 128, 512, 4096)
PROMPT_TOKENS = 64
E4M3 = torch.float8_e4m3fn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--recipe", type=Path, default=Path("recipes/one-gpu.yaml"))
    parser.add_argument("--base", type=Path, default=Path("recipes/base/one-gpu.yaml"), help="or a model's directory")
    parser.add_argument("--pretrain", type=int, default=700, help="steps")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the recipe's rows")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--distilled", nargs="*", default=["nvfp4", "int4", "int2"], choices=FORMATS)
    parser.add_argument("--steps", type=int, default=100, help="of a distillation")
    parser.add_argument("--batch", type=int, default=32, help="packed sequences a step")
    parser.add_argument("--jobs", type=int, default=3, help="formats at a time")
    parser.add_argument("--memory", type=float, default=0.3, help="vLLM's share of the GPU's memory")
    parser.add_argument("--work", type=Path, default=Path(".cascade/quantization"))
    parser.add_argument("--out", type=Path, default=Path("results/gpu/quantization.json"))
    options = parser.parse_args()
    layout = Layout(options.work.resolve())
    layout.root.mkdir(parents=True, exist_ok=True)
    write_atomic(layout.params, yaml.safe_dump(recipe_of(options), sort_keys=False))
    found: dict[str, Any] = read_json(options.out) if options.out.exists() else {"seconds": {}}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found |= {"device": device, "machine": machine(), "torch": torch.__version__}
    for part in options.parts:
        PARTS[part](options, layout, found)
        write_json(options.out, found)
        print(f"== {part} done", flush=True)


def recipe_of(options: argparse.Namespace) -> dict[str, Any]:
    raw = yaml.safe_load(options.recipe.read_text(encoding="utf-8"))
    kept = {key: raw[key] for key in ("judges", "curation", "sft", "evaluation")}
    for source in kept["curation"]["sources"].values():
        source |= {key: max(1, round(options.rows * source[key])) for key in ("sft", "rl", "benchmark", "held_out")}
        source["rl"] = max(1, source["rl"] // 20)  # Nothing is trained on them.
    optimizer = {"learning_rate": 1e-4, "min_learning_rate": 1e-5, "warmup_steps": 5, "schedule": "cosine"}
    distillation = {"reads_round": 1, "round": 2, "steps": options.steps, "batch": options.batch, "budget": 1.0}
    return {
        "name": "one-gpu-quantized",
        "family": "one-gpu-quantized",
        "threads": raw["threads"],
        "base": "models/base",
        **kept,
        "quantize": {
            # In bfloat16 a written int2 checkpoint was 0.0011 nats off its model; the default is for float32.
            form: {
                "init": "sft",
                "round": 1,
                "format": form,
                "keep": KEPT.get(form, ["lm_head"]),
                "max_log_prob_gap": 0.01,
            }
            for form in options.formats
        },
        "qad": {
            # A copy each: YAML would write what is one object as an alias, which a recipe may not have.
            f"{form}_qad": {"init": form, **distillation, "optimizer": dict(optimizer)}
            for form in options.distilled
            if form in options.formats
        },
        "gate": {},
    }


def model(options: argparse.Namespace, layout: Layout, found: dict[str, Any]) -> None:
    base = layout.root / "models" / "base"
    if not base.exists() and options.base.is_dir():
        shutil.copytree(options.base, base)
    elif not base.exists():
        raw = yaml.safe_load(options.base.read_text(encoding="utf-8"))
        share = options.pretrain / raw["training"]["steps"]
        raw["training"]["steps"] = options.pretrain
        raw["mixture"] = {
            source: {level: max(1, round(share * rows)) for level, rows in levels.items()}
            for source, levels in raw["mixture"].items()
        }
        recipe = layout.root / "base.yaml"
        write_atomic(recipe, yaml.safe_dump(raw, sort_keys=False))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        pretrain(recipe, base, device=device, processes=os.cpu_count() or 1)
        torch.cuda.empty_cache()
    for command, made in (
        (("node", "curate"), layout.root / "data" / "report.json"),
        (("node", "sft"), layout.checkpoint("sft")),
        (("evaluate", "sft"), layout.evaluation("sft") / "summary.json"),
    ):
        if not made.exists():
            run(layout, command, found["seconds"])
    scores(layout, found)


def formats(options: argparse.Namespace, layout: Layout, found: dict[str, Any]) -> None:
    recipe, writing = load(layout.params), Lock()

    def chain(form: str) -> None:
        for name in (form, f"{form}_qad"):
            if name not in recipe.training:
                continue
            for command, made in (
                (("node", name), layout.checkpoint(name)),
                (("evaluate", name), layout.evaluation(name) / "summary.json"),
            ):
                if not made.exists():
                    run(layout, command, found["seconds"])
        with writing:
            scores(layout, found)
            write_json(options.out, found)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(chain, options.formats))
    sft = HFPolicy(layout.checkpoint("sft"), device="cuda" if torch.cuda.is_available() else "cpu")
    found["formats"] = {name: distance(recipe, layout, name, sft) for name in (*recipe.quantize, *recipe.qad)}


def distance(recipe: Any, layout: Layout, name: str, sft: HFPolicy) -> dict[str, Any]:
    """Of a written checkpoint from what it was quantised from, on rows of data/sft; and the check's verdicts."""
    node = recipe.quantize[name if name in recipe.quantize else recipe.qad[name].init]
    rows = probe(recipe, node, name, layout, layout.root / "probe")
    loaded = HFPolicy(layout.checkpoint(name), device=str(sft.device))
    gap = (loaded.score(rows).log_probs - sft.score(rows).log_probs).abs()
    ours, theirs = (
        sum(file.stat().st_size for file in layout.checkpoint(n).glob("*.safetensors")) for n in (name, "sft")
    )
    decision = read_json(layout.decision(name)) if name in recipe.qad else {}
    return {
        "bytes": ours,
        "size_share": ours / theirs,
        "forward_kl": loaded.forward_kl(rows, sft).mean().item(),
        "log_prob_gap": gap.mean().item(),
        "tokens": len(gap),
        **({"regressed": decision["regressed"], "domains": decision["domains"]} if decision else {}),
    }


def scores(layout: Layout, found: dict[str, Any]) -> None:
    recipe = load(layout.params)
    results = load_results(recipe, layout)
    found["scores"] = {
        node: {domain: summary["domains"][domain] for domain in recipe.domains} | {"mean": results.mean(node)}
        for node, summary in results.summaries.items()
    }
    # In place: others add to it meanwhile.
    found["seconds"] |= {command: round(seconds, 1) for command, seconds in list(found["seconds"].items())}


def products(options: argparse.Namespace, layout: Layout, found: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        print("products: needs a GPU", flush=True)
        return
    net = HFPolicy(layout.checkpoint("sft"), device="cuda").model
    shapes = sorted({tuple(w.shape) for w in targets(net, ("lm_head",)).values() if w.ndim == 2})
    shapes += [(4096, 4096), (14336, 4096)]
    table = []
    for outputs, inputs in shapes:
        if outputs % 16 or inputs % 16:  # What FP8 products need.
            continue
        weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) / inputs**0.5
        scale = weight.abs().amax(1, keepdim=True).float() / 448
        narrow = (weight / scale).to(E4M3)
        for rows in ROWS:
            x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
            exact = nn.functional.linear(x.float(), weight.float())
            try:
                error = (in_fp8(x, narrow, scale).float() - exact).norm() / exact.norm()
            except RuntimeError as refused:
                table.append({"outputs": outputs, "inputs": inputs, "rows": rows, "refused": str(refused)[:200]})
                continue
            narrow_x, by_token = by_rows(x)
            table.append(
                {
                    "outputs": outputs,
                    "inputs": inputs,
                    "rows": rows,
                    "bfloat16_us": microseconds(lambda x=x, w=weight: nn.functional.linear(x, w)),
                    "fp8_us": microseconds(lambda x=narrow_x, t=by_token, n=narrow, s=scale: product(x, t, n, s)),
                    "fp8_with_activations_us": microseconds(lambda x=x, n=narrow, s=scale: in_fp8(x, n, s)),
                    "relative_error": error.item(),
                }
            )
    found["products"] = table


def by_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Activations in FP8, with a scale for each token."""
    scale = x.abs().amax(1, keepdim=True).float() / 448
    return (x / scale).to(E4M3), scale


def product(x: Tensor, by_token: Tensor, weight: Tensor, by_output: Tensor) -> Tensor:
    return torch._scaled_mm(x, weight.t(), scale_a=by_token, scale_b=by_output.t(), out_dtype=torch.bfloat16)


def in_fp8(x: Tensor, weight: Tensor, by_output: Tensor) -> Tensor:
    return product(*by_rows(x), weight, by_output)


def microseconds(call: Any, repeats: int = 200) -> float:
    """Of one call, from a CUDA graph of 20, without launches."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(20):
            call()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    start.record()
    for _ in range(repeats // 20):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return 1000 * start.elapsed_time(end) / repeats


def vllm(options: argparse.Namespace, layout: Layout, found: dict[str, Any]) -> None:
    import vllm

    from benchmarks.gpu.vllm_sampling import PROMPTS, ROLLOUTS, rate, seconds
    from cascade.rollout.vllm_engine.sampler import VLLMSampler

    recipe, count = load(layout.params), 256
    rows = probe(recipe, recipe.quantize[options.formats[0]], "vllm", layout, layout.root / "probe")
    prompts = [row.token_ids[:PROMPT_TOKENS] for row in rows[:PROMPTS]]
    requests = [
        SampleRequest(prompt, derive_seed("quantization", n, rollout))
        for n, prompt in enumerate(prompts)
        for rollout in range(ROLLOUTS)
    ]

    def measure(name: str) -> dict[str, Any]:
        policy = HFPolicy(layout.checkpoint(name), device="cuda")
        sampler = VLLMSampler(policy, Rollout(engine="vllm", max_new_tokens=count, memory=options.memory), stop=())
        try:
            start = seconds(lambda: sampler.refresh(policy))
            speed = rate(lambda: sampler.sample(requests, max_new_tokens=count), count, repeats=5)
            samples = sampler.sample(requests, max_new_tokens=count)
        finally:
            sampler.close()
        sequences = [
            Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * count)
            for r, s in zip(requests, samples, strict=True)
        ]
        theirs = torch.tensor([x for sample in samples for x in sample.log_probs])
        gap = (policy.score(sequences).log_probs - theirs).abs()
        return {
            "bytes": sum(file.stat().st_size for file in layout.checkpoint(name).glob("*.safetensors")),
            "start seconds": start,
            **speed,
            "log-probability gap": {"mean": gap.mean().item(), "max": gap.max().item(), "tokens": len(gap)},
        }

    found["vllm version"] = vllm.__version__
    each(options, found, "vllm", measure)


def served(options: argparse.Namespace, layout: Layout, found: dict[str, Any]) -> None:
    recipe = load(layout.params)
    rollout = recipe.evaluation.rollout.model_copy(update={"engine": "vllm", "memory": options.memory})
    evaluation = recipe.evaluation.model_copy(update={"rollout": rollout})
    in_vllm = recipe.model_copy(update={"evaluation": evaluation})

    def measure(name: str) -> dict[str, Any]:
        summary = evaluate(in_vllm, name, layout, layout.checkpoint(name), layout.root / "served" / name)
        return {domain: summary["domains"][domain] for domain in recipe.domains}

    each(options, found, "served", measure)


def each(
    options: argparse.Namespace, found: dict[str, Any], key: str, measure: Callable[[str], dict[str, Any]]
) -> None:
    """Of each directory that is served and not known yet; what vLLM refuses has its line instead."""
    table = found.setdefault(key, {})
    for name in SERVED:
        known = name in table and "refused" not in table[name]
        if known or name not in ("sft", *options.formats):
            continue
        try:
            table[name] = measure(name)
        except CascadeError as refused:
            table[name] = {"refused": str(refused)}
        print(json.dumps({key: {name: table[name]}}), flush=True)
        write_json(options.out, found)


PARTS = {"model": model, "formats": formats, "products": products, "vllm": vllm, "served": served}


if __name__ == "__main__":
    main()
