"""Verification on a Ray cluster: two nodes of one CPU each, both on this machine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cascade import environments
from cascade.chat import Response
from cascade.environments import verification
from cascade.environments.verification import judge, judge_together
from cascade.errors import CascadeError
from cascade.judges.settings import Judges
from cascade.launch.ray_verifiers import spread
from cascade.recipe.placement import Verification

ray = pytest.importorskip("ray", reason="Ray is not installed; the extra `ray` has it")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(autouse=True)
def left() -> Iterator[None]:
    yield
    verification.judge_elsewhere(None)
    ray.shutdown()


def answered(name: str, count: int) -> list[tuple[dict[str, Any], list[Response]]]:
    """Generated rows, each with its demonstration and a wrong answer."""
    rows = environments.get(name).generate(count, 0, 1)
    return [
        (row, [Response(row["demonstration"]["content"], row["demonstration"]["reasoning"]), Response("no idea")])
        for row in rows
    ]


def test_the_verdicts_are_those_given_here(address: str) -> None:
    jobs = [(environments.get(name), *job) for name in ("mcqa", "math") for job in answered(name, 8)]
    here = [judge_together(*job) for job in jobs]
    assert [[verdict.reward for verdict in pair] for pair in here] == [[1.0, 0.0]] * 16
    spread(Verification(ray=address, workers=2), Judges(), 4)
    with ThreadPoolExecutor(4) as pool:
        there = list(pool.map(lambda job: judge_together(*job), jobs))
    assert there == here
    cluster: Any = verification._elsewhere
    nodes = [
        ray.get(verifier.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()))
        for verifier in cluster._verifiers
    ]
    assert len(set(nodes)) == 2
    assert cluster._in_progress == [0, 0]


def test_groups_are_judged_together(address: str) -> None:
    preference = environments.get("human_preference")
    row, responses = answered("human_preference", 1)[0]
    here = judge_together(preference, row, responses)
    spread(Verification(ray=address, workers=1), Judges(), 1)
    assert judge_together(preference, row, responses) == here
    assert here[0].reward > here[1].reward


def test_a_verifier_that_breaks_or_dies_costs_one_rollout_at_most(address: str) -> None:
    spread(Verification(ray=address, workers=1), Judges(), 1)
    mcqa = environments.get("mcqa")
    row, [right, _] = answered("mcqa", 1)[0]
    broken = judge(mcqa, {}, right)
    assert broken.failure == "verifier_error"
    cluster: Any = verification._elsewhere
    ray.kill(cluster._verifiers[0], no_restart=False)
    assert judge(mcqa, row, right).reward == 1
    ray.kill(cluster._verifiers[0])
    assert judge(mcqa, row, right).failure == "verifier_lost"


def test_a_cluster_that_is_too_small_or_absent_is_one_line(address: str) -> None:
    mcqa = environments.get("mcqa")
    spread(Verification(ray=address, workers=384), Judges(), 1)
    with pytest.raises(CascadeError, match=r"^verification\.workers: 384, but the cluster at .* has 2 CPUs$"):
        judge(mcqa, {}, Response(""))
    ray.shutdown()
    spread(Verification(ray="127.0.0.1:1", workers=1), Judges(), 1)
    with pytest.raises(CascadeError, match=r"^verification\.ray: no cluster at 127\.0\.0\.1:1"):
        judge(mcqa, {}, Response(""))
