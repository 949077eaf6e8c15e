"""A run that is stopped as a scheduler or Ctrl-C stops one: by a signal to all processes of its group at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cascade.servers import stop_groups
from tests.test_pipeline import make_project


def processes(project: Path) -> list[str]:
    """What runs in the project's directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")).is_relative_to(project):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # It has ended.
    return found


def test_a_signal_to_all_its_processes_ends_the_run_at_once(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CASCADE_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with open(tmp_path / "told", "wb") as told:
        run = subprocess.Popen(
            [sys.executable, "-m", "cascade", "run"],
            cwd=project,
            env=environment,
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    try:
        while not any("curate" in words for words in processes(project)):
            assert run.poll() is None, (tmp_path / "told").read_text()
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGTERM)
        # Prefect alone would take minutes, were its server stopped too.
        assert run.wait(60) != 0
        assert not processes(project)
    finally:
        stop_groups([run], patience=10)
