import pytest
import torch
from safetensors.torch import load_file

from cascade.errors import CascadeError, RecipeError
from cascade.layout import Layout
from cascade.policy.checkpoint import load_checkpoint
from cascade.recipe import Recipe
from cascade.training import off_policy
from cascade.training.off_policy import accepted, run_off_policy
from cascade.training.on_policy import run_on_policy
from tests.training.miniature import OPTIMIZER, choose_teachers, make_recipe, prompt_rows, write_rows
from tests.training.test_on_policy import steps_of

NODE = {
    "init": "sft",
    "round": 2,
    "teachers": "choose",
    "mix": {"one": 0.5, "two": 0.5},
    "prompts": 20,
    "rollouts": 4,
    "rollout": {"max_new_tokens": 5, "thinking": False},
    "epochs": 3.0,
    "batch": 8,
    "optimizer": OPTIMIZER,
    "checkpoint_every": 1,
}


def recipe_with(**changes) -> Recipe:
    raw = make_recipe().model_dump(mode="json")
    return Recipe.model_validate({**raw, "off_policy": {"copy": NODE | changes}})


@pytest.fixture
def taught(project: Layout) -> Layout:
    """Both domains want w3, which their teacher writes, and then ends."""
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    run_on_policy(make_recipe(rl={"steps": 16, "prompts": 8, "rollouts": 16, "overlong": "zero"}), "rl", project)
    choose_teachers(project, one="rl", two="rl")
    return project


def test_the_student_learns_what_its_teachers_answer(taught: Layout):
    run_off_policy(recipe_with(), "copy", taught)
    steps = steps_of(taught, "copy")
    assert steps[-1]["train/loss"] < 0.5 * steps[0]["train/loss"]
    assert steps[0]["rollout/accepted/one"] > 0.8
    assert steps[0]["rollout/tokens"] > 20 * 4
    # A step sees each answer that was accepted about three times in all.
    answers = sum(steps[0][f"rollout/accepted/{domain}"] * 40 for domain in ("one", "two"))
    assert len(steps) == round(3.0 * answers / 8)


def test_answers_below_the_reward_are_left_out():
    rows = [{"reward": reward} for reward in (1.0, 0.5, None, 0.0)]
    assert accepted(rows, 1.0) == rows[:1]
    assert accepted(rows, 0.5) == rows[:2]


def test_without_a_good_answer_the_node_stops(project: Layout):
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="never"))
    with pytest.raises(CascadeError, match=r"^copy: no answer of a teacher has a reward of 1; lower min_reward$"):
        run_off_policy(recipe_with(), "copy", project)


@pytest.mark.parametrize("start", ["init", "merge"])
def test_killed_it_goes_on_with_the_same_answers_and_the_same_bytes(taught: Layout, monkeypatch, start):
    class Killed(Exception):
        pass

    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    run_off_policy(recipe_with(start=start), "copy", taught)
    whole = load_file(taught.checkpoint("copy") / "model.safetensors")
    with pytest.raises(Killed):
        run_off_policy(recipe_with(start=start), "copy", taught, kill)
    monkeypatch.setattr(off_policy, "sample_answers", lambda *_: pytest.fail("sampled again"))
    run_off_policy(recipe_with(start=start), "copy", taught)
    torch.testing.assert_close(load_file(taught.checkpoint("copy") / "model.safetensors"), whole, rtol=0, atol=0)


def test_it_starts_from_the_teachers_merge(taught: Layout):
    begun = []
    choose_teachers(taught, one="rl", two="sft")
    still = OPTIMIZER | {"learning_rate": 1e-9, "weight_decay": 0.0}
    recipe = recipe_with(start="merge", merge_scale=0.5, optimizer=still)
    run_off_policy(recipe, "copy", taught, lambda _, policy, __: begun.append(policy.model.state_dict()))
    teacher, start = (load_checkpoint(taught.checkpoint(node))[0].state_dict() for node in ("rl", "sft"))
    for name, value in begun[0].items():
        torch.testing.assert_close(value, (teacher[name] + start[name]) / 2, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="merge_scale: is for start: merge; say so, or take it out"):
        recipe_with(merge_scale=0.5)


def test_it_is_a_node_of_the_graph():
    recipe = recipe_with()
    assert recipe.parents("copy") == ["sft", "choose"]
    assert recipe.kind("copy") == "off_policy"
    assert recipe.teachers_chosen_by("copy") == "choose"
    assert list(recipe.training).index("rl") < list(recipe.training).index("copy")
    with pytest.raises(RecipeError, match=r"^off_policy.copy.teachers: no such node 'x'; have choose$"):
        recipe_with(teachers="x")
    with pytest.raises(RecipeError, match=r"^off_policy.copy.round: 1; a distillation opens the round after .*$"):
        recipe_with(round=1)
