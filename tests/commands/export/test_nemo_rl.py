"""What is exported for NeMo-RL: keys that it has, values computed by hand, nothing dropped silently."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cascade import environments
from cascade.chat import Response
from cascade.commands.export import gym
from cascade.commands.export.nemo_rl import configuration, differences, export
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import HeldOut, Lora, Recipe, load
from cascade.utils.files import write_json

ROOT = Path(__file__).parents[3]
NANO = load(ROOT / "recipes" / "nano-mopd.yaml")
PAPER = load(ROOT / "recipes" / "nemotron-cascade-2-30b-a3b.yaml")
KNOWN = set((Path(__file__).parent / "nemo_rl_keys.txt").read_text().splitlines())


def leaves(prefix: str, value: Any) -> list[str]:
    if not isinstance(value, dict) or not value:
        return [prefix]
    return [leaf for key, inner in value.items() for leaf in leaves(f"{prefix}.{key}" if prefix else key, inner)]


def made(recipe: Recipe, name: str, layout: Layout) -> dict[str, Any]:
    node: Any = recipe.node(name)
    return configuration(recipe, name, node, layout, "/x.jsonl", 32768)


@pytest.mark.parametrize("recipe", [NANO, PAPER])
def test_every_key_is_one_of_theirs(recipe: Recipe, tmp_path: Path) -> None:
    for name in (*recipe.rl, *recipe.distill):
        for leaf in leaves("", made(recipe, name, Layout(tmp_path))):
            # The marks of its loader, and two dictionaries whose keys are the user's: agents, arguments of a template.
            free = leaf in ("defaults", "env._override_") or "teacher_model_by_agent_name." in leaf
            assert free or "chat_template_kwargs." in leaf or leaf in KNOWN, leaf


def test_a_stage_of_the_paper(tmp_path: Path) -> None:
    found = made(PAPER, "multi_domain_rl", Layout(tmp_path))
    grpo, policy = found["grpo"], found["policy"]
    assert (grpo["num_prompts_per_step"], grpo["num_generations_per_prompt"], grpo["max_num_steps"]) == (128, 16, 70)
    assert (grpo["use_dynamic_sampling"], grpo["dynamic_sampling_max_gen_batches"]) == (True, 3)
    assert grpo["reward_shaping"] == {"enabled": True, "stop_properly_penalty_coef": 0.0}
    assert grpo["adv_estimator"]["use_leave_one_out_baseline"] is False
    assert policy["train_global_batch_size"] == 2048
    assert policy["model_name"] == str(tmp_path / "models" / "if_rl")
    assert policy["generation"]["max_new_tokens"] == 50176
    assert policy["max_total_sequence_length"] == 50176 + 32768
    optimizer = policy["megatron_cfg"]["optimizer"]
    assert [optimizer[key] for key in ("lr", "min_lr", "adam_beta1", "adam_beta2")] == [3e-6, 3e-6, 0.9, 0.98]
    assert policy["megatron_cfg"]["freeze_moe_router"] is True
    assert found["loss_fn"]["force_on_policy_ratio"] is True
    assert found["loss_fn"]["reference_policy_kl_penalty"] == 0
    assert found["cluster"] == {"gpus_per_node": 8, "num_nodes": PAPER.place("multi_domain_rl").machines}
    assert found["env"]["nemo_gym"]["config_paths"][1:] == [
        "resources_servers/mcqa/configs/mcqa.yaml",
        "resources_servers/workplace_assistant/configs/workplace_assistant.yaml",
        "resources_servers/structured_outputs/configs/structured_outputs_json_yaml_xml_v1.yaml",
    ]


def test_rlhf_has_its_kl_and_no_filter(tmp_path: Path) -> None:
    found = made(PAPER, "rlhf", Layout(tmp_path))
    assert found["loss_fn"]["reference_policy_kl_penalty"] == 0.03
    assert found["grpo"]["use_dynamic_sampling"] is False
    assert found["policy"]["model_name"] == str(tmp_path / "models" / "mopd")


def test_mopd_of_the_paper_with_its_teachers(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    found = made(PAPER, "mopd", layout)
    assert found["grpo"]["adv_estimator"] == {"name": "opd"}
    assert found["grpo"]["async_grpo"] == {"enabled": True}
    loss = found["loss_fn"]
    assert (loss["truncated_importance_sampling_ratio_min"], loss["truncated_importance_sampling_ratio"]) == (0.5, 2.0)
    assert (loss["truncated_importance_sampling_type"], loss["disable_ppo_ratio"]) == ("icepop", True)
    assert loss["token_level_loss"] is False
    scheduler = found["policy"]["megatron_cfg"]["scheduler"]
    assert (scheduler["lr_warmup_iters"], scheduler["lr_warmup_init"]) == (30, 2e-7)
    routed = found["on_policy_distillation"]["teacher_model_by_agent_name"]
    assert routed["math_with_judge_simple_agent"] == str(tmp_path / "models" / "sft")
    assert routed["genrm_simple_agent"] == str(tmp_path / "models" / "rlhf_teacher")
    assert routed["mcqa_simple_agent"] == "???"
    assert found["on_policy_distillation"]["strict_agent_name_match"] is True

    domains = PAPER.distill["mopd"].mix
    chosen = {domain: {"checkpoint": "models/if_rl"} for domain in domains}
    chosen["math"] = {"checkpoint": "models/sft"}
    write_json(layout.decision("select_teachers"), {"teachers": chosen})
    found = made(PAPER, "mopd", layout)
    routed = found["on_policy_distillation"]["teacher_model_by_agent_name"]
    assert set(routed.values()) == {str(tmp_path / "models" / node) for node in ("sft", "if_rl")}
    # The trainer's machines, one for the sampler, one for each teacher.
    assert found["cluster"]["num_nodes"] == PAPER.place("mopd").machines + 1 + 2


def test_how_a_model_lies_over_gpus(tmp_path: Path) -> None:
    found = made(PAPER, "code_rl", Layout(tmp_path))["policy"]["megatron_cfg"]
    assert found["expert_model_parallel_size"] == 8
    assert (found["tensor_model_parallel_size"], found["context_parallel_size"]) == (1, 2)
    assert found["activation_checkpointing"] is True
    teacher = made(PAPER, "mopd", Layout(tmp_path))["on_policy_distillation"]["non_colocated_teachers"]
    split = PAPER.distill["mopd"].parallel
    assert teacher["default_teacher_cfg"]["context_parallel_size"] == split.context
    assert "expert_model_parallel_size" not in made(NANO, "if_rl", Layout(tmp_path))["policy"]["megatron_cfg"]


def test_episodes_are_as_long_as_their_context(tmp_path: Path) -> None:
    assert made(PAPER, "swe_agentic_rl", Layout(tmp_path))["policy"]["max_total_sequence_length"] == 262144 + 32768


def test_two_teachers_for_one_agent_are_refused(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    content["curation"]["sources"]["tool_calling"] |= {"generator": "mcqa"}
    recipe, layout = Recipe.model_validate(content), Layout(tmp_path)
    chosen = {domain: {"checkpoint": f"models/{domain}"} for domain in recipe.domains}
    write_json(layout.decision("select_teachers"), {"teachers": chosen})
    with pytest.raises(
        CascadeError, match="tool_calling: its teacher is not that of another domain with the agent mcqa"
    ):
        made(recipe, "mopd", layout)


def test_the_nano_recipe(tmp_path: Path) -> None:
    found = made(NANO, "if_rl", Layout(tmp_path))
    assert found["policy"]["max_total_sequence_length"] == 160 + 512
    assert found["policy"]["sequence_packing"]["train_mb_tokens"] == 8192
    assert found["grpo"]["use_dynamic_sampling"] is False
    assert found["cluster"] == {"gpus_per_node": 1, "num_nodes": 1}
    cosine = made(NANO, "mopd", Layout(tmp_path))["policy"]["megatron_cfg"]
    assert (cosine["scheduler"]["lr_decay_style"], cosine["scheduler"]["lr_decay_iters"]) == ("cosine", 40)
    assert cosine["optimizer"]["min_lr"] == 0


def test_what_has_no_counterpart_is_told() -> None:
    told = "\n".join(differences(PAPER, "swe_agentless_rl", PAPER.rl["swe_agentless_rl"]))
    assert "min_best_reward 0.5" in told
    assert "min_teaching 0.1: a run there goes on" in told
    assert "smaller by a factor of 0.968" in told  # √(15/16)
    assert "max_log_prob_gap 0.1" in told
    assert "judges.answer" in told
    changed = NANO.rl["if_rl"].model_copy(update={"difficulty": 16, "lora": Lora(rank=8)})
    told = "\n".join(differences(NANO, "if_rl", changed))
    assert "difficulty 16: nothing is measured there" in told
    assert "lora of rank 8: all weights are trained there" in told
    assert "tool_calling: no server" in "\n".join(differences(NANO, "multi_domain_rl", NANO.rl["multi_domain_rl"]))
    assert "max_refills 0: groups without variance stay" in "\n".join(differences(NANO, "if_rl", NANO.rl["if_rl"]))


def test_the_prompts_are_those_of_every_step_in_order(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    content["rl"]["if_rl"] |= {"steps": 3, "prompts": 4, "max_refills": 1, "mix": {"mcqa": 0.5, "math": 0.5}}
    content |= {"teachers": {}, "distill": {}, "gate": {}}
    del content["rl"]["multi_domain_rl"]
    recipe, layout = Recipe.model_validate(content), Layout(tmp_path)
    from cascade import environments

    for domain, environment in (("mcqa", "mcqa"), ("math", "reasoning_gym")):
        rows = list(environments.get(environment).generate(5, 0, 2))
        columns = {
            "id": [str(i) for i in range(5)],
            "environment": [environment] * 5,
            "row": list(map(json.dumps, rows)),
        }
        layout.prompts(domain).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), layout.prompts(domain))
    told = list(export(recipe, layout, tmp_path / "out", 512))
    assert told[1].endswith("if_rl.train.jsonl: 24 prompts")
    written = [json.loads(line) for line in (tmp_path / "out" / "if_rl.train.jsonl").read_text().splitlines()]
    agents = [row["agent_ref"]["name"] for row in written]
    for step in range(6):
        assert sorted(agents[4 * step : 4 * step + 4]) == ["mcqa_simple_agent"] * 2 + ["reasoning_gym_simple_agent"] * 2
    text = (tmp_path / "out" / "if_rl.yaml").read_text()
    assert yaml.safe_load(text)["data"]["train"]["data_path"] == str(tmp_path / "out" / "if_rl.train.jsonl")
    assert text.startswith("# nano-mopd: if_rl, as `cascade recipe export nemo-rl` wrote it.")


def test_a_recipe_without_such_nodes_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text())
    content |= {"teachers": {}, "distill": {}, "gate": {}, "rl": {}}
    with pytest.raises(CascadeError, match="no node of section rl or distill"):
        list(export(Recipe.model_validate(content), Layout(tmp_path), tmp_path, 1))


def test_a_node_that_only_merges_is_left_out(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "recipes" / "smollm2.yaml").read_text())
    content |= {"rl": {}, "distill": {"merge": content["distill"]["merge"]}, "gate": {}}
    content["teachers"]["select_teachers"]["candidates"] = ["sft"]
    with pytest.raises(CascadeError, match="no node of section rl or distill"):
        list(export(Recipe.model_validate(content), Layout(tmp_path), tmp_path, 1))


def test_rows_of_a_dataset_are_told_apart_by_agent() -> None:
    assert gym.served(PAPER, "tool_calling") == {"tool_calling": gym.SERVED["tool_calling"]}
    assert gym.served(PAPER, "swe_agentless") == {"swe_agentless": gym.SERVED["swe_agentless"]}
    assert gym.served(NANO, "tool_calling") == {"tool_calling": None}


def test_where_gym_s_maths_server_judges_otherwise_is_told() -> None:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    [line] = [line for line in differences(PAPER, "mopd", PAPER.distill["mopd"]) if line.startswith("math: ")]
    assert "\\boxed{5}. No, so \\boxed{32}" in line
    assert "32, the last box, here" in line
    response = "\\boxed{5}. No, so \\boxed{32}"
    # As the server does: math-verify on the whole response.
    there = parse(response, [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None)
    assert there[1] == "5,32"
    assert not verify(parse("\\boxed{32}", parsing_timeout=None), there, timeout_seconds=None)
    assert environments.get("math").verify({"expected_answer": "32"}, Response(response, None, ())).reward == 1


def test_settings_of_a_distillation_without_a_counterpart_are_listed() -> None:
    mopd = PAPER.distill["mopd"]
    told = differences(PAPER, "mopd", mopd)
    assert not [line for line in told if line.endswith("no such setting there, left out")]
    other = mopd.model_copy(update={"held_out": HeldOut(every=5), "start": "merge"})
    told = differences(PAPER, "mopd", other)
    assert "held_out: no such setting there, left out" in told
    assert "start: no such setting there, left out" in told
