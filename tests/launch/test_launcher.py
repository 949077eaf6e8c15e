"""What is started for a node, in which order."""

import pytest
import yaml

from cascade.launch import launcher
from cascade.layout import Layout
from cascade.utils.files import write_atomic
from tests.evaluation.project import recipe_with_repair


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv(launcher.MARK, raising=False)
    raw = recipe_with_repair().model_dump(mode="json")
    raw["pools"] = {node: {"pool": "gpus", "launcher": "torchrun", "gpus": 2} for node in ("mend", "mopd")}
    layout = Layout(tmp_path)
    write_atomic(layout.params, yaml.safe_dump(raw))
    return layout


def test_a_repair_is_decided_by_one_process_before_several_train(layout, monkeypatch):
    started, codes = [], [0, 0, 0]
    monkeypatch.setattr(launcher, "_run", lambda job: started.append((job.program[2:], job.processes)) or codes.pop(0))
    assert launcher.launched("node", "mend", layout)
    assert launcher.launched("node", "mopd", layout)
    assert started == [(["check", "mend"], 1), (["node", "mend"], 2), (["node", "mopd"], 2)]
    # By itself, and by what runs on one machine anyway, in this process.
    assert not launcher.launched("check", "mend", layout)


def test_a_check_that_fails_trains_nothing(layout, monkeypatch):
    started = []
    monkeypatch.setattr(launcher, "_run", lambda job: started.append(job.program[2]) or 3)
    with pytest.raises(SystemExit) as stopped:
        launcher.launched("node", "mend", layout)
    assert (stopped.value.code, started) == (3, ["check"])
