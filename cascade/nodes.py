"""What a DVC stage calls: one node of the active recipe, in a process of its own."""

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from cascade import imports, judges, world
from cascade.errors import RecipeError
from cascade.files import hash_file, read_json, write_json
from cascade.layout import Layout
from cascade.progress import say
from cascade.recipe import BASE, CURATE, GateNode, Recipe, RepairNode, SFTNode, TeachersNode, load
from cascade.tracking import Journal, live


def run_node(name: str, layout: Layout, began: float | None = None) -> None:
    """Build `curate` or a node; several processes that torchrun started do so together. `began`: when the process did,
    Unix seconds. Raises CascadeError."""
    recipe = _prepare(layout)
    if name != CURATE:
        recipe.node(name)
    with world.joined():
        if name in recipe.training and recipe.place(name).gpu_gib is not None:
            from cascade import memory

            for line in memory.check(recipe, name, layout):
                say(line)
        with live(recipe, layout, name, began=began) if world.first() else nullcontext():
            _build(recipe, name, layout)


def evaluate_node(name: str, layout: Layout, began: float | None = None) -> None:
    """Evaluate a node's checkpoint on every benchmark and enter it in its round; `began` as above. Raises
    CascadeError."""
    recipe = _prepare(layout)
    if name not in recipe.training:
        made = ", ".join(recipe.training)
        raise RecipeError(f"{recipe.kind(name)}.{name}: makes no checkpoint to evaluate; these do: {made}")
    from cascade.evaluation.benchmark import evaluate

    with live(recipe, layout, name, evaluation=True, began=began):
        evaluate(recipe, name, layout)
        enter_round(recipe, name, layout)


def evaluate_checkpoint(checkpoint: Path, out: Path, layout: Layout) -> None:
    """Evaluate any checkpoint on every benchmark, and write what was found to `out` alone. Raises CascadeError."""
    recipe = _prepare(layout)
    from cascade.evaluation.benchmark import evaluate

    evaluate(recipe, BASE, layout, checkpoint, out)


def enter_round(recipe: Recipe, name: str, layout: Layout) -> None:
    """Write results/scores/NODE.json, the DVC metric: domain → avg@k; and results/lineage/ROUND/NODE.json: hashes
    of what the round's teachers and gate nodes read of this node.

    A distilled or repaired node's entry names its teachers' decision too, so whoever reads a round also depends on
    those before it. Entries of nodes that the recipe no longer has in this round are removed.
    """
    node = recipe.training[name]
    entry = {
        "checkpoint": read_json(layout.evaluation(name) / "manifest.json")["checkpoint"],
        "prompts": hash_file(layout.evaluation(name) / "prompts.csv"),
    }
    if (decided := recipe.teachers_chosen_by(name)) is not None:
        entry["teachers"] = hash_file(layout.decision(decided))
    folder = layout.root / "results" / "lineage" / str(node.round)
    domains = read_json(layout.evaluation(name) / "summary.json")["domains"]
    scores = {domain: round(values["avg@k"], 4) for domain, values in domains.items()}
    write_json(layout.root / "results" / "scores" / f"{name}.json", scores)
    write_json(folder / f"{name}.json", entry)
    members = {f"{member}.json" for member in recipe.evaluated_in(node.round)}
    for path in folder.iterdir():
        if path.name not in members:
            path.unlink()


def _build(recipe: Recipe, name: str, layout: Layout) -> None:
    """Each kind of node imports its own part only: torch takes seconds."""
    if name == CURATE:
        with imports.engine():
            from cascade.curation import build

        build(recipe, layout, Journal(layout.journal(CURATE)))
        return
    node = recipe.node(name)
    if isinstance(node, TeachersNode):
        from cascade.evaluation.teachers import select_teachers

        select_teachers(recipe, name, layout)
    elif isinstance(node, GateNode):
        from cascade.evaluation.gate import gate
        from cascade.score_plots import write_score_plots

        gate(recipe, name, layout)
        write_score_plots(recipe, name, layout)
    elif isinstance(node, RepairNode):
        from cascade.evaluation.repair import repair

        repair(recipe, name, layout)
    elif isinstance(node, SFTNode):
        with imports.engine():
            from cascade.training.sft import run_sft

        run_sft(recipe, name, layout)
    else:
        with imports.engine():
            from cascade.training.on_policy import run_on_policy

        run_on_policy(recipe, name, layout)


def _prepare(layout: Layout) -> Recipe:
    """Load the recipe, let its models judge, set the process's threads before torch is imported, and stop cleanly on
    SIGTERM."""
    recipe = load(layout.params)
    judges.use(recipe.judges)
    if recipe.verification is not None:
        from cascade.environments.spread import spread

        spread(recipe.verification, recipe.judges, recipe.judging_threads)
    os.environ.update(thread_settings(recipe))
    signal.signal(signal.SIGTERM, _stop)
    return recipe


def thread_settings(recipe: Recipe) -> dict[str, str]:
    """What libraries read from the environment when they are imported."""
    threads = {f"{library}_NUM_THREADS": str(recipe.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    return {**threads, "TOKENIZERS_PARALLELISM": "false"}


def _stop(signum: int, frame: FrameType | None) -> None:
    # As an exception, so that children are ended and files closed on the way out.
    raise SystemExit(128 + signum)
