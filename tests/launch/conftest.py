"""Clusters of one machine: executables that behave as Slurm's and kubectl do towards those who call them, and a
program whose processes can be counted."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# The tiny models are shared with the tests of the policy.
sys.path.insert(0, str(HERE.parent / "policy"))

# What a node is here: it says its rank, then does as its arguments say.
NODE = """
import os, signal, sys, time
from pathlib import Path
rank = os.environ["RANK"]
from cascade.launch.launcher import launched
from cascade.layout import Layout
assert not launched("node", "sft", Layout(Path.cwd()))  # Marked: it is to run here.
# In one write, whole lines of several processes do not mix.
os.write(1, f"rank {rank} of {os.environ['WORLD_SIZE']} at {os.environ['MASTER_ADDR']}\\n".encode())
Path("pids").mkdir(exist_ok=True)
Path("pids", rank).write_text(str(os.getpid()))
how = sys.argv[1]
if how in ("fail", "die"):  # Not before the others have begun.
    while len(list(Path("pids").iterdir())) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.05)
if how == "add":
    import torch, torch.distributed as dist
    dist.init_process_group("gloo")
    number = torch.tensor(float(rank) + 1)
    dist.all_reduce(number)
    os.write(1, f"sum {number:g}\\n".encode())
    dist.destroy_process_group()
elif how == "fail" and rank == "1":
    sys.exit("Error: no such thing")
elif how == "die" and rank == "0":
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how not in ("add", "say"):
    time.sleep(300)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project directory with the program `node.py`."""
    (tmp_path / "node.py").write_text(NODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[1]))
    return tmp_path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a file of executables on the PATH, one under each name that it lists in its first line; returns where
    they keep what they know."""

    def install(file: str) -> Path:
        state, folder = tmp_path / "cluster", tmp_path / "bin"
        state.mkdir()
        folder.mkdir()
        source = (HERE / file).read_text()
        for name in source.splitlines()[0].removeprefix("# ").split():
            (folder / name).write_text(f"#!{sys.executable}\n{source}")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_CLUSTER", str(state))
        return state

    return install


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def pids(project: Path, count: int) -> list[int]:
    """Of the node's processes, when there are as many."""
    files = [project / "pids" / str(rank) for rank in range(count)]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]
