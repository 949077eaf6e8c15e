"""The server that forks the processes of a run, with real ones."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.launch import fork_server
from cascade.utils.forked import ADDRESS, ForkedProcess, fork
from tests.launch.conftest import alive, until


@pytest.fixture(scope="module")
def served():
    with fork_server.server({}):
        yield
    assert ADDRESS not in os.environ


def forked(code: str) -> ForkedProcess:
    found = fork("builtins:exec", code)
    assert found is not None
    return found


def pid_in(folder: Path) -> int:
    """Of a process that WAITS, once it does."""
    until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    return int((folder / "pid").read_text())


TELLS = """
import os, sys
print("torch" in sys.modules, os.environ["ASKED_FOR"], os.getcwd(), file=open("told", "w"))
"""


def test_a_process_begins_with_everything_imported_where_its_client_is(served, tmp_path, monkeypatch):
    monkeypatch.setenv("ASKED_FOR", "this")
    monkeypatch.chdir(tmp_path)
    process = forked(TELLS)
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "told").read_text() == f"True this {tmp_path}\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("raise ValueError", 1), ("import os; os.kill(os.getpid(), 9)", -9)],
)
def test_its_client_is_told_how_a_process_ended(served, code, status):
    process = forked(code)
    process.join()
    assert process.exitcode == status


WAITS = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


def test_signals_are_passed_on(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = forked(WAITS)
    pid_in(tmp_path)
    process.terminate()
    process.join()
    assert process.exitcode == -signal.SIGTERM


def test_a_process_dies_with_its_client(served, tmp_path):
    program = f"from cascade.utils.forked import fork; fork('builtins:exec', {WAITS!r}).join()"
    client = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env={**os.environ})
    pid = pid_in(tmp_path)
    assert alive(pid)
    client.kill()
    client.wait()
    until(lambda: not alive(pid))


def test_a_command_is_done_elsewhere_and_ends_as_it_would_here(served, tmp_path):
    (tmp_path / "params.yaml").write_text("name: no recipe\n")
    command = [sys.executable, "-m", "cascade", "node", "sft"]
    there = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    without = {name: value for name, value in os.environ.items() if name != ADDRESS}
    here = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=without)
    assert here.returncode == 1
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)


@pytest.mark.parametrize("name", [name for name in fork_server.IMPORTED if name.startswith("cascade.")])
def test_what_it_imports_can_be_found(name):
    assert importlib.util.find_spec(name) is not None  # The server passes over a name that is wrong.


def test_without_a_server_a_command_is_done_here(monkeypatch):
    monkeypatch.setenv(ADDRESS, "/nowhere")
    assert not fork_server.run_preloaded("cascade.cli:command", ["node", "sft"])
    monkeypatch.delenv(ADDRESS)
    assert not fork_server.run_preloaded("cascade.cli:command", ["node", "sft"])


def test_all_die_with_the_server(tmp_path, monkeypatch):
    monkeypatch.delenv(ADDRESS, raising=False)  # The module's own server, which may be there still.
    monkeypatch.chdir(tmp_path)
    with fork_server.server({}):
        process = forked(WAITS)
        pid = pid_in(tmp_path)
    until(lambda: not alive(pid))
    process.join()
    assert process.exitcode == -signal.SIGKILL
