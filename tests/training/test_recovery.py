import pytest
import torch

from cascade.errors import CascadeError, RecipeError
from cascade.layout import Layout
from cascade.policy.checkpoint import load_checkpoint
from cascade.recipe import HeldOut
from cascade.training import recovery
from cascade.training.on_policy import run_on_policy
from cascade.training.prompts import Prompt
from cascade.training.recovery import Progress, headroom_shares
from cascade.utils.files import hash_directory
from tests.training.miniature import choose_teachers, make_recipe, prompt_rows, write_rows
from tests.training.test_on_policy import steps_of

HELD_OUT = {"every": 2, "prompts": 6, "rollouts": 2}


def test_headroom_shares_by_hand():
    mix = {"a": 0.5, "b": 0.3, "c": 0.2}
    shares = headroom_shares(mix, {"a": 0.5, "b": 0.2, "c": 0.9}, {"a": 0.6, "b": 0.5, "c": 0.8}, anchor=0.2)
    assert shares == pytest.approx({"a": 0.1 + 0.8 * 0.25, "b": 0.06 + 0.8 * 0.75, "c": 0.04})
    assert sum(shares.values()) == pytest.approx(1)
    assert headroom_shares(mix, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 0.5, "c": 1}, 0.2) == mix


def test_recovery_and_who_is_behind_by_hand():
    progress = Progress(
        before={"a": 0.2, "b": 0.5, "c": 0.5},
        teacher={"a": 0.6, "b": 0.7, "c": 0.51},
        student={"a": 0.5, "b": 0.6, "c": 0.1},
    )
    assert progress.recovery() == pytest.approx({"a": 0.75, "b": 0.5})  # c: nothing to recover
    assert progress.behind(0.6) == ["b"]
    metrics = progress.metrics()
    assert metrics["held_out/recovery"] == pytest.approx((0.3 + 0.1) / (0.4 + 0.2))
    assert metrics["held_out/reward/c"] == 0.1
    assert "held_out/recovery/c" not in metrics


def test_held_out_prompts_are_not_trained_on():
    prompts = {"one": [Prompt(str(i), "one", "find_the_word", "{}") for i in range(5)]}
    aside = recovery.set_aside(prompts, HeldOut(every=1, prompts=2))
    assert [prompt.id for prompt in aside["one"]] == ["3", "4"]
    assert [prompt.id for prompt in prompts["one"]] == ["0", "1", "2"]
    with pytest.raises(CascadeError, match=r"^held_out.prompts: 3, but one has 3 RL prompts in all; .*$"):
        recovery.set_aside(prompts, HeldOut(every=1, prompts=3))


def test_measuring_changes_nothing_in_what_is_trained_on_the_same_prompts(project: Layout):
    recipe = make_recipe(mopd={"held_out": HELD_OUT})
    run_on_policy(recipe, "mopd", project)
    measured = hash_directory(project.checkpoint("mopd"))
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20)[:-6])
    run_on_policy(make_recipe(), "mopd", project)
    assert hash_directory(project.checkpoint("mopd")) == measured


def test_recovery_is_measured_every_so_many_steps_and_the_teacher_scores_itself(project: Layout):
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    run_on_policy(make_recipe(rl={"steps": 8, "prompts": 8, "rollouts": 8}), "rl", project)
    choose_teachers(project, one="rl", two="rl")
    run_on_policy(make_recipe(mopd={"steps": 5, "held_out": HELD_OUT, "prompts": 8, "rollouts": 8}), "mopd", project)
    steps = steps_of(project, "mopd")
    assert [step for step, values in enumerate(steps) if "held_out/recovery" in values] == [0, 2, 4]
    assert steps[0]["held_out/recovery"] == 0  # The student is the start.
    assert steps[4]["held_out/recovery"] > 0.3
    assert all(step["held_out/tokens"] > 0 for step in steps[::2])


def test_a_merged_start_is_the_teachers_mean(project: Layout):
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    choose_teachers(project, one="rl", two="sft")
    run_on_policy(make_recipe(mopd={"steps": 1, "start": "merge", "optimizer": still}), "mopd", project)
    # The common start of rl and sft is sft, so the merge is rl.
    merged, teacher = (load_checkpoint(project.checkpoint(node))[0].state_dict() for node in ("mopd", "rl"))
    for name, value in merged.items():
        torch.testing.assert_close(value, teacher[name], atol=1e-6, rtol=1e-6)


def test_corrections_stop_after_as_many_measurements_as_the_recipe_says(project: Layout, monkeypatch):
    choose_teachers(project, one="rl", two="sft")
    monkeypatch.setattr(Progress, "behind", lambda self, threshold: ["one"])
    corrected: list[float] = []
    monkeypatch.setattr(
        recovery.task_vectors, "correct", lambda model, common, teachers, scale: corrected.append(scale)
    )
    corrections = {"scale": 0.2, "at_most": 2}
    run_on_policy(make_recipe(mopd={"steps": 7, "held_out": HELD_OUT, "corrections": corrections}), "mopd", project)
    assert corrected == [0.2, 0.2]
    steps = steps_of(project, "mopd")
    assert [i for i, step in enumerate(steps) if step.get("held_out/corrected/one")] == [2, 4]
    assert steps[2]["held_out/corrected/two"] == 0


def test_by_headroom_prompts_go_where_the_student_is_behind(project: Layout, monkeypatch):
    monkeypatch.setattr(
        recovery.HeldOutScores,
        "of",
        lambda self, sampler, domains: {"one": 0.5, "two": 0.5} if len(domains) == 2 else {domains[0]: scores.pop(0)},
    )
    scores = [0.5, 0.9]  # The teachers' of one and two: only two has headroom.
    settings = {"held_out": HELD_OUT, "prompts_by": "headroom", "anchor": 0.5, "prompts": 8, "steps": 2}
    run_on_policy(make_recipe(mopd=settings), "mopd", project)
    step = steps_of(project, "mopd")[0]
    assert step["rollout/prompt_share/two"] == 0.75  # Half by the mix, half by headroom.
    assert step["rollout/prompt_share/one"] == 0.25


@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_it_goes_on_to_the_same_bytes(project: Layout, monkeypatch, at: int):
    class Killed(Exception):
        pass

    def kill(step: int, *_: object) -> None:
        if step == at:
            raise Killed

    choose_teachers(project, one="rl", two="sft")
    monkeypatch.setattr(Progress, "behind", lambda self, threshold: ["one"])
    settings = {"held_out": HELD_OUT, "prompts_by": "headroom", "start": "merge", "corrections": {}, "steps": 4}
    recipe = make_recipe(mopd=settings)
    run_on_policy(recipe, "mopd", project)
    whole = hash_directory(project.checkpoint("mopd"))
    journal = steps_of(project, "mopd")
    with pytest.raises(Killed):
        run_on_policy(recipe, "mopd", project, kill)
    run_on_policy(recipe, "mopd", project)
    assert hash_directory(project.checkpoint("mopd")) == whole
    resumed = steps_of(project, "mopd")
    for name in ("held_out/reward/one", "rollout/prompt_share/one", "rollout/reward", "train/loss"):
        assert [step.get(name) for step in resumed] == [step.get(name) for step in journal]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts_by": "headroom"}, "prompts_by: headroom is measured on held-out prompts"),
        ({"corrections": {}}, "corrections: decided by held-out prompts"),
        ({"start": "merge", "lora": {"rank": 2}}, "lora: adapters train on the weights of init"),
        ({"domain_weights": "share"}, "domain_weights: share is for aggregation: token"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(mopd=settings)


def test_teachers_of_an_earlier_run_have_no_common_start_here(project: Layout):
    choose_teachers(project, one="rl", two="sft")
    path = project.decision("choose")
    path.write_text(path.read_text().replace('"node": "rl"', '"node": "rl@abc"'))
    with pytest.raises(RecipeError, match=r"^teacher rl@abc: of an earlier run, .*$"):
        run_on_policy(make_recipe(mopd={"start": "merge"}), "mopd", project)
