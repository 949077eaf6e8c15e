"""Break what a run stands on, and see what it says, where it resumes and whether anything is lost.

    python -m benchmarks.faults training-killed disk-full … | all

Each fault has a small project of its own, in which data and SFT are built and `if_rl` is not. The run is disturbed
while it trains, then run again until it succeeds. Its checkpoint and its measurements must be those of a run that
nothing disturbed. docs/faults.md is the table of what is seen. Linux only; `disk-full` needs unprivileged user
namespaces.
"""

import argparse
import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cascade.errors import CascadeError
from cascade.launch.process_setup import QUIET
from cascade.launch.ui_servers import HOST, stop_groups
from cascade.layout import Layout
from cascade.tracking import Journal
from cascade.utils.files import hash_directory
from tests.test_pipeline import make_project, small_recipe

ROOT = Path(__file__).parents[1]
NODE = "if_rl"
STEPS = 16
EARLY = 6
"""Steps after which a fault comes: at least one state has been saved."""
RUN = ("cascade", "run")


class Scene:
    """One project and the processes that a fault needs in it. What they print goes to `told`."""

    def __init__(self, folder: Path):
        self.layout = Layout(folder)
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CASCADE_"))
        }
        self.environment |= QUIET | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PREFECT_HOME": str(folder / ".prefect"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        }
        self._told = folder / ".cascade" / "told.txt"
        self._started: list[subprocess.Popen] = []

    def start(self, *command: str) -> subprocess.Popen:
        """`python -m COMMAND` in the project, in a session of its own."""
        return self.start_program(sys.executable, "-m", *command)

    def start_program(self, *command: str) -> subprocess.Popen:
        self._told.parent.mkdir(exist_ok=True)
        with open(self._told, "ab") as told:
            process = subprocess.Popen(
                command,
                cwd=self.layout.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def do(self, *command: str) -> None:
        """Raises CascadeError where the command fails."""
        if self.start(*command).wait():
            raise CascadeError(f"{' '.join(command)} failed: {self.told()[-1]}")

    def told(self) -> list[str]:
        return [line for line in self._told.read_text(errors="replace").splitlines() if line.strip()]

    def until(self, what: str, reached: Callable[[], Any], patience: float = 900) -> None:
        """Raises CascadeError naming `what` did not come about in `patience` seconds."""
        deadline = time.monotonic() + patience
        while not reached():
            if time.monotonic() > deadline:
                raise CascadeError(f"{what}: not after {patience:.0f} s; last words: {self.told()[-1]}")
            time.sleep(0.1)

    def train(self) -> None:
        """Wait until the node is at work and has saved a state."""
        self.until("training", lambda: self.steps() >= EARLY)

    def steps(self) -> int:
        return sum(entry["kind"] == "metrics" for entry in Journal(self.layout.journal(NODE)).entries())

    def processes(self, *words: str) -> list[int]:
        """Those at work in this project whose command line, or name, has all the words."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                here = entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == self.layout.root.resolve()
                told = "".join((entry / file).read_text() for file in ("cmdline", "comm")) if here else ""
                if here and all(word in told for word in words):
                    found.append(int(entry.name))
            except OSError:
                continue  # It has ended, or is another user's.
        return found

    def serve(self, path: str, *command: str) -> tuple[subprocess.Popen, str]:
        """A server whose address `command` takes; returned once it answers at `path`."""
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        return self.serve_at(port, path, *command), f"http://{HOST}:{port}"

    def serve_at(self, port: int, path: str, *command: str) -> subprocess.Popen:
        process = self.start(*command, "--host", HOST, "--port", str(port))

        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2):
                    return True
            except OSError:
                return False

        self.until(command[0], answers)
        return process

    def stop(self) -> None:
        stop_groups(self._started, patience=10)

    def result(self) -> tuple[str, list[list[str]]]:
        """The checkpoint's hash, and what was measured in each step, its times apart."""
        with open(self.layout.training(NODE) / "steps.csv") as file:
            rows = list(csv.reader(file))
        kept = [i for i, name in enumerate(rows[0]) if not name.startswith(("time/", "speed/"))]
        return hash_directory(self.layout.checkpoint(NODE)), [[row[i] for i in kept] for row in rows]


def training_killed(scene: Scene) -> None:
    """SIGKILL to the training process, as the kernel does when memory runs out. The same run goes on by itself."""
    run = scene.start(*RUN)
    scene.train()
    for pid in scene.processes("node", NODE):
        os.kill(pid, signal.SIGKILL)
    _expect(run.wait() == 0, "the run itself to resume")


def run_killed(scene: Scene) -> None:
    """SIGKILL to `cascade run`, as when its terminal's machine is lost."""
    run = scene.start(*RUN)
    scene.train()
    run.kill()
    run.wait()


def stopped(scene: Scene) -> None:
    """SIGTERM to `cascade run`: nothing that it started may be left."""
    run = scene.start(*RUN)
    scene.train()
    run.terminate()
    _expect(run.wait() != 0, "a run that was stopped to say so")
    _expect(not scene.processes("node", NODE), "no process to be left")


def mlflow_away(scene: Scene) -> None:
    """MLflow's server is stopped while the node trains, and is back when the node has ended."""
    command = (
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{scene.layout.root}/tracking.db",
        "--workers",
        "1",
    )
    server, address = scene.serve("/health", *command)
    scene.environment["MLFLOW_TRACKING_URI"] = address
    run = scene.start(*RUN)
    scene.train()
    stop_groups([server], patience=5)
    _expect(run.wait() == 0, "training to go on without MLflow")
    scene.serve_at(int(address.rpartition(":")[2]), "/health", *command)
    scene.do("cascade", "report")


def prefect_away(scene: Scene) -> None:
    """Prefect's server is stopped while the node trains, and is back two minutes later: longer than Prefect's client
    tries (about one)."""
    command = ("prefect", "server", "start")
    server, address = scene.serve("/api/health", *command)
    scene.environment["PREFECT_API_URL"] = f"{address}/api"
    run = scene.start(*RUN)
    scene.train()
    stop_groups([server], patience=5)
    time.sleep(120)
    scene.serve_at(int(address.rpartition(":")[2]), "/api/health", *command)
    run.wait()


def disk_full(scene: Scene) -> None:
    """The project's disk, with the databases of Prefect and MLflow, fills up while the node trains. Then room is made
    and it is run again."""
    state = scene.layout.work(NODE).relative_to(scene.layout.root) / "state.safetensors"
    script = f"""
        mkdir -p small && mount -t tmpfs -o size=256m none small && find . -mindepth 1 -maxdepth 1 ! -name small |
            xargs cp -a -t small && cd small
        (while [ ! -e {state} ]; do sleep 0.1; done; cat /dev/zero > ballast) 2>/dev/null &
        {sys.executable} -m cascade run; echo "exit status $?"
        rm -f ballast; {sys.executable} -m cascade run; echo "exit status $?"
        rm .cascade/told.txt; cd .. && cp -a small/. ."""
    del scene.environment["PREFECT_HOME"]  # In the directory that it runs in.
    scene.start_program("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script).wait()


FAULTS: dict[str, Callable[[Scene], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (training_killed, run_killed, stopped, mlflow_away, prefect_away, disk_full)
}


def prepare(folder: Path) -> Scene:
    """A project whose data and SFT are built, and whose RL node has steps enough to be disturbed in."""
    make_project(folder)
    recipe = small_recipe()
    recipe["rl"][NODE] |= {"steps": STEPS, "checkpoint_every": 5}
    recipe |= {"teachers": {}, "distill": {}, "repair": {}, "gate": {}}
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    scene = Scene(folder)
    scene.do("dvc", "repro", "--quiet", "evaluate-sft@sft")
    return scene


def show(name: str, prepared: Path, expected: Any, scratch: Path) -> bool:
    """Whether the fault lost nothing. Prints what was seen."""
    folder = scratch / name
    shutil.copytree(prepared, folder, symlinks=True)
    scene = Scene(folder)
    try:
        FAULTS[name](scene)
        scene.do(*RUN)
        same = scene.result() == expected
    finally:
        scene.stop()
    marks = ("Error", "resum", "killed", "exited", "published later", "exit status", "Retry", "after ", "No space")
    print(f"\n{name}: {'nothing lost' if same else 'DIFFERENT'}")
    for line in (line for line in scene.told() if any(mark in line for mark in marks)):
        print(f"    {line[:200]}")
    sys.stdout.flush()
    return same


def _expect(held: bool, what: str) -> None:
    if not held:
        raise CascadeError(f"expected {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="+", choices=[*FAULTS, "all"])
    named = parser.parse_args().faults
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared"
        prepared.mkdir()
        prepare(prepared)
        undisturbed = Path(scratch) / "undisturbed"
        shutil.copytree(prepared, undisturbed, symlinks=True)
        scene = Scene(undisturbed)
        scene.do(*RUN)
        expected = scene.result()
        print(f"undisturbed: checkpoint {expected[0][:12]}, {len(expected[1]) - 1} steps", flush=True)
        kept = [show(name, prepared, expected, Path(scratch)) for name in (FAULTS if "all" in named else named)]
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
