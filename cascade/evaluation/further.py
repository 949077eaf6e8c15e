"""Further rollouts of checkpoints on benchmark and held-out prompts, for domains that are still undecided.

Their seeds continue those of the evaluations: the same prompt and rollout has the same one for every checkpoint, so
that differences are paired. What was sampled is kept in the work directory by all that it depends on, so that a check
that was killed resumes, and a checkpoint is sampled once for all checks.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cascade.errors import CascadeError
from cascade.evaluation.benchmark import check_failures, engine_of, sampling_inputs, worker_count
from cascade.evaluation.results import PromptResult, prompt_results, write_check_rollouts, write_rollouts
from cascade.launch import process_setup
from cascade.launch.process_pool import ProcessPool
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import fingerprint
from cascade.utils.progress import say

CHUNK = 40
"""Prompts of a job: enough to fill a batch, few enough that two workers end at about the same time. Fixed, because
rollouts depend on their batch in the last bits."""

WORK = "checks"
"""Directory of the kept rollouts, under .cascade/work: shared by all checks."""


@dataclass(frozen=True)
class Sample:
    """What is wanted of a node's checkpoint: pass `number` over these prompts, of as many rollouts each as an
    evaluation has. The evaluation itself is pass 0 over the benchmark."""

    node: str
    domain: str
    prompts: tuple[str, ...]
    number: int

    def __str__(self) -> str:
        return f"further rollouts of {self.node}, {self.domain}"


class FurtherRollouts:
    """Samples what a check asks for. A context manager: worker processes live as long as it does."""

    def __init__(self, recipe: Recipe, layout: Layout, checkpoints: dict[str, str]):
        """`checkpoints`: node → hash, of those that may be sampled."""
        self._recipe = recipe
        self._layout = layout
        self._inputs = {node: sampling_inputs(recipe, digest) for node, digest in checkpoints.items()}
        count = min(worker_count(recipe, node) for node in checkpoints)
        self._pool: ProcessPool[Sample, list[dict[str, Any]]] = ProcessPool(
            count, partial(_open_worker, recipe, layout, count)
        )
        self._lines: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)

    def __enter__(self) -> "FurtherRollouts":
        self._pool.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.__exit__(*error)

    def prompts(self, domain: str) -> list[str]:
        """Ids of the domain's further held-out prompts, in the order in which they are used."""
        path = self._layout.held_out(domain)
        return pq.read_table(path, columns=["id"])["id"].to_pylist() if path.exists() else []

    def sample(self, samples: list[Sample]) -> None:
        """Sample and judge, or read what is kept. Raises CascadeError for a prompt that is in no file of the domain,
        and where too many rollouts have no verdict."""
        jobs = [
            Sample(s.node, s.domain, s.prompts[at : at + CHUNK], s.number)
            for s in samples
            for at in range(0, len(s.prompts), CHUNK)
        ]
        missing = [job for job in jobs if not self._path(job).exists()]
        # One checkpoint after the other: a worker holds one.
        missing.sort(key=lambda job: job.node)
        for job, lines in self._pool.run(missing):
            write_rollouts(self._path(job), lines)
        for job in jobs:
            self._lines[job.node, job.domain] += pq.read_table(self._path(job)).to_pylist()
        for node, domain in {(job.node, job.domain) for job in jobs}:
            check_failures(node, domain, self._lines[node, domain])
        if missing:
            count = sum(len(job.prompts) for job in missing) * self._recipe.evaluation.rollouts
            domains = ", ".join(dict.fromkeys(job.domain for job in missing))
            say(f"{count} further rollouts of {', '.join(dict.fromkeys(j.node for j in missing))}: {domains}")

    def results(self, node: str, domain: str) -> list[PromptResult]:
        """Of all further rollouts so far, by prompt."""
        return prompt_results(self._lines[node, domain]).get(domain, [])

    def count(self, node: str, domain: str) -> int:
        return len(self._lines[node, domain])

    def write(self, path: Path) -> None:
        """Write all further rollouts, with their node."""
        write_check_rollouts(
            path, [{"node": node, **line} for (node, _), lines in sorted(self._lines.items()) for line in lines]
        )

    def _path(self, job: Sample) -> Path:
        inputs = {**self._inputs[job.node], "domain": job.domain, "prompts": job.prompts, "pass": job.number}
        return self._layout.work(WORK) / f"{fingerprint(inputs)[:32]}.parquet"


@contextmanager
def _open_worker(recipe: Recipe, layout: Layout, workers: int) -> Iterator[Callable[[Sample], list[dict[str, Any]]]]:
    """The function of a worker process, which holds the checkpoint that it sampled last."""
    with process_setup.importing_engine():
        from cascade.evaluation.checkpoint_runner import CheckpointRunner
        from cascade.training.prompts import Prompt, load_prompts

    held: dict[str, CheckpointRunner] = {}
    prompts: dict[str, dict[str, Prompt]] = {}

    def run(job: Sample) -> list[dict[str, Any]]:
        if job.domain not in prompts:
            paths = [p for p in (layout.benchmark(job.domain), layout.held_out(job.domain)) if p.exists()]
            prompts[job.domain] = {p.id: p for path in paths for p in load_prompts(path, job.domain)}
        if unknown := [prompt for prompt in job.prompts if prompt not in prompts[job.domain]]:
            raise CascadeError(
                f"{job}: prompt {unknown[0]} is neither in {layout.benchmark(job.domain)} nor held out; "
                "evaluate the checkpoints again (`cascade evaluate NODE`)"
            )
        if job.node not in held:
            for node in list(held):
                held.pop(node).close()
            threads = 1 if workers > 1 else recipe.threads
            held[job.node] = CheckpointRunner(
                recipe, engine_of(recipe, job.node), layout.checkpoint(job.node), threads=threads
            )
        first = job.number * recipe.evaluation.rollouts
        return held[job.node].run([prompts[job.domain][prompt] for prompt in job.prompts], first)

    try:
        yield run
    finally:
        for runner in held.values():
            runner.close()
