"""Curate generated rows with this tree by WORKERS processes: one JSON line of CPU seconds, memory, disk, counts and the
hash of what was written.

Usage: build_now.py FOLDER BASE MAX_TOKENS WORKERS [--goes-on]; rows are FOLDER/rows/*.jsonl. WORKERS `ray`: a cluster
of two nodes of this machine. --goes-on: what an interrupted run has left is not removed before.
"""

import json
import os
import shutil
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from cascade.curation import jobs, pipeline, sources
from cascade.launch.process_pool import ProcessPool
from cascade.launch.ray_jobs import in_cluster
from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe
from cascade.utils.files import fingerprint, hash_directory


def recipe_of(base: str, max_tokens: int) -> Recipe:
    source = {"path": "rows/*.jsonl", "domain": "chat", "sft": -1}
    curation = {"max_tokens": max_tokens, "sequence_length": max_tokens, "sources": {"rows": source}}
    empty = {section: {} for section in ("sft", "rl", "teachers", "distill", "repair", "gate")}
    evaluation = {"rollouts": 1, "rollout": {"max_new_tokens": 8}}
    recipe = {"name": "b", "family": "b", "base": base, "curation": curation, "evaluation": evaluation, **empty}
    return Recipe.model_validate(recipe)


class Timed:
    """A worker's context that leaves the CPU seconds of each job, without imports, and the process's peak of memory
    beside the pieces."""

    def __init__(self, recipe: Recipe, root: Path, folder: Path):
        self._arguments = (recipe, root, folder)
        self._done = folder / "done"

    def __enter__(self):
        self._context = jobs.work(*self._arguments, 1)
        do = self._context.__enter__()
        do.warm_up("sft")
        self._done.mkdir(exist_ok=True)

        def timed(job: str) -> str:
            began = time.process_time()
            result = do(job)
            cost = {"cpu": time.process_time() - began, "gib": peak_gib()}
            (self._done / f"{os.getpid()}-{time.time_ns()}.json").write_text(json.dumps(cost))
            return result

        return timed

    def __exit__(self, *error) -> None:
        self._context.__exit__(*error)


def peak_gib() -> float:
    """Of this process since it began: that of `getrusage` begins with what the process had that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / (1 << 20)


def two_nodes() -> Any:
    """A Ray cluster, which lives as long as this object."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    return cluster


def main() -> None:
    folder, base, max_tokens = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    on_ray, workers = sys.argv[4] == "ray", 2 if sys.argv[4] == "ray" else int(sys.argv[4])
    layout, recipe = Layout(folder), recipe_of(base, max_tokens)
    work = layout.work(CURATE)
    if "--goes-on" not in sys.argv:
        shutil.rmtree(work, ignore_errors=True)
    pool, cluster = None, two_nodes() if on_ray else None
    run = None
    if workers > 1:
        pipeline.SMALL_BYTES = 0
        # Small files, too, are to give every process several shards.
        size = sum(path.stat().st_size for path in (folder / "rows").iterdir())
        sources.SHARD_BYTES = min(sources.SHARD_BYTES, size // (8 * workers) + 1)
        begin = partial(Timed, recipe, folder, work)
        pool = None if cluster else ProcessPool(workers, begin)
        run = pool.run if pool else partial(in_cluster, cluster.address, workers, begin)
    curation = pipeline.Pipeline(recipe, layout, work, run)
    wall, cpu = time.monotonic(), time.process_time()
    with pool or nullcontext():
        report = curation.run()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    costs = [json.loads(path.read_text()) for path in work.glob("done/*")]
    cpu_of_jobs = sum(cost["cpu"] for cost in costs)
    size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    packed = sum(path.stat().st_size for path in (work / "sft").iterdir())
    result = {"cpu": cpu + cpu_of_jobs, "parent_cpu": cpu, "wall": wall, "disk": size, "packed": packed}
    result |= {"parent_gib": peak_gib(), "worker_gib": max((cost["gib"] for cost in costs), default=0.0)}
    if cluster:  # Else its end takes this process along.
        import ray

        ray.shutdown()
        cluster.shutdown()
    written = {path.name: hash_directory(path) for path in (work / "sft", work / "rejects")}
    result["written"] = fingerprint(written)
    print(json.dumps({**result, "kept": report["sft"]["kept"], **report["packing"]}))
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
