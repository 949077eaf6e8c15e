"""Which prompts can teach: measured before the first step, said of it, watched while the node trains."""

import shutil

import pytest

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.tracking import Journal
from cascade.tracking.journal import tags_of
from cascade.training.difficulty import Counts, SignalWatch
from cascade.training.groups import Group, Rollout
from cascade.training.node_run import NodeRun
from cascade.training.on_policy import run_on_policy
from cascade.training.prompts import Prompt
from cascade.utils.files import hash_directory
from tests.training.miniature import make_recipe, prompt_rows, write_rows


def rows(domain: str, **words: str) -> list[dict]:
    """Twenty rows of each level; `level_2="never"`: the word that no response has."""
    found = []
    for number, word in ((int(key.removeprefix("level_")), word) for key, word in words.items()):
        found += [row | {"id": f"{row['id']}-{number}", "level": number} for row in prompt_rows(domain, 20, word=word)]
    return found


def group(*rewards: float | None) -> Group:
    prompt = Prompt("p", "one", "find_the_word", "{}")
    return Group(prompt, [Rollout(prompt, None, "", None, reward) for reward in rewards])


def test_counts():
    node = make_recipe().rl["rl"]
    rewards = [(0, 0), (1, 1), (0, 1), (0.2, 0.4), (0.5, 0.5), (None, 1), (None, None)]
    groups = [group(*of_prompt) for of_prompt in rewards]
    assert Counts.of(node, groups) == Counts(prompts=7, teaching=2, unsolved=1, solved=2)
    strict = make_recipe(rl={"min_best_reward": 0.5}).rl["rl"]
    assert Counts.of(strict, groups).teaching == 1


def test_levels_without_signal_are_left_out_and_all_is_said(project: Layout, capsys):
    write_rows(project.prompts("one"), rows("one", level_1="w3", level_2="never", level_3="w4"))
    write_rows(project.prompts("two"), prompt_rows("two", 20, word="w3"))  # Rows without levels.
    run_on_policy(make_recipe(rl={"difficulty": 6, "rollouts": 16}), "rl", project)
    told = capsys.readouterr().err
    assert "rl: one: level 1: " in told
    assert "; level 2: 0 of 6 prompts can teach (6 solved by no rollout, 0 by every one), left out; level 3: " in told
    assert "rl: two: " in told
    assert "rl: in the first step " in told
    assert ": one 2 of 2, two 2 of 2" in told
    entries = Journal(project.journal("rl")).entries()
    assert "level 2: 0 of 6" in tags_of(entries)["difficulty/one"]
    steps = [entry["values"] for entry in entries if entry["kind"] == "metrics"]
    assert len(steps) == 4
    assert all(step["rollout/filtered/one"] == 0 for step in steps)


def test_what_is_measured_changes_nothing_where_all_levels_are_kept(project: Layout):
    write_rows(project.prompts("one"), rows("one", level_1="w3", level_2="w4"))
    write_rows(project.prompts("two"), rows("two", level_1="w3"))
    hashes = []
    for count in (0, 3, 7):
        run_on_policy(make_recipe(rl={"difficulty": count, "rollouts": 16}), "rl", project)
        hashes.append(hash_directory(project.checkpoint("rl")))
    assert len(set(hashes)) == 1


def test_a_killed_node_keeps_the_levels_that_it_chose(project: Layout, tmp_path, monkeypatch):
    write_rows(project.prompts("one"), rows("one", level_1="w3", level_2="never"))
    recipe = make_recipe(rl={"difficulty": 4, "rollouts": 16})
    copy = Layout(tmp_path / "copy")
    shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    run_on_policy(recipe, "rl", project)
    real = NodeRun.save

    def dying(self, policy, step, progress):
        real(self, policy, step, progress)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NodeRun, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            run_on_policy(recipe, "rl", copy)
    with monkeypatch.context() as patch:  # The trained policy would measure something else.
        patch.setattr("cascade.training.on_policy.measure", lambda *_: pytest.fail("measured again"))
        run_on_policy(recipe, "rl", copy)
    assert hash_directory(copy.checkpoint("rl")) == hash_directory(project.checkpoint("rl"))


def test_a_domain_without_any_signal_ends_the_node_before_its_first_step(project: Layout):
    write_rows(project.prompts("one"), rows("one", level_1="never"))
    with pytest.raises(
        CascadeError, match=r"^rl: one: level 1: 0 of 5 prompts .*left out; rl\.rl\.min_teaching is 0\.1: .*too hard.*$"
    ):
        run_on_policy(make_recipe(rl={"difficulty": 5}), "rl", project)
    assert not [e for e in Journal(project.journal("rl")).entries() if e["kind"] == "metrics"]


def step(groups: int, taught: int, unsolved: float, *, dynamic: bool = True) -> dict[str, float]:
    idle = 1 - taught / groups
    return {
        "rollout/groups": groups,
        "rollout/zero_variance": idle,
        "rollout/filtered": idle if dynamic else 0.0,
        "rollout/solved_by_none": unsolved,
        "rollout/solved_by_all": idle - unsolved,
        "rollout/skipped_step": float(taught == 0),
    }


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_node_whose_batches_are_mostly_empty_stops_after_ten_steps(dynamic: bool, capsys):
    """16 prompts a step of which one teaches: 6 %."""
    node = make_recipe(rl={"steps": 40}).rl["rl"]
    watch = SignalWatch(node, "rl", [])
    for _ in range(9):
        watch.step(step(16, 1, 0.75, dynamic=dynamic), [group(0, 1)])
    with pytest.raises(CascadeError) as caught:
        watch.step(step(16, 1, 0.75, dynamic=dynamic), [])
    told = str(caught.value)
    assert told.startswith(
        "rl: of the prompts of steps 1 to 10 6% can teach (75% solved by no rollout, 19% by every one)"
    )
    assert "rl.rl.min_teaching is 0.1: the prompts are too hard" in told
    assert capsys.readouterr().err.count("in the first step 1 of 1 prompts") == 1


def test_the_last_ten_steps_count_those_before_a_resumption_too():
    node = make_recipe(rl={"steps": 40}).rl["rl"]
    watch = SignalWatch(node, "rl", [step(10, 9, 0.1)] * 20)
    for _ in range(8):
        watch.step(step(10, 0, 0.0), [])  # 18, 9, … of 100: the good steps leave one by one.
    watch.step(step(10, 1, 0.0), [])  # 10 of 100.
    with pytest.raises(CascadeError, match=r"steps 21 to 30 1%.* by every one\).*too easy"):
        watch.step(step(10, 0, 0.0), [])


def test_a_short_node_is_judged_at_its_end():
    watch = SignalWatch(make_recipe(rl={"steps": 3}).rl["rl"], "rl", [])
    watch.step(step(20, 0, 1.0), [group(0, 0)])
    watch.step(step(20, 1, 0.9), [])
    with pytest.raises(CascadeError, match=r"^rl: of the prompts of steps 1 to 3 3% can teach"):
        watch.step(step(20, 1, 0.9), [])
    lenient = SignalWatch(make_recipe(rl={"steps": 3, "min_teaching": 0}).rl["rl"], "rl", [])
    for _ in range(3):
        lenient.step(step(20, 1, 0.9), [group(0, 0)])
