"""Nodes on other pools: their deployments exist, and a run that is stopped stops them there."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Completed, Crashed, Failed, Running, State

from cascade.recipe import LOCAL_POOL, load
from tasks import nodes
from tasks.processes import stopping

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_worker_finds_the_flow(deployment: dict) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == {"nightly": "cascade", **dict.fromkeys(("gpu", "slurm", "kubernetes"), "node")}.get(
        deployment["name"], deployment["name"]
    )
    parameters = flow.parameters.model_dump()
    assert all(known.get("description") for known in parameters["properties"].values())
    assert set(deployment.get("parameters", {})) <= set(parameters["properties"])
    assert flow.description


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_run_that_may_pause_loses_no_place(deployment: dict) -> None:
    """Prefect 3.7 revokes the lease of a deployment's limit when a run pauses, and ends the run at its next renewal."""
    parameters = load_flow_from_entrypoint(deployment["entrypoint"]).parameters.model_dump()["properties"]
    assert not ("approve" in parameters and "concurrency_limit" in deployment)


def test_the_form_lets_choose_from_the_recipes() -> None:
    cascade = load_flow_from_entrypoint("flows.cascade.cascade_flow").parameters.model_dump()["properties"]
    assert cascade["recipe"]["enum"] == ["active", *sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))]
    assert cascade["overrides"]["items"] == {"type": "string"}


def test_every_pool_of_a_recipe_has_its_deployment() -> None:
    deployed = {d["name"]: d["work_pool"]["name"] for d in DEPLOYMENTS if d["entrypoint"].startswith("flows.node")}
    for recipe in map(load, sorted((ROOT / "recipes").glob("*.yaml"))):
        for place in recipe.pools.values():
            assert place.pool == LOCAL_POOL or deployed[place.pool] == place.pool


class Server:
    """Prefect's server: the run's states, one a question, and what it was set to."""

    def __init__(self, *states: State):
        self.states = list(states)
        self.set: list[str] = []

    def read_flow_run(self, run_id: Any) -> SimpleNamespace:
        return SimpleNamespace(state=self.states.pop(0) if len(self.states) > 1 else self.states[0])

    def set_flow_run_state(self, run_id: Any, state: State) -> None:
        self.set.append(state.name)


@pytest.fixture
def on_pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(server: Server) -> State:
        monkeypatch.setattr(nodes, "POLL", 0.01)
        monkeypatch.setattr(nodes, "get_run_logger", lambda: SimpleNamespace(info=lambda *words: None))
        monkeypatch.setattr(nodes, "run_deployment", lambda name, **options: FlowRun.model_construct(id="run"))
        monkeypatch.setattr(nodes, "get_client", lambda sync_client: nullcontext(server))
        return nodes.build_on("slurm", "sft@sft", Path("."), "", False)

    stopping.clear()
    yield run
    stopping.clear()


def test_it_ends_as_the_run_there(on_pool: Any) -> None:
    assert on_pool(Server(Running(), Running(), Completed(name="Built"))).name == "Built"
    failed = on_pool(Server(Running(), Failed(message="sft@sft: no", name=nodes.INTERRUPTED)))
    assert (failed.name, failed.message) == (nodes.INTERRUPTED, "sft@sft: no")


def test_a_run_whose_worker_was_lost_is_run_again(on_pool: Any) -> None:
    assert on_pool(Server(Crashed())).name == nodes.INTERRUPTED


def test_stopping_the_run_cancels_it_there(on_pool: Any) -> None:
    server = Server(Running())
    stopping.set()
    assert on_pool(server).is_failed()
    assert server.set == ["Cancelling"]
