"""A run that is stopped as a scheduler or Ctrl-C stops one: by a signal to all processes of its group at once."""

import os
import signal
import time
from pathlib import Path

from cascade.launch.ui_servers import stop_groups
from tests.test_pipeline import make_project, start


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
    run = start(project, "cascade", "run")
    try:
        while not any("curate" in words for words in processes(project)):
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGTERM)
        # Prefect alone would take minutes, were its server stopped too.
        run.communicate(timeout=60)
        assert run.returncode != 0
        assert not processes(project)
    finally:
        stop_groups([run], patience=10)
