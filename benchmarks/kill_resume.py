"""Kill a node at random moments, run it again each time, and compare its checkpoint with an unkilled run's.

    python -m benchmarks.kill_resume if_rl mopd --kills 20

Of a solve node the trail and the answers are compared.

Works on a copy of the project, whose nodes up to the ones named must have been built. Every kill is SIGKILL
to the whole process group, at a moment drawn over the length of the unkilled run. Where a run ends before its
kill comes, its checkpoint is compared too, and the node starts anew; so the kills spread over all of the node.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.utils.files import fingerprint, hash_directory, hash_file

COMMAND = (sys.executable, "-m", "cascade", "node")
COPIED = ("params.yaml", "data", "models", "results")


@dataclass(frozen=True)
class Outcome:
    kills: int
    finished: int
    """Runs that ended by themselves, after any number of kills."""
    different: int
    """Those whose result differs from the unkilled run's."""


def kill_and_resume(project: Path, node: str, kills: int, seed: int = 0, command: tuple[str, ...] = COMMAND) -> Outcome:
    """`command` followed by the node's name builds the node. Raises CascadeError when the node fails by itself."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Layout(Path(scratch) / "project")
        _copy_project(project, copy.root)
        began = time.monotonic()
        _run(copy.root, (*command, node), None)
        length = time.monotonic() - began
        expected = _result(copy, node)
        print(f"{node}: unkilled in {length:.1f} s, result {expected[:12]}", flush=True)

        dealt = finished = different = 0
        _forget(copy, node)
        while True:
            moment = draw.uniform(0, length) if dealt < kills else None
            if not _run(copy.root, (*command, node), moment):
                dealt += 1
                print(f"{node}: kill {dealt} after {moment:.1f} s", flush=True)
                continue
            finished += 1
            found = _result(copy, node)
            different += found != expected
            verdict = "equal" if found == expected else "DIFFERENT"
            print(f"{node}: finished, result {found[:12]}, {verdict}", flush=True)
            if dealt == kills:
                return Outcome(dealt, finished, different)
            _forget(copy, node)


def _copy_project(project: Path, target: Path) -> None:
    target.mkdir()
    for name in COPIED:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        elif source.exists():
            shutil.copy(source, target / name)


def _result(layout: Layout, node: str) -> str:
    """Hash of the checkpoint; of a solve node, which makes none, of its trail and its answers."""
    if layout.checkpoint(node).exists():
        return hash_directory(layout.checkpoint(node))
    files = [layout.solution(node) / name for name in ("trail.jsonl", "answers.jsonl")]
    return fingerprint({path.name: hash_file(path) for path in files})


def _forget(layout: Layout, node: str) -> None:
    """As if the node had never run."""
    for directory in (layout.checkpoint(node), layout.solution(node), layout.work(node)):
        shutil.rmtree(directory, ignore_errors=True)
    layout.journal(node).unlink(missing_ok=True)


def _run(project: Path, command: tuple[str, ...], moment: float | None) -> bool:
    """Whether the command ended by itself, not by being killed after `moment` seconds. Raises when it failed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command, cwd=project, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        _, said = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        raise CascadeError(f"{' '.join(command[1:])} failed: {said.strip().splitlines()[-1]}")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="+", help="training or solve nodes of the active recipe")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--project", type=Path, default=Path.cwd())
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    failed = False
    for node in arguments.nodes:
        outcome = kill_and_resume(arguments.project, node, arguments.kills, arguments.seed)
        print(f"{node}: {outcome.kills} kills, {outcome.finished} finished runs, {outcome.different} different")
        failed |= outcome.different > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
