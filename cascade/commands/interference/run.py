"""The runs behind the matrix: RL on each domain alone, from one checkpoint, each evaluated on every domain.

They are nodes of a derived recipe in a separate directory, built like all nodes. The directory is named by a hash of
the runs' inputs, so results in it are reused: after a kill the command resumes, after a finished run it only draws the
results. Another start or other settings give another directory."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from cascade.commands.interference.effects import Effect, effects, harms_of
from cascade.commands.interference.order import Harms, Judged, Stages, judge, suggest
from cascade.errors import RecipeError
from cascade.evaluation.results import EvaluationResult, load_result
from cascade.launch.launcher import launched
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from cascade.recipe.library import checkpoint_of
from cascade.stages import evaluate_node, run_node
from cascade.training.node_run import require_files
from cascade.utils.files import fingerprint, hash_directory, hash_file, write_atomic
from cascade.utils.progress import say

ALONE = "alone-"
"""Prefix of the name of a node that trains on one domain."""


@dataclass(frozen=True)
class Interference:
    """The measured effects, and the order of stages that they suggest."""

    start: str
    nodes: dict[str, str]
    """Trained domain → the recipe's node whose settings it was trained with."""
    steps: dict[str, int]
    domains: list[str]
    """Evaluated domains."""
    effects: list[Effect]
    harms: Harms
    default: Stages
    """The recipe's stages."""
    suggested: Stages
    folder: Path

    @property
    def judged(self) -> tuple[Judged, Judged]:
        """The default order and the suggested one."""
        return judge(self.harms, self.default), judge(self.harms, self.suggested)


def measure(start: str, layout: Layout, steps: int | None = None) -> Interference:
    """Run what is missing and return the matrix. `steps` overrides the recipe's number for every domain.

    Each domain that the recipe trains by RL is trained alone, with the settings of the node in whose mix it has the
    largest share (on ties, the earlier node). Trained checkpoints are deleted; evaluations and curves are kept.
    Raises RecipeError for an unknown start or a recipe without RL, CascadeError as the nodes do.
    """
    recipe = load(layout.params)
    if start not in recipe.training:
        raise RecipeError(f"{start}: makes no checkpoint to start from; these do: {', '.join(recipe.training)}")
    nodes = nodes_of(recipe)
    if not nodes:
        raise RecipeError(f"recipe {recipe.name} has no node in section rl, so there is nothing to compare")
    derived = alone(recipe, start, nodes, steps)
    project_layout = _prepare(derived, start, layout)
    names = [start, *(ALONE + domain for domain in nodes)]
    durations: list[float] = []
    for number, name in enumerate(names):
        remaining = f", left {_minutes(sum(durations) / len(durations) * (len(names) - number))}" if durations else ""
        if not _finished(name, project_layout):
            say(f"interference {number + 1}/{len(names)}: {name}{remaining}")
            began = time.monotonic()
            _build(name, name != start, project_layout)
            if name != start:
                durations.append(time.monotonic() - began)
    results = {name: load_result(project_layout, name) for name in names}
    return conclude(derived, start, nodes, results, project_layout.root)


def nodes_of(recipe: Recipe) -> dict[str, str]:
    """Domain → RL node that trains it, in the cascade's order: the node with its largest share; on ties, the
    earlier."""
    nodes: dict[str, str] = {}
    for name in recipe.ordered():
        if name in recipe.rl:
            for domain, share in recipe.rl[name].mix.items():
                if domain in recipe.domains and (domain not in nodes or share > recipe.rl[nodes[domain]].mix[domain]):
                    nodes[domain] = name
    return nodes


def alone(recipe: Recipe, start: str, nodes: dict[str, str], steps: int | None) -> Recipe:
    """The recipe with an additional node ALONE + DOMAIN for each domain."""
    raw = recipe.model_dump(mode="json")
    raw |= {"name": f"{recipe.name}-interference", "family": f"{recipe.family}-interference"}
    for domain, node in nodes.items():
        changes = {"init": start, "round": recipe.training[start].round, "mix": {domain: 1.0}}
        section = recipe.rl[node].model_dump(mode="json") | changes
        raw["rl"][ALONE + domain] = section | ({} if steps is None else {"steps": steps})
        if node in recipe.pools:
            raw["pools"][ALONE + domain] = recipe.pools[node].model_dump(mode="json")
    return Recipe.model_validate(raw)


def conclude(
    recipe: Recipe, start: str, nodes: dict[str, str], results: dict[str, EvaluationResult], folder: Path
) -> Interference:
    """The matrix and the suggested order. `recipe`: as `alone` returns it; `results`: node → its evaluation."""
    trained = {domain: results[ALONE + domain] for domain in nodes}
    all_effects = effects(results[start], trained, recipe.domains, recipe.seed)
    harms = harms_of(all_effects)
    steps = {domain: recipe.rl[ALONE + domain].steps for domain in nodes}
    default = [[d for d in nodes if nodes[d] == node] for node in dict.fromkeys(nodes.values())]
    suggested = suggest(harms, list(nodes))
    return Interference(start, nodes, steps, recipe.domains, all_effects, harms, default, suggested, folder)


def _prepare(recipe: Recipe, start: str, layout: Layout) -> Layout:
    """Make a project directory with the recipe, the data and the start checkpoint."""
    checkpoint = checkpoint_of(recipe, layout, start)
    trained = {domain for name, node in recipe.rl.items() if name.startswith(ALONE) for domain in node.mix}
    data = [*map(layout.prompts, sorted(trained)), *map(layout.benchmark, recipe.domains)]
    require_files(data, "`cascade node curate` writes it")
    settings = recipe.model_dump(mode="json", include={"seed", "threads", "judges", "evaluation"})
    settings["rl"] = {name: node.model_dump(mode="json") for name, node in recipe.rl.items() if name.startswith(ALONE)}
    inputs = {"recipe": settings, "start": hash_directory(checkpoint), "data": [hash_file(path) for path in data]}
    root = layout.root / ".cascade" / "interference" / f"{start}-{fingerprint(inputs)[:12]}"
    write_atomic(root / "params.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    for link, target in {"data": layout.root / "data", f"models/{start}": checkpoint}.items():
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        if not (root / link).is_symlink():
            (root / link).symlink_to(target.absolute())
    return Layout(root)


def _finished(name: str, layout: Layout) -> bool:
    """An evaluation writes summary.json last."""
    return (layout.evaluation(name) / "summary.json").exists()


def _build(name: str, trains: bool, layout: Layout) -> None:
    """Train unless a checkpoint exists, and evaluate, as the stages do."""
    trained = (layout.training(name) / "manifest.json").exists()
    if trains and not trained and not launched("node", name, layout):
        run_node(name, layout)
    if not launched("evaluate", name, layout):
        evaluate_node(name, layout)
    if trains:
        shutil.rmtree(layout.checkpoint(name))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
