"""A stage that hangs between two steps is ended and counts as interrupted; one that is only slow is left alone."""

import io
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from cascade.utils.progress import Progress, read_step
from tasks import processes, watchdog
from tasks.processes import run_stage, stopped_on_exit
from tasks.watchdog import Watchdog

HANGING = """
import pathlib, time
for step in (1, 2, 3, 4):
    if step == 3 and not pathlib.Path("hung").exists():
        pathlib.Path("hung").touch()
        time.sleep(600)
    print(f"if_rl  {step}/4  reward 0.5  left 0:0{4 - step}", flush=True)
    time.sleep(0.1)
pathlib.Path("made").touch()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LEAST", 0.5)
    monkeypatch.setattr(watchdog, "LOOK", 0.05)
    monkeypatch.setattr(processes, "PATIENCE", 0.5)


def stops(lines: list[tuple[float, str]], after: float) -> str | None:
    """The verdict on lines that come after so many seconds each, and then `after` seconds of silence."""
    stopped: list[bool] = []
    dog = Watchdog(lambda: stopped.append(True))
    for seconds, line in lines:
        time.sleep(seconds)
        dog.line(line)
    time.sleep(after)
    dog.end()
    assert bool(stopped) == (dog.verdict is not None)
    assert len(stopped) <= 1
    return dog.verdict


def test_silence_between_two_steps() -> None:
    verdict = stops([(0, "if_rl  7/50  reward 0.5"), (0, "a word")], after=0.8)
    assert verdict == "no step for 0 minutes after step 7 of 50; stopped"
    assert stops([(0, "if_rl  7/50  reward 0.5")], after=0.2) is None


def test_slow_steps_are_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [(0.0, "sft  1/9  loss 1"), (0.3, "sft  2/9  loss 1")]
    assert stops(slow, after=1.0) is None
    monkeypatch.setattr(watchdog, "TIMES", 1)
    assert stops(slow, after=1.0) is not None


def test_before_the_first_step_and_after_the_last_nothing_is_overdue() -> None:
    assert stops([(0, "if_rl: resuming after step 3")], after=0.8) is None
    assert stops([(0, "if_rl  50/50  reward 0.5")], after=0.8) is None


def test_it_reads_what_progress_says() -> None:
    with redirect_stderr(io.StringIO()) as told:
        Progress("swe_agentic-rl", 12, 0).step(4, {"reward": "0.5", "tokens/s": "2,000"})
    step = read_step(told.getvalue().rstrip())
    assert step is not None
    assert step[:3] == ("swe_agentic-rl", 5, 12)
    assert re.fullmatch(r"reward 0.5  tokens/s 2,000  left 0:0\d", step.fields_text)
    assert read_step("  mcqa: 0.250 against 1/2  of") is None


def test_a_hanging_stage_is_ended_and_run_again(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (tmp_path / "hanging.py").write_text(HANGING)
    stage = f"stages:\n  hanging:\n    cmd: {sys.executable} hanging.py\n    outs: [made]\n"
    (tmp_path / "dvc.yaml").write_text(stage)
    with stopped_on_exit():
        ended = [run_stage("hanging", tmp_path, "", lambda line: None) for _ in range(2)]
    assert [outcome.kind for outcome in ended] == ["interrupted", "built"]
    assert ended[0].message == "no step for 0 minutes after step 2 of 4; stopped"
