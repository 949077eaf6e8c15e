"""The files that a Harbor task is worked on, carried from one sandboxed command to the next."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cascade.sandbox import PYTHON, Execution, Limits, execute

TEST_SECONDS = 600.0
COMMAND = Limits(cpu_seconds=60, wall_seconds=120, memory_bytes=2 << 30, processes=64, file_bytes=64 << 20)
STATE = "state.tar"
ROOTS = ("app", "logs", "tests", "workspace", "output", "data", "solution")
"""What a task may call its directories; each is one of the scratch directory and a link at the root."""

# Unpacks what is there, runs bash on the script, and packs what is there then. All of it runs in the sandbox.
_STEP = """
import os, subprocess, sys, tarfile
roots = sys.argv[2:]
if os.path.exists('state.tar'):
    with tarfile.open('state.tar') as kept:
        kept.extractall('.', filter='data')
    os.remove('state.tar')
for name in (*roots, 'logs/verifier', 'logs/agent', 'logs/artifacts'):
    os.makedirs(name, exist_ok=True)
os.makedirs(sys.argv[1], exist_ok=True)
ended = subprocess.run(['bash', '/scratch/.script'], cwd=sys.argv[1], stdin=subprocess.DEVNULL).returncode
with tarfile.open('state.tar', 'w') as kept:
    for name in roots:
        if name != 'tests':
            kept.add(name)
sys.exit(ended)
"""


class World:
    """One thread at a time."""

    def __init__(self, workdir: str, variables: Mapping[str, str], files: Mapping[str, bytes]):
        self._workdir = workdir
        self._exports = "".join(f"export {name}={_quoted(value)}\n" for name, value in variables.items())
        self._files = {_place(path): content for path, content in files.items()}
        self._roots = sorted({*ROOTS, PurePosixPath(_place(workdir)).parts[0]})
        self._state: bytes | None = None
        self.broken = ""
        """Why nothing more can be run here."""

    def run(self, command: str) -> str:
        """What the command wrote, and how it ended where that was not well."""
        if self.broken:
            return f"Error: {self.broken}"
        done = self._step(f"exec 2>&1\n{self._exports}{command}\n", {}, COMMAND)
        if STATE not in done.files:
            if done.ended == "exited":
                self.broken = "the files have grown too large to be kept"
                return f"Error: {self.broken}"
            return f"{done.stdout}\nError: stopped ({done.ended}); files are as they were before"
        self._state = done.files[STATE]
        return done.stdout.rstrip() + (f"\n(exit code {done.exit_code})" if done.exit_code else "")

    def test(self, tests: Path, seconds: float) -> tuple[dict[str, str], str]:
        """The reward files that the test script wrote, by name, and how it ended."""
        files = {
            f"tests/{path.relative_to(tests)}": path.read_bytes() for path in sorted(tests.rglob("*")) if path.is_file()
        }
        limits = Limits(seconds, seconds, COMMAND.memory_bytes, COMMAND.processes, COMMAND.file_bytes)
        # What was left there before the tests is no reward of theirs.
        script = f"rm -rf /scratch/logs/verifier; mkdir -p /scratch/logs/verifier\n{self._exports}bash /tests/test.sh\n"
        names = ("reward.txt", "reward.json")
        done = self._step(script, files, limits, keep=[f"logs/verifier/{name}" for name in names])
        texts = {
            name: done.files[f"logs/verifier/{name}"].decode(errors="replace")
            for name in names
            if f"logs/verifier/{name}" in done.files
        }
        said = (done.stderr or done.stdout).strip()[-200:]
        return texts, f"{done.ended}, exit code {done.exit_code}: {said}"

    def _step(
        self, script: str, files: Mapping[str, bytes], limits: Limits, keep: list[str] | None = None
    ) -> Execution:
        carried: dict[str, str | bytes] = {**(self._files if self._state is None else {STATE: self._state}), **files}
        place = f"/scratch/{_place(self._workdir)}"
        return execute(
            [*PYTHON, "-c", _STEP, place, *self._roots],
            {**carried, ".script": script},
            limits=limits,
            keep=[STATE, *(keep or ())],
            roots=self._roots,
        )


def _place(path: str) -> str:
    """Where in the scratch directory a path from the root is; /root and /home are nobody's here."""
    return path.lstrip("/") or "app"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\"'\"'") + "'"
