import pytest
import torch

from cascade.errors import CascadeError, RecipeError
from cascade.layout import Layout
from cascade.policy.checkpoint import load_checkpoint
from cascade.recipe import HeldOut
from cascade.training import recovery
from cascade.training.on_policy import run_on_policy
from cascade.training.prompts import Prompt
from cascade.training.recovery import Progress
from cascade.utils.files import hash_directory, read_json
from tests.training.miniature import choose_teachers, make_recipe, prompt_rows, write_rows
from tests.training.test_on_policy import steps_of

HELD_OUT = {"every": 2, "prompts": 6, "rollouts": 2}


def test_recovery_by_hand():
    progress = Progress(
        before={"a": 0.2, "b": 0.5, "c": 0.5},
        teacher={"a": 0.6, "b": 0.7, "c": 0.51},
        student={"a": 0.5, "b": 0.6, "c": 0.1},
    )
    assert progress.recovery() == pytest.approx({"a": 0.75, "b": 0.5})  # c: nothing to recover
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


def test_without_steps_the_checkpoint_is_the_merge(project: Layout):
    choose_teachers(project, one="rl", two="sft")
    run_on_policy(make_recipe(mopd={"steps": 0, "start": "merge", "merge_scale": 0.75}), "mopd", project)
    # The common start of rl and sft is sft.
    merged, teacher, start = (load_checkpoint(project.checkpoint(n))[0].state_dict() for n in ("mopd", "rl", "sft"))
    for name, value in merged.items():
        torch.testing.assert_close(value, start[name] + 0.75 * (teacher[name] - start[name]), atol=1e-7, rtol=1e-6)
    assert any(not torch.equal(value, start[name]) for name, value in merged.items())
    assert read_json(project.training("mopd") / "metrics.json") == {"steps": 0}
    assert steps_of(project, "mopd") == []


@pytest.mark.parametrize("at", [1, 2, 3])
def test_killed_it_goes_on_to_the_same_bytes(project: Layout, at: int):
    class Killed(Exception):
        pass

    def kill(step: int, *_: object) -> None:
        if step == at:
            raise Killed

    choose_teachers(project, one="rl", two="sft")
    recipe = make_recipe(mopd={"held_out": HELD_OUT, "start": "merge", "steps": 4})
    run_on_policy(recipe, "mopd", project)
    whole = hash_directory(project.checkpoint("mopd"))
    journal = steps_of(project, "mopd")
    with pytest.raises(Killed):
        run_on_policy(recipe, "mopd", project, kill)
    run_on_policy(recipe, "mopd", project)
    assert hash_directory(project.checkpoint("mopd")) == whole
    resumed = steps_of(project, "mopd")
    for name in ("held_out/reward/one", "held_out/recovery", "rollout/reward", "train/loss"):
        assert [step.get(name) for step in resumed] == [step.get(name) for step in journal]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: 0 leaves the weights of init as they are; give a number, or say start: merge"),
        ({"merge_scale": 0.5}, "merge_scale: is for start: merge; say so, or take it out"),
        ({"start": "merge", "lora": {"rank": 2}}, "lora: adapters train on the weights of init"),
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
