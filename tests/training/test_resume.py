"""A node killed anywhere and run again ends with the bytes of one that was never killed."""

import shutil

import pytest

from cascade.errors import CheckpointError
from cascade.launch import fork_server
from cascade.layout import Layout
from cascade.training.node_run import NodeRun
from cascade.training.on_policy import run_on_policy
from cascade.training.sft import run_sft
from cascade.utils.files import hash_directory, read_json
from tests.training.miniature import choose_teachers, make_hybrid, make_recipe

RUN = {"sft": run_sft, "rl": run_on_policy, "mopd": run_on_policy}


class Killed(BaseException):
    """Not an Exception: nothing in the loop may catch it, as nothing catches SIGKILL."""


def interrupt(monkeypatch: pytest.MonkeyPatch, method: str, call: int, *, before: bool) -> None:
    """Die in the `call`-th call of a NodeRun method, before or after its work."""
    real = getattr(NodeRun, method)
    calls = 0

    def dying(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == call and before:
            raise Killed
        real(self, *arguments)
        if calls == call:
            raise Killed

    monkeypatch.setattr(NodeRun, method, dying)


@pytest.mark.parametrize(
    ("node", "method", "call", "before"),
    [
        ("sft", "save", 2, True),
        ("sft", "save", 2, False),
        ("sft", "_write_results", 1, True),
        ("rl", "save", 2, True),
        ("rl", "save", 2, False),
        ("rl", "_check_reload", 1, True),
        ("mopd", "save", 2, True),
        ("mopd", "save", 2, False),
        ("mopd", "finish", 1, True),
    ],
)
def test_a_killed_node_ends_with_the_same_bytes(
    node: str, method: str, call: int, before: bool, project: Layout, tmp_path, monkeypatch
) -> None:
    recipe = make_recipe()
    copy = Layout(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    RUN[node](recipe, node, project)

    with monkeypatch.context() as patch:
        interrupt(patch, method, call, before=before)
        with pytest.raises(Killed):
            RUN[node](recipe, node, copy)
    RUN[node](recipe, node, copy)

    assert hash_directory(copy.checkpoint(node)) == hash_directory(project.checkpoint(node))
    assert hash_directory(copy.checkpoint(node)) != read_json(copy.training(node) / "manifest.json")["inputs"]["parent"]
    assert not copy.work(node).exists()
    for file in ("manifest.json", "metrics.json"):
        one, other = (read_json(layout.training(node) / file) for layout in (project, copy))
        assert {k: v for k, v in one.items() if not _of_time(k)} == {k: v for k, v in other.items() if not _of_time(k)}
    assert _untimed_csv(project, node) == _untimed_csv(copy, node)
    if node != "sft":
        samples = [(layout.training(node) / "samples.jsonl").read_text() for layout in (project, copy)]
        assert samples[0] == samples[1]


@pytest.fixture
def preloaded():
    """Processes of a sampler start at once."""
    with fork_server.server({}):
        yield


def test_a_hybrid_mixture_of_experts_resumes_exactly_on_two_threads(
    project: Layout, tmp_path, monkeypatch, preloaded
) -> None:
    for seed, node in enumerate(("sft", "rl", "other"), 1):
        make_hybrid(project.checkpoint(node), seed)
    choose_teachers(project, one="rl", two="other")
    copy = Layout(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    recipe = make_recipe(threads=2, mopd={"steps": 3, "update_router": True})
    run_on_policy(recipe, "mopd", project)
    with monkeypatch.context() as patch:
        interrupt(patch, "save", 2, before=True)
        with pytest.raises(Killed):
            run_on_policy(recipe, "mopd", copy)
    run_on_policy(recipe, "mopd", copy)
    assert hash_directory(copy.checkpoint("mopd")) == hash_directory(project.checkpoint("mopd"))
    values = read_json(copy.training("mopd") / "metrics.json")
    assert 1 <= values["train/expert_load_max_over_mean"] <= 4
    assert values["train/log_prob_gap"] < 1e-4


def test_a_state_made_from_other_inputs_is_discarded(project: Layout, monkeypatch, capsys) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "save", 2, before=False)
        with pytest.raises(Killed):
            run_on_policy(make_recipe(), "rl", project)
    changed = make_recipe(rl={"steps": 2, "max_refills": 0})
    run_on_policy(changed, "rl", project)
    assert (
        "rl: starting from step 0: the state at step 2 was made from another recipe section" in capsys.readouterr().err
    )
    resumed = hash_directory(project.checkpoint("rl"))
    run_on_policy(changed, "rl", project)
    assert hash_directory(project.checkpoint("rl")) == resumed


def test_a_later_save_frequency_does_not_discard_the_state(project: Layout, monkeypatch, capsys) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "save", 2, before=False)
        with pytest.raises(Killed):
            run_on_policy(make_recipe(), "rl", project)
    run_on_policy(make_recipe(rl={"checkpoint_every": 100}), "rl", project)
    assert "rl: resuming after step 2" in capsys.readouterr().err


def test_a_damaged_state_is_named(project: Layout) -> None:
    state = project.work("rl") / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"state.safetensors: not a resumable state .* delete it"):
        run_on_policy(make_recipe(), "rl", project)


def _of_time(name: str) -> bool:
    return name.startswith(("time/", "speed/", "seconds"))


def _untimed_csv(layout: Layout, node: str) -> list[list[str]]:
    lines = [line.split(",") for line in (layout.training(node) / "steps.csv").read_text().splitlines()]
    keep = [i for i, name in enumerate(lines[0]) if not _of_time(name)]
    return [[line[i] for i in keep] for line in lines]
