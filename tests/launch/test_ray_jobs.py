"""Jobs on a Ray cluster: two nodes of one machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cascade.errors import CascadeError
from cascade.launch.ray_jobs import in_cluster

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
cluster_utils = pytest.importorskip("ray.cluster_utils")


@contextmanager
def doubling() -> Iterator[Callable[[str], str]]:
    """Doubles its job, and refuses one."""

    def do(job: str) -> str:
        if job == "bad":
            raise CascadeError("a bad job")
        return job * 2

    yield do


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000}
    )
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def test_every_job_is_done_once_and_errors_are_raised(address: str):
    jobs = [str(n) for n in range(7)]
    assert sorted(in_cluster(address, None, doubling, jobs)) == [(job, job * 2) for job in jobs]
    with pytest.raises(CascadeError, match="a bad job"):
        list(in_cluster(address, 1, doubling, ["1", "bad"]))
