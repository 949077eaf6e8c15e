"""Find, activate and show recipes."""

from pathlib import Path
from typing import Any

import yaml

from cascade.errors import CheckpointError, RecipeError
from cascade.layout import Layout
from cascade.recipe import (
    BASE,
    OffPolicyNode,
    OnPolicyNode,
    Placement,
    QADNode,
    QuantizeNode,
    Recipe,
    Section,
    SFTNode,
    SolveNode,
    TaughtNode,
    load,
)
from cascade.utils.files import write_atomic

LISTED = 50
"""More changed values than that are counted, not listed."""


def find(source: str | None, layout: Layout) -> Path:
    """The file of a recipe: a name in recipes/, a path, or by default the active one. Raises RecipeError."""
    if source is None:
        return layout.params
    library_path = layout.root / "recipes" / f"{source}.yaml"
    path = library_path if library_path.is_file() else Path(source)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in library_path.parent.glob("*.yaml"))) or "none"
        raise RecipeError(f"{source}: neither a recipe in recipes/ ({names}) nor a file")
    return path


def makes_base(recipe: Recipe, layout: Layout) -> str:
    """The command that makes the recipe's base model where it is missing."""
    if recipe.base == "models/base":
        return "cascade pretrain"
    name = f"{Path(recipe.base).name}.yaml"
    made_here = (layout.root / "recipes" / "base" / name).is_file()
    return f"cascade {f'pretrain recipes/base/{name}' if made_here else 'import SOURCE'} --out {recipe.base}"


def use(source: str, layout: Layout) -> list[str]:
    """Make a recipe the active one, after checking it. Returns what changed, one line a key; of a recipe that has
    little in common with the one before, how much."""
    path = find(source, layout)
    recipe = load(path)
    text = path.read_text(encoding="utf-8")
    old_values = _keys(layout.params) if layout.params.exists() else {}
    changes = [
        f"  {key}: {old_values.get(key, 'absent')} → {new_value}"
        for key, new_value in _keys(path).items()
        if old_values.get(key) != new_value
    ] + [f"  {key}: {value} → absent" for key, value in old_values.items() if key not in _keys(path)]
    if layout.params.exists() and layout.params.read_text(encoding="utf-8") == text:
        return [f"params.yaml is {path} already; nothing changed"]
    write_atomic(layout.params, text)
    first = f"params.yaml is now {recipe.name} ({path}); {len(changes)} values changed"
    return [
        first,
        *(changes if len(changes) <= LISTED else ["  too many to list; it is shown by `cascade recipe show`"]),
    ]


def show(path: Path) -> list[str]:
    """The recipe as text: its data, then its nodes in order."""
    recipe = load(path)
    lines = [f"{recipe.name}: family {recipe.family}, seed {recipe.seed}, base {recipe.base}", "", "Data"]
    for name, source in recipe.curation.sources.items():
        amounts = {"SFT": source.sft, "RL": source.rl, "benchmark": source.benchmark}
        counts = ", ".join(f"{use} {'all' if n == -1 else f'{n:,}'}" for use, n in amounts.items() if n)
        origin = source.generator or source.path or source.dataset or source.harbor
        origin = origin or f"the hub's {source.verifiers.name if source.verifiers else ''}"
        lines.append(f"  {name:24} {counts} of {source.domain}, from {origin}")
    lines += ["", "Nodes"]
    for name, node in recipe.ordered().items():
        parents = ", ".join(recipe.parents(name)) or "base"
        place = f", {_place(recipe.place(name))}" if name in recipe.pools else ""
        lines.append(f"  {name:24} {recipe.kind(name)} from {parents}{place}")
        lines += [f"  {'':24} {line}" for line in _settings(node)]
    return lines


def _settings(node: Section) -> list[str]:
    if isinstance(node, SFTNode):
        return [f"{node.epochs:g} epochs, batches of {node.batch} sequences, {_rate(node)}"]
    if isinstance(node, OnPolicyNode):
        mix = ", ".join(f"{domain} {100 * share:g} %" for domain, share in node.mix.items())
        size = f"{node.prompts} prompts × {node.rollouts} rollouts of up to {node.rollout.max_new_tokens:,} tokens"
        trained = f"{node.steps} steps of {size}, {_rate(node)}" if node.steps else "nothing is trained"
        return [mix, *_merge(node), trained]
    if isinstance(node, SolveNode):
        strategy = node.strategy.model_dump(exclude={"name"}, exclude_none=True)
        limits = node.budget.model_dump(exclude_none=True) or {"budget": "the strategy's rounds"}
        return [
            f"{node.strategy.name} on {node.benchmark}, up to {node.rollout.max_new_tokens:,} tokens a response",
            ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in strategy.items()),
            ", ".join(f"{key} {value:,}" if key != "budget" else f"{key}: {value}" for key, value in limits.items()),
        ]
    if isinstance(node, QuantizeNode):
        return [f"{node.format}, without {', '.join(node.keep)}" if node.keep else node.format]
    if isinstance(node, QADNode):
        return [f"{node.steps} steps of {node.batch} sequences, {_rate(node)}"]
    if isinstance(node, OffPolicyNode):
        mix = ", ".join(f"{domain} {100 * share:g} %" for domain, share in node.mix.items())
        answers = f"{node.prompts} prompts × {node.rollouts} answers of up to {node.rollout.max_new_tokens:,} tokens"
        return [mix, *_merge(node), f"{node.epochs:g} epochs of {answers}, batches of {node.batch}, {_rate(node)}"]
    return []


def _merge(node: Section) -> list[str]:
    if not isinstance(node, TaughtNode) or node.start == "init":
        return []
    scale = "their mean" if node.merge_scale is None else f"{node.merge_scale:g} of each task vector"
    return [f"starts from a merge of the teachers: {scale}"]


def _place(place: Placement) -> str:
    on = f"on pool {place.pool} by {place.launcher}"
    return f"{on}: {place.machines} × {place.gpus} GPUs" if place.gpus else on


def _rate(node: SFTNode | OffPolicyNode | OnPolicyNode | QADNode) -> str:
    adapters = f", adapters of rank {node.lora.rank}" if node.lora else ""
    return f"learning rate {node.optimizer.learning_rate:g}{adapters}"


def _keys(path: Path) -> dict[str, Any]:
    """Every value of a YAML file under its dotted key."""
    values: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            values[prefix] = value

    walk("", yaml.safe_load(path.read_text(encoding="utf-8")))
    return values


def checkpoint_of(recipe: Recipe, layout: Layout, node: str) -> Path:
    """The directory of a node's checkpoint, or of the base model. Raises CheckpointError when it is not there."""
    path = layout.root / recipe.base if node == BASE else layout.checkpoint(node)
    if not (path / "config.json").exists():
        raise CheckpointError(f"{path}: no checkpoint there; `cascade node {node}` makes it")
    return path
