import csv
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from cascade.errors import CascadeError, CheckpointError, RecipeError
from cascade.layout import Layout
from cascade.tracking import Journal
from cascade.training.on_policy import run_on_policy
from cascade.utils.files import hash_directory, read_json, read_jsonl
from tests.training.miniature import choose_teachers, make_recipe, prompt_rows, write_rows


def steps_of(layout: Layout, node: str) -> list[dict[str, float]]:
    return [entry["values"] for entry in Journal(layout.journal(node)).entries() if entry["kind"] == "metrics"]


def test_rl_raises_the_reward(project: Layout):
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    run_on_policy(make_recipe(rl={"steps": 8, "prompts": 8, "rollouts": 8}), "rl", project)
    rewards = [step["rollout/reward"] for step in steps_of(project, "rl")]
    assert rewards[0] < 0.5
    assert rewards[-1] > 0.8


def test_distillation_draws_each_domain_towards_its_teacher(project: Layout):
    run_on_policy(make_recipe(mopd={"steps": 20, "prompts": 8, "rollouts": 16}), "mopd", project)
    steps = steps_of(project, "mopd")
    for domain in ("one", "two"):
        distance = [step[f"train/reverse_kl/{domain}"] for step in steps]
        assert sum(distance[-5:]) / 5 < 0.65 * distance[0]


def test_a_student_that_is_its_own_teacher_stays_as_it_is(project: Layout):
    choose_teachers(project, one="sft", two="sft")
    no_decay = {"learning_rate": 0.02, "weight_decay": 0.0}
    run_on_policy(make_recipe(mopd={"steps": 1, "optimizer": no_decay}), "mopd", project)
    (step,) = steps_of(project, "mopd")
    assert abs(step["train/reverse_kl"]) < 1e-6
    assert step["train/gradient_norm"] < 1e-6


def test_tokens_whose_ratio_is_out_of_range_do_not_train(project: Layout, sampler):
    sampler.offset = math.log(3)
    recipe = make_recipe(mopd={"steps": 1, "rollout": {"max_new_tokens": 5, "thinking": False, "max_log_prob_gap": 9}})
    run_on_policy(recipe, "mopd", project)
    (step,) = steps_of(project, "mopd")
    assert step["train/masked_tokens"] == step["train/masked_tokens/one"] == 1
    assert step["train/gradient_norm"] == 0


def test_a_gap_between_trainer_and_sampler_stops_the_node(project: Layout, sampler):
    sampler.offset = 0.2
    before = hash_directory(project.checkpoint("rl"))
    with pytest.raises(CascadeError, match=r"^rl: step 0: trainer and sampler differ by 0.2 nats a token.*0.1;.*$"):
        run_on_policy(make_recipe(), "rl", project)
    assert not (project.work("rl") / "state.safetensors").exists()
    assert hash_directory(project.checkpoint("rl")) == before
    (step,) = steps_of(project, "rl")
    assert step["train/log_prob_gap_max"] == pytest.approx(0.2, abs=1e-4)
    assert step["train/mismatch_share"] == step["train/mismatch_share/one"] == 0


def test_tokens_on_which_trainer_and_sampler_disagree_are_counted(project: Layout, sampler):
    sampler.offset = math.log(2.1)
    lenient = {"max_new_tokens": 5, "thinking": False, "max_log_prob_gap": 9}
    run_on_policy(make_recipe(rl={"steps": 1, "rollout": lenient}), "rl", project)
    (step,) = steps_of(project, "rl")
    assert step["train/mismatch_share"] == step["train/mismatch_share/two"] == 1


def test_steps_without_any_variance_are_skipped_change_nothing_and_are_no_success(project: Layout):
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="never"))
    before = hash_directory(project.checkpoint("rl"))
    with pytest.raises(
        CascadeError, match=r"^rl: of the prompts of steps 1 to 4 0% .*100% solved by no rollout.*no step trained any"
    ):
        run_on_policy(make_recipe(rl={"min_teaching": 0}), "rl", project)
    steps = steps_of(project, "rl")
    assert [step["rollout/skipped_step"] for step in steps] == [1.0] * 4
    assert all(step["rollout/filtered"] == step["rollout/solved_by_none"] == 1 for step in steps)
    assert all("train/loss" not in step and step["rollout/refills"] == 2 for step in steps)
    assert all(step["rollout/groups"] == 4 * (1 + 2) for step in steps)
    assert hash_directory(project.checkpoint("rl")) == before
    state = load_file(project.work("rl") / "state.safetensors")
    sft = load_file(project.checkpoint("sft") / "model.safetensors")
    assert all(torch.equal(state[f"model.{name}"], value) for name, value in sft.items())
    assert not any(name.startswith("optimizer.") for name in state)


def test_refills_replace_within_the_domain_and_spare_the_other(project: Layout):
    write_rows(project.prompts("two"), prompt_rows("two", 20, word="never"))
    write_rows(project.prompts("one"), prompt_rows("one", 20, word="w3"))
    run_on_policy(make_recipe(rl={"steps": 1, "rollouts": 32}), "rl", project)
    (step,) = steps_of(project, "rl")
    assert step["rollout/filtered/one"] == 0
    assert step["rollout/filtered/two"] == 1
    assert step["rollout/groups"] == 2 + 2 * 3
    assert "train/entropy/one" in step
    assert "train/entropy/two" not in step


def test_without_dynamic_filtering_every_group_trains(project: Layout):
    write_rows(project.prompts("two"), prompt_rows("two", 20, word="never"))
    run_on_policy(make_recipe(rl={"steps": 1, "dynamic_filtering": False}), "rl", project)
    (step,) = steps_of(project, "rl")
    assert step["rollout/groups"] == 4
    assert step["rollout/refills"] == step["rollout/filtered"] == 0
    assert step["rollout/zero_variance/two"] == 1
    assert "train/entropy/two" in step


def test_failures_above_the_rate_stop_the_node_in_one_line(project: Layout):
    write_rows(project.prompts("two"), prompt_rows("two", 20, fail="timeout"))
    with pytest.raises(CascadeError, match=r"^rl: step 0: 8 of 16 rollouts have no verdict \(timeout 8\).*$"):
        run_on_policy(make_recipe(), "rl", project)


@pytest.mark.parametrize(("fail", "code"), [("timeout", "timeout"), ("raise", "verifier_error")])
def test_failures_below_the_rate_are_masked_and_counted(fail: str, code: str, project: Layout):
    write_rows(project.prompts("two"), prompt_rows("two", 20, fail=fail))
    run_on_policy(make_recipe(rl={"steps": 1, "max_failure_rate": 1.0, "dynamic_filtering": False}), "rl", project)
    (step,) = steps_of(project, "rl")
    assert step["rollout/failures/two"] == 1
    assert step[f"rollout/failure_code/{code}"] == 8
    assert "rollout/reward/two" not in step
    assert "train/entropy/two" not in step
    failed = [row for row in read_jsonl(project.training("rl") / "samples.jsonl") if row["kind"] == "failed"]
    assert failed[0]["failure"] == code
    assert failed[0]["reward"] is None


def test_distillation_learns_from_rollouts_that_no_verifier_could_judge(project: Layout):
    write_rows(project.prompts("two"), prompt_rows("two", 20, fail="timeout"))
    run_on_policy(make_recipe(mopd={"steps": 1, "max_failure_rate": 1.0}), "mopd", project)
    assert "train/reverse_kl/two" in steps_of(project, "mopd")[0]


def test_kl_is_measured_against_the_nodes_own_start(project: Layout):
    run_on_policy(make_recipe(rl={"kl": 0.03, "dynamic_filtering": False}), "rl", project)
    kl = [step["train/kl_to_start"] for step in steps_of(project, "rl")]
    assert kl[0] == pytest.approx(0, abs=1e-9)
    assert min(kl[1:]) > 1e-4


def test_a_strong_kl_term_holds_the_policy_at_its_start(project: Layout):
    for domain in ("one", "two"):
        write_rows(project.prompts(domain), prompt_rows(domain, 20, word="w3"))
    ends = []
    for kl in (0.0001, 10.0):
        recipe = make_recipe(rl={"kl": kl, "steps": 6, "dynamic_filtering": False, "prompts": 8})
        run_on_policy(recipe, "rl", project)
        ends.append(steps_of(project, "rl")[-1]["train/kl_to_start"])
    assert ends[1] < 0.3 * ends[0]


def test_sampling_other_than_what_is_trained_is_refused(project: Layout):
    recipe = make_recipe(rl={"rollout": {"max_new_tokens": 5, "temperature": 0.7}})
    with pytest.raises(RecipeError, match=r"^rl.rollout: temperature and top_p must be 1"):
        run_on_policy(recipe, "rl", project)


def test_missing_inputs_are_named(project: Layout):
    choose_teachers(project, one="sft", two="other")
    (project.checkpoint("rl") / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"models/rl: no checkpoint there; `cascade node rl` makes it"):
        run_on_policy(make_recipe(mopd={"init": "rl"}), "mopd", project)
    project.prompts("two").unlink()
    with pytest.raises(CascadeError, match=r"two.parquet: no such file; `cascade node curate` writes it"):
        run_on_policy(make_recipe(), "rl", project)


def test_results_beside_the_checkpoint(project: Layout, capsys):
    run_on_policy(make_recipe(), "rl", project)
    results = project.training("rl")
    with open(results / "steps.csv") as file:
        rows = list(csv.DictReader(file))
    journal = steps_of(project, "rl")
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    assert [float(row["rollout/reward/one"]) for row in rows] == [step["rollout/reward/one"] for step in journal]
    manifest = read_json(results / "manifest.json")
    assert manifest["checkpoint"] == hash_directory(project.checkpoint("rl"))
    assert manifest["inputs"]["parent"] == hash_directory(project.checkpoint("sft"))
    assert manifest["tokens"] == sum(step["train/tokens"] for step in journal)
    assert read_json(results / "metrics.json")["rollout/reward"] == journal[-1]["rollout/reward"]
    samples = list(read_jsonl(results / "samples.jsonl"))
    assert {row["step"] for row in samples} == {0, 2, 3}
    assert {row["kind"] for row in samples} == {"best", "worst", "longest"}
    table = read_json(results / "rollouts.json")
    assert [dict(zip(table["columns"], row, strict=True))["response"] for row in table["data"]] == [
        row["response"] for row in samples
    ]
    tables = [e for e in Journal(project.journal("rl")).entries() if e["kind"] == "artifact" and e.get("table")]
    assert tables[-1]["path"] == str((results / "rollouts.json").absolute())
    assert "rl  4/4  reward " in capsys.readouterr().err


def test_a_checkpoint_that_does_not_load_as_trained_is_not_published(project: Layout, monkeypatch):
    from cascade.policy.hf import HFPolicy

    save = HFPolicy.save

    def broken(self, directory):
        with torch.no_grad():
            self.model.lm_head.weight.mul_(-1)
            save(self, directory)
            self.model.lm_head.weight.mul_(-1)

    before = hash_directory(project.checkpoint("rl"))
    monkeypatch.setattr(HFPolicy, "save", broken)
    with pytest.raises(CheckpointError, match=r"the checkpoint loads, but its log-probabilities are .* nats off"):
        run_on_policy(make_recipe(rl={"steps": 1}), "rl", project)
    assert hash_directory(project.checkpoint("rl")) == before


def test_every_metric_is_a_finite_number(project: Layout):
    run_on_policy(make_recipe(mopd={"steps": 1}), "mopd", project)
    for name, value in steps_of(project, "mopd")[0].items():
        assert math.isfinite(value), name
        assert json.loads(json.dumps(value)) == value
