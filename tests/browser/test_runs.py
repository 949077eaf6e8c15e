"""The pages as people use them, in Chromium, with a worker: a run started from its form, its results found, one that
waits for approval, one that is cancelled; and a distillation by its deployment."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import State

from cascade.launch.process_setup import QUIET
from cascade.launch.ui_servers import experiment_page, stop_groups
from cascade.layout import Layout
from cascade.utils.files import hash_directory, read_json
from tests.test_pipeline import DOMAINS, ROOT, make_project, small_recipe

pytest.importorskip("playwright", reason="playwright is not installed (extra `dev`)")
from playwright.sync_api import Page, expect

from benchmarks.screenshots import CHROMIUM, browser, pages

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
PATIENCE = 300
"""Seconds that a run may take on a busy machine. What it logs reaches its page some seconds later."""
expect.set_options(timeout=PATIENCE * 1000)


@dataclass(frozen=True)
class Site:
    project: Path
    prefect: str
    mlflow: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The pages of a project with data and one node to build, its deployment and a worker."""
    project = make_project(tmp_path_factory.mktemp("project"))
    recipe = small_recipe() | {"rl": {}, "teachers": {}, "distill": {}, "repair": {}, "gate": {}, "solve": {}}
    (project / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, project / name)
    shutil.copytree(ROOT / "recipes", project / "recipes")
    distilled = small_recipe() | {"rl": {}, "repair": {}, "gate": {}, "solve": {}}
    distilled["teachers"]["select_teachers"] |= {"candidates": ["sft"], "domains": {}}
    distilled["distill"]["mopd"] |= {"init": "sft"}
    (project / "recipes" / "distilled.yaml").write_text(yaml.safe_dump(distilled, sort_keys=False))
    with pages(project) as (prefect, mlflow):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CASCADE_"))}
        environment |= {
            **QUIET,
            "PREFECT_API_URL": f"{prefect}/api",
            "PREFECT_HOME": str(project / ".prefect"),
            "PYTHONPATH": str(ROOT),
            "PWD": str(project),  # prefect.yaml takes the directory from it
        }

        def command(*words: str) -> list[str]:
            return [sys.executable, "-m", "prefect", *words]

        deployments = ("--name", "cascade", "--name", "distil")
        for words in (("work-pool", "create", "local", "--type", "process"), ("deploy", *deployments)):
            subprocess.run(
                command("--no-prompt", *words), cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL
            )
        with open(project / "worker.log", "wb") as log:
            start = command("worker", "start", "--pool", "local")
            worker = subprocess.Popen(
                start, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield Site(project, prefect, mlflow)
        finally:
            stop_groups([worker], patience=10)


@pytest.fixture
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


def open_form(page: Page, site: Site) -> None:
    page.goto(f"{site.prefect}/deployments")
    page.locator("a[href*='/deployments/deployment/']").filter(has_text="cascade").first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_role("button", name="Submit").wait_for()


def submit(page: Page, site: Site) -> None:
    """Send the form off and open the run's page. Its button for that is behind a note that comes and goes."""
    with page.expect_response("**/create_flow_run") as answer:
        page.get_by_role("button", name="Submit").click()
    page.get_by_text("scheduled to start now").first.wait_for()
    page.goto(f"{site.prefect}/runs/flow-run/{answer.value.json()['id']}")


def open_artifact(page: Page, key: str) -> None:
    page.get_by_text("Artifacts", exact=True).click()
    page.locator("a[href*='/artifacts/artifact/']").filter(has_text=key).first.click()
    page.wait_for_url("**/artifacts/artifact/*")


def test_a_run_is_started_from_its_form_and_its_results_are_found(site: Site, page: Page) -> None:
    open_form(page, site)
    for parameter in ("recipe", "overrides", "approve"):
        expect(page.get_by_text(re.compile(rf"^{parameter} \(Optional\)$"))).to_be_visible()
    expect(page.get_by_text("Nodes before which the run pauses")).to_be_visible()
    submit(page, site)
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    expect(page.get_by_text("small run 1", exact=True).first).to_be_visible()
    run = page.url.partition("?")[0]
    assert (site.project / "models" / "sft" / "model.safetensors").exists()

    open_artifact(page, "heat-map")
    picture = page.locator("img[src^='data:image/png']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100

    page.goto(run)
    open_artifact(page, "results")
    expect(page.get_by_role("row").filter(has_text="sft")).to_contain_text("[")

    page.goto(run)
    open_artifact(page, "mlflow")
    address = page.get_by_role("link", name="MLflow: this run and its nodes").first.get_attribute("href")
    assert address is not None
    page.goto(address)
    expect(page.get_by_text(run.rpartition("/")[2]).first).to_be_visible()

    page.goto(experiment_page(site.mlflow, Layout(site.project)))
    expect(page.locator("a[href*='/runs/']").filter(has_text="small").first).to_be_visible()


@contextmanager
def client(site: Site) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: f"{site.prefect}/api"}), get_client(sync_client=True) as found:
        yield found


def start(site: Site, deployment: str, **parameters: object) -> UUID:
    """Start a run of a deployment."""
    with client(site) as prefect:
        found = prefect.read_deployment_by_name(deployment)
        return prefect.create_flow_run_from_deployment(found.id, parameters=parameters).id


def end(site: Site, run: UUID) -> State:
    """The state in which the run has ended."""
    with client(site) as prefect:

        def state() -> State | None:
            return prefect.read_flow_run(run).state

        wait_until(lambda: (now := state()) is not None and now.is_final())
        ended = state()
    assert ended is not None
    return ended


def test_a_run_waits_until_it_is_resumed_on_its_page(site: Site, page: Page) -> None:
    run = start(site, "cascade/cascade", approve=["sft"])
    page.goto(f"{site.prefect}/runs/flow-run/{run}")
    expect(page.get_by_text("Paused", exact=True).first).to_be_visible()
    expect(page.get_by_text("sft waits for approval: Resume starts it, Cancel ends the run")).to_be_visible()
    page.get_by_role("button", name="Resume", exact=True).click()
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()


def test_a_checkpoint_is_distilled_by_its_deployment(site: Site) -> None:
    if not (site.project / "models" / "sft").exists():
        assert end(site, start(site, "cascade/cascade")).is_completed()
    run = start(site, "distil/distil", student="sft", teachers=["mcqa=base"], recipe="distilled")
    state = end(site, run)
    assert state.is_completed(), state.message
    checkpoint = Path(str(state.message).partition("; ")[2])
    own = Layout(checkpoint.parents[1])
    assert own.root.parent == site.project / ".cascade" / "runs"
    teachers = read_json(own.decision("select_teachers"))["teachers"]
    assert {domain: teacher["node"] for domain, teacher in teachers.items()} == {
        "mcqa": "base",
        "instruction_following": "sft",
    }
    student = hash_directory(site.project / "models" / "sft")
    assert read_json(own.training("mopd") / "manifest.json")["inputs"]["parent"] == student
    assert hash_directory(checkpoint) not in (student, hash_directory(site.project / "models" / "base"))
    scored = {node: set(read_json(own.root / "results" / "scores" / f"{node}.json")) for node in ("sft", "mopd")}
    assert scored == {"sft": set(DOMAINS), "mopd": set(DOMAINS)}
    assert not (site.project / "models" / "mopd").exists()


def test_a_run_is_cancelled_from_its_page(site: Site, page: Page) -> None:
    open_form(page, site)
    page.get_by_role("button", name="Add item").first.click()
    boxes = page.get_by_role("textbox")  # the run's name, the new item, the project
    expect(boxes).to_have_count(3)
    boxes.nth(1).fill("sft.sft.epochs=500")
    submit(page, site)

    def training() -> list[int]:
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if trains(pid, site.project)]

    wait_until(lambda: bool(training()))
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("Cancelled", exact=True).first).to_be_visible()
    wait_until(lambda: not training())


def trains(pid: int, project: Path) -> bool:
    """Whether a process trains the node in a directory of the project's."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        words += Path(f"/proc/{pid}/comm").read_text().split()  # All that one has that was forked.
        return {"node", "sft"} <= set(words) and project in Path(os.readlink(f"/proc/{pid}/cwd")).parents
    except OSError:
        return False


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)
