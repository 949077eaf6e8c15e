"""Automations, on a real server: what is lost has crashed, what crashed goes on, and someone is told."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow, flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Failed, Running, State

from flows import automations
from tests.loopback import Loopback, Reply, running
from tests.prefect_server import prefect_server


@flow(name="cascade")
def whole() -> None: ...


@flow(name="node")
def single() -> None: ...


@pytest.fixture(scope="module")
def told() -> Iterator[list[dict[str, Any]]]:
    """What the webhook was told so far."""
    with running(Loopback(lambda body: Reply())) as server:
        server.bodies.append({"address": server.address})
        yield server.bodies


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, told: list[dict[str, Any]]) -> Iterator[SyncPrefectClient]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url, temporary_settings({PREFECT_API_URL: url}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(automations, "SILENCE", timedelta(seconds=10))
            for _ in range(2):  # A second time makes nothing twice.
                made = asyncio.run(automations.make(told[0]["address"]))
        with get_client(sync_client=True) as client:
            found = client.read_automations_by_name(made[0])
            assert len(found) == 1
            yield client


def begin(prefect: SyncPrefectClient, which: Flow, name: str) -> UUID:
    """A run of a deployment that has begun."""
    deployment = prefect.create_deployment(prefect.create_flow(which), name)
    run = prefect.create_flow_run_from_deployment(deployment)
    enter(prefect, run.id, Running())
    return run.id


def enter(prefect: SyncPrefectClient, run: UUID, state: State) -> None:
    prefect.set_flow_run_state(run, state, force=True)


def wait_for(prefect: SyncPrefectClient, run: UUID, done: Callable[[FlowRun], bool], seconds: float = 60) -> FlowRun:
    deadline = time.monotonic() + seconds
    while not done(found := prefect.read_flow_run(run)):
        assert time.monotonic() < deadline, found.state
        time.sleep(0.2)
    return found


def wait_until(done: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state_names(prefect: SyncPrefectClient, run: UUID) -> list[str | None]:
    return [state.name for state in prefect.read_flow_run_states(run)]


def test_a_run_that_is_lost_has_crashed_and_goes_on(prefect: SyncPrefectClient, told: list[dict[str, Any]]) -> None:
    run = begin(prefect, whole, "lost")
    emit_event(
        "prefect.flow-run.heartbeat",
        {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": "lost"},
    )
    wait_for(prefect, run, lambda found: found.state_name == "AwaitingRetry")
    assert state_names(prefect, run)[-2:] == ["Crashed", "AwaitingRetry"]
    wait_until(lambda: any("no sign of life" in body.get("text", "") for body in told))


def test_the_run_of_a_node_is_left_to_its_cascade(prefect: SyncPrefectClient) -> None:
    node, other = begin(prefect, single, "alone"), begin(prefect, whole, "other")
    enter(prefect, node, Crashed())
    enter(prefect, other, Crashed())
    wait_for(prefect, other, lambda found: found.state_name == "AwaitingRetry")
    assert prefect.read_flow_run(node).state_name == "Crashed"


def test_what_crashes_always_is_not_started_for_ever(prefect: SyncPrefectClient) -> None:
    run = begin(prefect, whole, "always")
    for count in range(automations.RESTARTS):
        enter(prefect, run, Crashed())
        wait_for(prefect, run, lambda found: found.state_name == "AwaitingRetry")
        enter(prefect, run, Running())
        assert prefect.read_flow_run(run).run_count == count + 2
    other = begin(prefect, whole, "another")
    enter(prefect, run, Crashed())
    enter(prefect, other, Crashed())
    wait_for(prefect, other, lambda found: found.state_name == "AwaitingRetry")
    assert prefect.read_flow_run(run).state_name == "Crashed"


def test_a_failed_gate_is_told(prefect: SyncPrefectClient, told: list[dict[str, Any]]) -> None:
    run = begin(prefect, whole, "failing")
    enter(prefect, run, Failed(name="Gate failed", message='gate release: "mopd" falls below sft'))
    wait_until(lambda: any("Gate failed" in body.get("text", "") for body in told))
    text = next(body["text"] for body in told if "Gate failed" in body.get("text", ""))
    assert text.startswith("cascade ")
    assert 'Gate failed. gate release: "mopd" falls below sft http' in text
