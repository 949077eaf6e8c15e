"""The card of one node's checkpoint.

Format: https://huggingface.co/docs/hub/model-cards, its results as `model-index`.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cascade.commands.publish.markdown import card, table
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import BASE, Recipe
from cascade.report.facts import costs, provenance
from cascade.report.results import Results, load_results, main_line
from cascade.utils.files import read_json

KINDS = {
    "sft": "supervised fine-tuning",
    "rl": "GRPO on verified rewards",
    "off_policy": "fine-tuning on the teachers' verified answers",
    "distill": "multi-domain on-policy distillation",
    "repair": "regression check, with a distillation where it found one",
    "quantize": "post-training quantisation",
    "qad": "regression check, with quantisation-aware distillation where it found one",
}


FROM_BASE = ("license", "license_name", "license_link", "base_model")
"""Fields of the base model's card that also hold for models trained from it."""


def model_card(recipe: Recipe, layout: Layout, node: str, base_model: str | None = None) -> str:
    """README.md of the checkpoint of `node`: YAML metadata and text.

    The licence is that of the base model's own card, and left out where it has none. So is the base model's name on the
    Hub, where `base_model` does not say it. Raises CascadeError where the node is no training node of the recipe or has
    not been evaluated.
    """
    if node not in recipe.training:
        raise CascadeError(f"{node}: no training node of recipe {recipe.name}; it has {', '.join(recipe.training)}")
    results = load_results(recipe, layout)
    if node not in results.summaries:
        raise CascadeError(f"{node}: no scores for its card yet; `cascade evaluate {node}` makes them")
    name = registered_name(recipe, node)
    line = main_line(recipe, node)
    origin = _of_base(layout.root / recipe.base / "README.md")
    if base_model is not None:
        origin["base_model"] = base_model
    return card(
        _metadata(recipe, layout, results, node, name, origin),
        f"# {name}",
        f"Node `{node}` of the recipe `{recipe.name}`, post-trained from {_linked(origin, recipe)} by Cascade, after "
        f"the Nemotron-Cascade 2 recipe (arXiv 2603.19220). {_licence(origin)}",
        "## Results",
        f"avg@{results.summaries[node]['k']}: mean reward of as many responses a held-out prompt, averaged over "
        "prompts, in percent, with 95 % intervals over prompts. The benchmarks are the recipe's own.",
        _scores(results, node),
        *_gates(recipe, results, node),
        "## Training",
        _stages(recipe, layout, results, line),
        _teachers(recipe, results, line),
        "## Use",
        _how_to_load(recipe, node, name),
        f'```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\nDIRECTORY = "{name}"\n'
        "tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)\n"
        "model = AutoModelForCausalLM.from_pretrained(DIRECTORY)\n```",
        "## Limits",
        "Nothing but the scores above has been measured: neither other benchmarks, nor safety, nor bias.",
        "## Provenance",
        table(
            ["what", "value"],
            [("checkpoint, SHA-256", results.summaries[node]["checkpoint"]), *provenance(recipe, layout).items()],
        ),
    )


def _how_to_load(recipe: Recipe, node: str, name: str) -> str:
    section = recipe.quantize.get(recipe.qad[node].init if node in recipe.qad else node)
    if section is None:
        return "The directory loads in transformers as it is; prompts follow its chat template."
    text = (
        f"The weights are in {section.format}, in compressed-tensors' layout: vLLM serves the directory (`vllm serve "
        f"{name}`), transformers loads it where that package is installed (`pip install compressed-tensors`). Prompts "
        "follow its chat template."
    )
    if section.format == "fp8" and recipe.evaluation.rollout.engine != "vllm":
        text += " Engines also round activations, which the scores above leave out."
    return text


def registered_name(recipe: Recipe, node: str) -> str:
    """The name that a gate registers the node's model under; the recipe's and the node's where none does."""
    names = [gate.registered_name for gate in recipe.gate.values() if gate.candidate == node]
    return names[0] if names else f"{recipe.name}-{node}"


def _metadata(recipe: Recipe, layout: Layout, results: Results, node: str, name: str, origin: dict[str, Any]) -> str:
    sources = recipe.curation.sources.values()
    datasets = sorted({source.dataset for source in sources if source.dataset})
    data = ModelCardData(
        **origin,
        library_name="transformers",
        pipeline_tag="text-generation",
        datasets=datasets or None,
        tags=["cascade", *sorted({recipe.kind(n) for n in main_line(recipe, node)})],
        model_name=name,
        eval_results=_evaluations(layout, results, node),
    )
    return str(data.to_yaml())


def _of_base(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    data = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    return {key: value for key in FROM_BASE if (value := data.get(key))}


def _linked(origin: dict[str, Any], recipe: Recipe) -> str:
    """The base model: on the Hub where it is known to be there, else where the recipe has it."""
    base_models = origin.get("base_model", [])
    names = [base_models] if isinstance(base_models, str) else base_models
    return ", ".join(f"[{name}](https://huggingface.co/{name})" for name in names) or f"`{recipe.base}`"


def _licence(origin: dict[str, Any]) -> str:
    if not (licence := origin.get("license_name") or origin.get("license")):
        return "The card of its base model names no licence."
    link = f" ({origin['license_link']})" if "license_link" in origin else ""
    return f"Licence: {licence}{link}, as of its base model's card."


def _evaluations(layout: Layout, results: Results, node: str) -> list[EvalResult]:
    summary = results.summaries[node]
    manifest = layout.evaluation(node) / "manifest.json"
    revisions: dict[str, str] = read_json(manifest)["inputs"]["benchmarks"] if manifest.exists() else {}
    return [
        EvalResult(
            task_type="text-generation",
            # No name of a data set on the Hub: the benchmarks are not there.
            dataset_type=f"{results.recipe.name}-{domain}",
            dataset_name=f"{domain}, held-out prompts of the recipe {results.recipe.name}",
            dataset_split="benchmark",
            dataset_revision=revisions.get(domain),
            metric_type=metric.replace("@k", f"@{summary['k']}"),
            metric_name=f"{description}, percent",
            metric_value=round(100 * scores[metric], 2),
        )
        for domain, scores in summary["domains"].items()
        for metric, description in (("avg@k", "mean reward"), ("pass@1", "share of responses with reward 1"))
    ]


def _scores(results: Results, node: str) -> str:
    k = results.summaries[node]["k"]
    rows = []
    for domain, scores in results.summaries[node]["domains"].items():
        base = results.score(BASE, domain)
        rows.append(
            [
                domain,
                f"{100 * scores['avg@k']:.1f} [{100 * scores['ci_low']:.1f}, {100 * scores['ci_high']:.1f}]",
                f"{100 * scores['pass@1']:.1f}",
                "not measured" if base is None else f"{100 * base:.1f}",
                scores["prompts"],
                f"{scores['length']:.0f}",
            ]
        )
    return table(["domain", f"avg@{k}", "pass@1", "base model", "prompts", "tokens a response"], rows)


def _gates(recipe: Recipe, results: Results, node: str) -> list[str]:
    decisions = {n: d for n, g in recipe.gate.items() if g.candidate == node and (d := results.decisions.get(n))}
    return [f"Gate `{n}`: {'passed' if d['passed'] else 'not passed'}. {d['words']}." for n, d in decisions.items()]


def _stages(recipe: Recipe, layout: Layout, results: Results, line: list[str]) -> str:
    costs_by_node = {cost.node: cost for cost in costs(results, layout)}
    rows: list[list[Any]] = []
    for node in line:
        adapters = recipe.training[node].lora
        method = KINDS[recipe.kind(node)] + (f", adapters (LoRA) of rank {adapters.rank}" if adapters else "")
        if (cost := costs_by_node.get(node)) is None:
            rows.append([node, KINDS[recipe.kind(node)], "none: passed on unchanged", 0, 0, "–"])
            continue
        mix = getattr(recipe.training[node], "mix", recipe.domains)
        totals = [f"{cost.steps:,}", f"{cost.trained_tokens:,}", f"{cost.seconds / 60:.1f}"]
        rows.append([node, method, ", ".join(mix), *totals])
    return table(["node", "method", "domains", "steps", "trained tokens", "minutes"], rows)


def _teachers(recipe: Recipe, results: Results, line: list[str]) -> str:
    rows = [
        [node, domain, teacher["node"], teacher["hash"][:12]]
        for node in line
        if (decision_node := recipe.teachers_chosen_by(node)) is not None
        for domain, teacher in results.decisions.get(decision_node, {}).get("teachers", {}).items()
        if domain in getattr(recipe.training[node], "mix", ())
    ]
    return table(["distillation", "domain", "teacher", "its SHA-256"], rows)
