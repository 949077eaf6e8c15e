"""The benchmark that kills: it must see what it is there to see. The nodes here sleep instead of training."""

import sys
from pathlib import Path

import pytest

from benchmarks.kill_resume import kill_and_resume
from cascade.errors import CascadeError

STEPS = """
import pathlib, sys, time
node = sys.argv[1]
work, made = pathlib.Path(".cascade/work") / node, pathlib.Path("models") / node
work.mkdir(parents=True, exist_ok=True)
state = work / "state"
done = state.read_text() if state.exists() else ""
while len(done) < 8:
    time.sleep(0.03)
    done += STEP
    state.write_text(done)
made.mkdir(parents=True, exist_ok=True)
(made / "weights").write_text(done)
state.unlink()
"""


def command(tmp_path: Path, step: str) -> tuple[str, ...]:
    script = tmp_path / "node.py"
    script.write_text(STEPS.replace("STEP", step))
    return sys.executable, str(script)


def test_a_node_that_resumes_exactly_is_equal_after_every_kill(tmp_path: Path):
    outcome = kill_and_resume(tmp_path, "rl", kills=6, command=command(tmp_path, "'x'"))
    assert outcome.kills == 6
    assert outcome.finished >= 1
    assert outcome.different == 0


def test_a_node_that_does_not_resume_exactly_is_found_out(tmp_path: Path):
    # The first step of every process differs, as where a random state is not restored.
    step = "'y' if globals().setdefault('first', done) == done else 'x'"
    outcome = kill_and_resume(tmp_path, "rl", kills=6, command=command(tmp_path, step))
    assert outcome.different >= 1


def test_a_node_that_fails_by_itself_is_no_kill(tmp_path: Path):
    with pytest.raises(CascadeError, match=r"node.py rl failed: ZeroDivisionError"):
        kill_and_resume(tmp_path, "rl", kills=1, command=command(tmp_path, "str(1 / 0)"))
