"""Nothing escapes, nothing hangs, the parent is unharmed."""

import os
import platform
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.sandbox import PYTHON, Limits, execute, missing
from tests.sandbox.hostile import PROGRAMS

MIB = 1 << 20
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=3.0, memory_bytes=200 * MIB, file_bytes=8 * MIB, output_bytes=50_000)
CONTENT = "sings in the mine"
EXPECTED = {
    "fork bomb": {"cpu_time", "wall_time"},
    "memory bomb of many processes": {"memory"},
    "files that fill the memory": {"memory", "exited"},
    "millions of files": {"exited", "cpu_time", "memory"},
    "output flood": {"output"},
    "output flood on both streams": {"output"},
    "endless loop": {"cpu_time"},
    "endless loop that ignores the warning": {"cpu_time"},
    "processor time of many processes": {"cpu_time", "wall_time"},
    "sleep": {"wall_time"},
    "stopping itself": {"wall_time"},
    "crash": {"signalled"},
    "a core dump": {"signalled"},
}
"""Where a program is not to end by itself."""
X86_64_ALONE = {"new user namespace by clone", "system calls for few", "system calls under their x32 numbers"}

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"programs cannot be confined here: {missing()}")


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What the programs try to reach: a file, a process, a listening port, an abstract socket, a secret."""
    canary = tmp_path_factory.mktemp("outside") / "canary"
    canary.write_text(CONTENT)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    os.environ["CASCADE_SECRET"] = "SECRET"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        abstract.bind("\0cascade-canary")
        abstract.listen()
        yield canary, process, tcp.getsockname()[1]
    del os.environ["CASCADE_SECRET"]
    assert canary.read_text() == CONTENT
    assert process.poll() is None, "the process outside was killed"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def results(outside):
    """All programs, several at a time, as in use."""
    canary, _, port = outside

    def attack(name):
        source = textwrap.dedent(PROGRAMS[name]).replace("CANARY", str(canary)).replace("PORT", str(port))
        source = source.replace("ABSTRACT", "cascade-canary")
        return execute([*PYTHON, "main.py"], {"main.py": source}, limits=LIMITS, keep=["kept"])

    names = [name for name in PROGRAMS if name not in X86_64_ALONE or platform.machine() == "x86_64"]
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(attack, names), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_escapes_and_nothing_hangs(name, results):
    if name not in results:
        pytest.skip("uses the numbers of x86-64")
    result = results[name]
    assert "ESCAPED" not in result.stdout  # a traceback may quote the program
    assert CONTENT not in result.stdout + result.stderr
    assert len(result.stdout) + len(result.stderr) <= LIMITS.output_bytes
    assert result.ended in EXPECTED.get(name, {"exited"}), result
    assert (result.exit_code is None) == (result.ended != "exited")
    assert result.seconds < LIMITS.wall_seconds + 1
    assert result.files == {}


def test_nothing_survives(results):
    """Of each launcher there is process 1 of its namespace, and no other process in that."""
    launchers = [
        child
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
        if b"launcher.py" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert launchers
    for launcher in launchers:
        [process_one] = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        assert Path(f"/proc/{process_one}/task/{process_one}/children").read_text() == ""


def test_a_good_program_runs_as_before(results):
    good = execute([*PYTHON, "-c", "print(sum(range(10)))"], {})
    assert (good.exit_code, good.stdout) == (0, "45\n")


def test_there_are_more_than_forty_programs():
    assert len(PROGRAMS) >= 40
