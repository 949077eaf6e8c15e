"""What a DVC stage runs: one node of the active recipe, in its own process."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cascade import judges
from cascade.errors import RecipeError
from cascade.evaluation.rounds import enter_round
from cascade.launch import process_setup
from cascade.launch.process_setup import thread_settings
from cascade.layout import Layout
from cascade.recipe import (
    BASE,
    CURATE,
    GateNode,
    OffPolicyNode,
    QADNode,
    QuantizeNode,
    Recipe,
    RepairNode,
    SFTNode,
    SolveNode,
    TeachersNode,
    load,
)
from cascade.tracking import Journal, live
from cascade.utils import distributed
from cascade.utils.progress import say

if TYPE_CHECKING:
    from cascade.curation.pipeline import Run


def run_node(name: str, layout: Layout, began: float | None = None) -> None:
    """Build `curate` or a node; the processes of one torchrun job build it together. `began`: start of the process,
    in Unix seconds. Raises CascadeError."""
    recipe = _prepare(layout)
    if name != CURATE:
        recipe.node(name)
    with distributed.process_group():
        if name in recipe.training and recipe.place(name).gpu_gib is not None:
            from cascade.launch import memory_plan

            for line in memory_plan.check(recipe, name, layout):
                say(line)
        with live(recipe, layout, name, began=began) if distributed.is_main() else nullcontext():
            _build(recipe, name, layout)


def evaluate_node(name: str, layout: Layout, began: float | None = None) -> None:
    """Evaluate a node's checkpoint on every benchmark and write its scores and its entry in the round, which the base
    model has none of; `began` as in `run_node`. Raises CascadeError."""
    recipe = _prepare(layout)
    if name != BASE and name not in recipe.training:
        evaluated = ", ".join([BASE, *recipe.training])
        raise RecipeError(f"{recipe.kind(name)}.{name}: makes no checkpoint to evaluate; these do: {evaluated}")
    from cascade.evaluation.benchmark import evaluate

    with live(recipe, layout, name, evaluation=True, began=began):
        evaluate(recipe, name, layout)
        if name != BASE:
            enter_round(recipe, name, layout)


def check_node(name: str, layout: Layout) -> None:
    """Decide a repair's regression check, in one process; its node then starts from the decision. Raises
    CascadeError."""
    recipe = _prepare(layout)
    if name not in recipe.checks:
        raise RecipeError(f"{name}: not a repair of recipe {recipe.name}; these are: {', '.join(recipe.checks)}")
    from cascade.decisions.repair import check

    check(recipe, name, layout)


def evaluate_checkpoint(checkpoint: Path, out: Path, layout: Layout) -> None:
    """Evaluate any checkpoint on every benchmark and write the results only to `out`. Raises CascadeError."""
    recipe = _prepare(layout)
    from cascade.evaluation.benchmark import evaluate

    evaluate(recipe, BASE, layout, checkpoint, out)


def _build(recipe: Recipe, name: str, layout: Layout) -> None:
    """Each kind of node imports only what it needs: importing torch takes seconds."""
    if name == CURATE:
        with process_setup.importing_engine():
            from cascade.curation import build

        with curation_processes(recipe, layout) as run:
            build(recipe, layout, Journal(layout.journal(CURATE)), run)
        return
    node = recipe.node(name)
    if isinstance(node, TeachersNode):
        from cascade.decisions.teacher_selection import select_teachers

        select_teachers(recipe, name, layout)
    elif isinstance(node, GateNode):
        from cascade.decisions.gate import gate
        from cascade.report.score_plots import write_score_plots

        gate(recipe, name, layout)
        write_score_plots(recipe, name, layout)
    elif isinstance(node, RepairNode):
        from cascade.decisions.repair import repair

        repair(recipe, name, layout)
    elif isinstance(node, QADNode):
        from cascade.decisions.repair import qad

        qad(recipe, name, layout)
    elif isinstance(node, QuantizeNode):
        with process_setup.importing_engine():
            from cascade.training.quantize import run_quantize

        run_quantize(recipe, name, layout)
    elif isinstance(node, SolveNode):
        with process_setup.importing_engine():
            from cascade.test_time.node import solve

        solve(recipe, name, layout)
    elif isinstance(node, SFTNode):
        with process_setup.importing_engine():
            from cascade.training.sft import run_sft

        run_sft(recipe, name, layout)
    elif isinstance(node, OffPolicyNode):
        with process_setup.importing_engine():
            from cascade.training.off_policy import run_off_policy

        run_off_policy(recipe, name, layout)
    else:
        with process_setup.importing_engine():
            from cascade.training.on_policy import run_on_policy

        run_on_policy(recipe, name, layout)


def estimate_curation(layout: Layout, rows: int) -> list[str]:
    """What a curation will take, from about `rows` rows of each source. Raises CascadeError."""
    recipe = _prepare(layout)
    from cascade.curation.estimate import as_lines, estimate

    workers = recipe.curation_workers.processes or len(os.sched_getaffinity(0))
    return as_lines(recipe, estimate(recipe, layout, rows), workers)


@contextmanager
def curation_processes(recipe: Recipe, layout: Layout) -> Iterator["Run"]:
    """What does the jobs of curation: processes of this machine, started once, or of the recipe's Ray cluster."""
    settings = recipe.curation_workers
    if settings.ray is not None:
        from cascade.launch.ray_jobs import in_cluster

        yield partial(in_cluster, settings.ray, settings.processes, partial(_curation_worker, layout.root, 1))
        return
    from cascade.launch.process_pool import ProcessPool

    cores = len(os.sched_getaffinity(0))
    count = settings.processes or cores
    with ProcessPool(count, partial(_curation_worker, layout.root, max(1, cores // count))) as pool:
        yield pool.run


@contextmanager
def _curation_worker(root: Path, threads: int) -> Iterator[Callable[[str], str]]:
    """What a process that curates enters; `threads` judge the answers of its rows."""
    layout = Layout(root)
    recipe = _prepare(layout)
    from cascade.curation.jobs import work

    with work(recipe, root, layout.work(CURATE), threads) as do:
        yield do


def _prepare(layout: Layout) -> Recipe:
    """Load the recipe, configure its judges, set the number of threads before torch is imported, and install the
    SIGTERM handler."""
    recipe = load(layout.params)
    judges.use(recipe.judges)
    if recipe.verification is not None:
        from cascade.launch.ray_verifiers import spread

        spread(recipe.verification, recipe.judges, recipe.judging_threads)
    os.environ.update(thread_settings(recipe))
    signal.signal(signal.SIGTERM, _stop)
    return recipe


def _stop(signum: int, frame: FrameType | None) -> None:
    # As an exception, so that children are ended and files closed on the way out.
    raise SystemExit(128 + signum)
