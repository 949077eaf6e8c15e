"""The evaluation of a checkpoint on every domain's benchmark.

Torch is imported only where responses are sampled: in the worker processes, or not at all where results are reused.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cascade import judges
from cascade.errors import CascadeError
from cascade.evaluation.results import (
    EvaluationResult,
    check_is_its_own,
    prompt_results,
    record,
    summarise,
    write_prompts,
    write_rollouts,
)
from cascade.launch import process_setup
from cascade.launch.process_pool import in_processes
from cascade.launch.process_setup import has_gpu
from cascade.layout import Layout
from cascade.recipe import BASE, PLACEMENT, Node, Recipe
from cascade.recipe.library import checkpoint_of
from cascade.tracking import evaluation_journal
from cascade.utils.files import fingerprint, hash_directory, hash_file, read_json, write_json
from cascade.utils.progress import say

MAX_FAILURE_RATE = 0.1
"""Largest share of a domain's rollouts that may lack a verdict; above it the score would not measure the model."""


def evaluate(
    recipe: Recipe, node: str, layout: Layout, checkpoint: Path | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Evaluate a node's checkpoint on every domain's benchmark and return the summary.

    Writes to results/evaluations/NODE, or to `out`: summary.json, prompts.csv (one row for each prompt),
    rollouts.parquet (one row for each rollout), manifest.json (hashes of the inputs). Each domain's results are saved
    in the work directory, so that an evaluation that was killed resumes. Where the node published the checkpoint of
    its `init`, that node's results are reused.

    Every response is judged by itself (`Environment.verify`), so that scores of different checkpoints compare; where
    a domain's reward is relative, it is judged against the row's reference.

    Only an evaluation of the node's own checkpoint is written to the node's journal.
    Raises CascadeError for a missing checkpoint or benchmark, files that are not those that the node wrote, or too many
    rollouts without a verdict.
    """
    source = checkpoint or checkpoint_of(recipe, layout, node)
    out_dir = out or layout.evaluation(node)
    settings = recipe.evaluation
    checkpoint_hash = hash_directory(source)
    benchmarks = {domain: _benchmark_hash(layout, domain) for domain in recipe.domains}
    inputs = {**sampling_inputs(recipe, checkpoint_hash), "benchmarks": benchmarks}
    work = layout.work(f"{node}.evaluation") / fingerprint(inputs)[:16]
    own_checkpoint = out is None and checkpoint is None
    if own_checkpoint:
        check_is_its_own(node, checkpoint_hash, layout)
    lines: list[dict[str, Any]] = _reusable_rollouts(recipe, node, layout, inputs) if own_checkpoint else []
    if not lines:
        files = {domain: work / f"{domain}.parquet" for domain in recipe.domains}
        # Longest prompts first: started last, they would be waited for.
        missing = sorted(
            (domain for domain, path in files.items() if not path.exists()),
            key=lambda domain: -layout.benchmark(domain).stat().st_size,
        )
        workers = worker_count(recipe, node)
        begin = partial(_open_worker, recipe, engine_of(recipe, node), source, layout, workers)
        for domain, (rollouts, seconds, usage) in in_processes(workers, begin, missing):
            check_failures(node, domain, rollouts)
            write_rollouts(files[domain], rollouts)
            say(f"{node}: {domain}: {len(rollouts)} rollouts judged in {seconds:.1f} s")
            if usage.requests:
                say(f"{node}: {domain}: the judge took {usage}")
        lines = [line for path in files.values() for line in pq.read_table(path).to_pylist()]
    result = EvaluationResult(node, checkpoint_hash, prompt_results(lines))
    summary = summarise(result, lines, settings.rollouts)
    write_rollouts(out_dir / "rollouts.parquet", lines)
    write_prompts(out_dir / "prompts.csv", result.domains)
    write_json(out_dir / "manifest.json", {"node": node, "inputs": inputs, "checkpoint": checkpoint_hash})
    write_json(out_dir / "summary.json", summary)
    if own_checkpoint:
        record(evaluation_journal(layout, node), layout, node)
    shutil.rmtree(work.parent, ignore_errors=True)
    return summary


def sampling_inputs(recipe: Recipe, checkpoint_hash: str) -> dict[str, Any]:
    """All that the rollouts of a benchmark prompt, and their rewards, depend on but the prompt."""
    return {
        "checkpoint": checkpoint_hash,
        "settings": recipe.evaluation.model_dump(mode="json", exclude={"rollout": PLACEMENT}),
        "seed": recipe.seed,
        **recipe.judges.inputs,
    }


def worker_count(recipe: Recipe, node: str) -> int:
    """One process for each CPU thread, where the torch sampler decodes on CPUs and no server judges. Otherwise one: a
    GPU is filled by one domain, and a server's limit on concurrent requests holds for one process."""
    on_cpu = recipe.evaluation.rollout.engine == "torch" and engine_of(recipe, node) == "hf" and not has_gpu()
    return recipe.threads if on_cpu and recipe.judged_here else 1


@contextmanager
def _open_worker(
    recipe: Recipe, engine: str, checkpoint: Path, layout: Layout, workers: int
) -> Iterator[Callable[[str], tuple[list[dict[str, Any]], float, judges.Usage]]]:
    """The function of a worker process: domain → its rollouts, the seconds they took, and the judges' usage."""
    with process_setup.importing_engine():
        from cascade.evaluation.checkpoint_runner import CheckpointRunner
        from cascade.training.prompts import load_prompts

    with closing(
        CheckpointRunner(recipe, engine, checkpoint, threads=1 if workers > 1 else recipe.threads)
    ) as benchmark:

        def run_domain(domain: str) -> tuple[list[dict[str, Any]], float, judges.Usage]:
            began = time.perf_counter()
            rollouts = benchmark.run(load_prompts(layout.benchmark(domain), domain))
            return rollouts, time.perf_counter() - began, judges.take_usage()

        yield run_domain


def _reusable_rollouts(recipe: Recipe, node: str, layout: Layout, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """For a repair, the rollouts of the evaluation of its `init`, where the inputs are the same; else none."""
    section = recipe.checks.get(node)
    if section is None or section.engine != engine_of(recipe, section.init):
        return []
    directory = layout.evaluation(section.init)
    if not all((directory / file).exists() for file in ("manifest.json", "rollouts.parquet")):
        return []
    if read_json(directory / "manifest.json")["inputs"] != inputs:
        return []
    say(f"{node}: same checkpoint as {section.init}, whose evaluation is reused")
    return pq.read_table(directory / "rollouts.parquet").to_pylist()


def check_failures(node: str, domain: str, lines: list[dict[str, Any]]) -> None:
    """Raises CascadeError where more than MAX_FAILURE_RATE of the rollouts have no verdict."""
    codes = Counter(line["failure"] for line in lines if line["failure"] is not None)
    if codes.total() > MAX_FAILURE_RATE * len(lines):
        counts = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        raise CascadeError(
            f"evaluation of {node}: {domain}: {codes.total()} of {len(lines)} rollouts have no verdict ({counts}), "
            f"above {MAX_FAILURE_RATE:.0%}; fix the verifier or the benchmark's rows, then rerun"
        )


def _benchmark_hash(layout: Layout, domain: str) -> str:
    path = layout.benchmark(domain)
    if not path.exists():
        raise CascadeError(f"{path}: no such file; curation writes it (`cascade node curate`)")
    return hash_file(path)


def engine_of(recipe: Recipe, node: str) -> str:
    """The engine that loads a node's checkpoint."""
    section = recipe.node(node) if node != BASE else None
    return section.engine if isinstance(section, Node) else "hf"
