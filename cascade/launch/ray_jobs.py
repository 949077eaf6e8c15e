"""Jobs on the processes of a Ray cluster: Ray Data's actors.

Every machine of the cluster needs Cascade in the same version and the project's directory under the same path: jobs
are lines of text, and what they read and write lies there. A job whose machine or process was lost is done again on
another. Ray has no authentication: its ports must be on a network that only the cluster's machines reach.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cascade.errors import CascadeError

Begin = Callable[[], AbstractContextManager[Callable[[str], str]]]


class _Process:
    """An actor: enters `begin` once and calls the function that it yields for each job."""

    def __init__(self, begin: Begin):
        self._context = begin()
        self._do = self._context.__enter__()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"job": row["job"], "result": self._do(row["job"]), "error": ""}
        except CascadeError as error:
            return {"job": row["job"], "result": "", "error": str(error)}


def in_cluster(address: str, count: int | None, begin: Begin, jobs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each job and its result in any order, from `count` processes of one CPU each; None: as many as the cluster
    has CPUs. The first call of a process connects it to the cluster.

    Raises CascadeError where Ray is not installed or there is no cluster, and the CascadeError that a job raises.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise CascadeError("curation_workers.ray: Ray is not installed; pip install -e '.[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise CascadeError(
                f"curation_workers.ray: no cluster at {address} ({' '.join(str(error).split())[:200]}); "
                "`ray start` makes this machine part of one"
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    processors = int(ray.cluster_resources().get("CPU", 1))
    size = min(count or processors, processors, len(jobs))
    rows = ray.data.from_items([{"job": job} for job in jobs], override_num_blocks=len(jobs))
    process: Any = _Process
    done = rows.map(
        process,
        fn_constructor_args=[begin],
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=size),
    )
    for row in done.iter_rows():
        if row["error"]:
            raise CascadeError(row["error"])
        yield row["job"], row["result"]
