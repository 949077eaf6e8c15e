"""Pictures of a finished run's pages for docs/img: Prefect's run page, MLflow's, and the report.

    python -m benchmarks.screenshots PROJECT [--out docs/img]

Runs `cascade ui` for the project and looks at it with Chromium, headless. Needs the extra `dev` and a Chromium.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from cascade.errors import CascadeError
from cascade.launch.ui_servers import HOST, running_prefect, stop_groups
from cascade.layout import Layout
from cascade.recipe import load

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZE = {"width": 1280, "height": 800}
SETTLE = 3.0
"""Seconds that a page gets to finish drawing what it has loaded; figures drawn on a canvas cannot be waited for."""
PATIENCE = 180.0


@contextmanager
def browser() -> Iterator[Page]:
    """A page of headless Chromium. Raises CascadeError where this machine has none."""
    if CHROMIUM is None:
        raise CascadeError("no Chromium on this machine: install the package `chromium`")
    # Chromium's own sandbox refuses to run as root; only pages of this machine are opened.
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = chromium.new_page(viewport=SIZE)  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE * 1000)
        try:
            yield page
        finally:
            chromium.close()


@contextmanager
def pages(project: Path) -> Iterator[tuple[str, str]]:
    """`cascade ui` of a project: the addresses of Prefect's and of MLflow's pages."""
    prefect, mlflow = _free_port(), _free_port()
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    server = subprocess.Popen(
        [sys.executable, "-m", "cascade", "ui", *ports],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while running_prefect(Layout(project)) is None:
            if server.poll() is not None or time.monotonic() > deadline:
                raise CascadeError(f"{project}: `cascade ui` does not answer")
            time.sleep(0.5)
        yield f"http://{HOST}:{prefect}", f"http://{HOST}:{mlflow}"
    finally:
        server.terminate()
        server.wait()
        stop_groups([server], patience=1)


def shoot(project: Path, out: Path) -> None:
    """Raises CascadeError; playwright's errors where a page is not as it was."""
    out.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        time.sleep(SETTLE)
        page.screenshot(path=out / f"{name}.png")

    with pages(project) as (prefect, mlflow), browser() as page:
        # The newest run of the whole cascade: its flow's page lists the runs of that flow alone.
        page.goto(f"{prefect}/flows")
        page.locator("a[href*='/flows/flow/']").get_by_text("cascade", exact=True).first.click()
        page.locator("a[href*='/runs/flow-run/']").first.click()
        page.get_by_text("Completed").first.wait_for()
        take(page, "prefect-run")
        run = page.url.partition("?")[0]
        for key in ("results", "heat-map"):
            page.goto(run)
            page.get_by_text("Artifacts", exact=True).click()
            page.locator("a[href*='/artifacts/artifact/']").filter(has_text=key).first.click()
            page.wait_for_url("**/artifacts/artifact/*")
            take(page, f"prefect-{key}")

        recipe = load(Layout(project).params)
        page.goto(f"{mlflow}/#/experiments")
        page.get_by_text("Model training", exact=True).click()
        page.get_by_role("button", name="Close").first.click()  # MLflow's assistant
        page.get_by_role("link", name=recipe.family, exact=True).click()
        page.locator("a[href*='/runs/']").first.wait_for()
        take(page, "mlflow-experiment")
        # The oldest run built the nodes; a later one may have found them built.
        page.locator("a[href*='/runs/']").filter(has_text=recipe.name).last.click()
        page.get_by_text("About this run").wait_for()
        take(page, "mlflow-run")
        # Not the last node: a repair that passes its start on has no steps.
        page.get_by_role("link", name=list(recipe.rl)[-1], exact=True).click()
        page.get_by_text("Parent run").wait_for()
        page.get_by_role("tab", name="Model metrics").click()
        page.get_by_placeholder("Search metric charts").fill("^(rollout/(reward|length)|train/entropy)$")
        take(page, "mlflow-node")

        page.goto((project / "report" / "index.html").resolve().as_uri())
        take(page, "report")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    arguments = parser.parse_args()
    shoot(arguments.project, arguments.out)


if __name__ == "__main__":
    main()
