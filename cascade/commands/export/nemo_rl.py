"""Configuration for running an RL or MOPD node with NVIDIA NeMo-RL's examples/nemo_gym/run_grpo_nemo_gym.py.

Each file inherits NeMo-RL's own configuration for Nemotron 3 Nano and sets only what the recipe sets. Settings that
NeMo-RL does not have, or treats differently, are listed in comments at the top of the file. Keys are those of
github.com/NVIDIA-NeMo/RL in August 2026.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cascade.commands.export import gym
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import BASE, DistillNode, OnPolicyNode, Recipe, RLNode
from cascade.utils.files import read_json, write_atomic

DEFAULTS = "/opt/nemo-rl/examples/nemo_gym/grpo_nanov3.yaml"
"""Path in NVIDIA's container."""

TO_FILL_IN = "???"
"""OmegaConf's marker for a mandatory value that is missing."""


def export(recipe: Recipe, layout: Layout, out: Path, prompt_tokens: int) -> Iterator[str]:
    """Write OUT/NODE.yaml for every RL and MOPD node, and OUT/NODE.train.jsonl if its prompts are curated. Yields one
    line per file and per omitted node. `prompt_tokens`: length of the longest prompt; NeMo-RL limits prompt and
    response together.

    Raises CascadeError for a recipe without RL and MOPD nodes.
    """
    nodes: dict[str, RLNode | DistillNode] = {
        name: node for name, node in recipe.ordered().items() if isinstance(node, RLNode | DistillNode) and node.steps
    }
    if not nodes:
        raise CascadeError(f"{recipe.name}: no node of section rl or distill, and NeMo-RL runs no other")
    for name, node in nodes.items():
        prompts = (out / f"{name}.train.jsonl").resolve()
        text = document(recipe, name, node, layout, str(prompts), prompt_tokens)
        write_atomic(out / f"{name}.yaml", text)
        yield f"{out / f'{name}.yaml'}"
        missing = [path for domain in node.mix if not (path := layout.prompts(domain)).exists()]
        if missing:
            yield f"{prompts}: not written, for {missing[0]} is not there yet; `cascade node curate` makes it"
        else:
            yield f"{prompts}: {gym.write_prompts(recipe, name, node, layout, prompts):,} prompts"
    for name, section in recipe.ordered().items():
        if isinstance(section, DistillNode) and name not in nodes:
            yield f"{name}: left out; it merges its teachers and trains nothing"
        elif isinstance(section, OnPolicyNode) and name not in nodes:
            yield f"{name}: left out; whether a repair trains, and on whom, is decided in the run"


def document(
    recipe: Recipe, name: str, node: RLNode | DistillNode, layout: Layout, prompts: str, prompt_tokens: int
) -> str:
    """The file of one node: comments, then YAML."""
    head = [
        f"{recipe.name}: {name}, as `cascade recipe export nemo-rl` wrote it. Run from NeMo-RL's directory:",
        f"  uv run examples/nemo_gym/run_grpo_nemo_gym.py --config {name}.yaml",
        "",
        "Different there, or not to be said there:",
        *(f"- {line}" for line in differences(recipe, name, node)),
    ]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in head)
    return comment + yaml.safe_dump(configuration(recipe, name, node, layout, prompts, prompt_tokens), sort_keys=False)


def configuration(
    recipe: Recipe, name: str, node: RLNode | DistillNode, layout: Layout, prompts: str, prompt_tokens: int
) -> dict[str, Any]:
    """The node's settings, under NeMo-RL's keys."""
    place, rollout = recipe.place(name), node.rollout
    length = recipe.longest_rollout(node) + min(prompt_tokens, recipe.curation.max_tokens)
    micro_batch = max(node.optimizer.micro_batch_tokens, length)
    config: dict[str, Any] = {
        "defaults": DEFAULTS,
        "grpo": {
            "num_prompts_per_step": node.prompts,
            "num_generations_per_prompt": node.rollouts,
            "max_num_steps": node.steps,
            "max_num_epochs": node.steps,
            "val_period": 0,
            "seed": recipe.seed,
            "overlong_filtering": isinstance(node, RLNode) and node.overlong == "mask",
            "seq_logprob_error_threshold": None,
        },
        "loss_fn": {},
        "checkpointing": {
            "checkpoint_dir": f"results/{name}",
            "metric_name": None,
            "save_period": node.checkpoint_every,
        },
        "policy": {
            "model_name": str(_start(recipe, node, layout)),
            "tokenizer": {"chat_template_kwargs": {"enable_thinking": rollout.thinking}},
            "train_global_batch_size": node.prompts * node.rollouts,
            "max_total_sequence_length": length,
            "sequence_packing": {"train_mb_tokens": micro_batch, "logprob_mb_tokens": micro_batch},
            "megatron_cfg": _megatron(node),
            "max_grad_norm": node.optimizer.gradient_clip,
            "generation": {
                "max_new_tokens": rollout.max_new_tokens,
                "temperature": rollout.temperature,
                "top_p": rollout.top_p,
            },
        },
        "data": {"shuffle": False, "train": {"data_path": prompts}, "validation": None},
        # Replaces the section of the defaults, which configures servers that this run does not start.
        "env": {"_override_": True, "should_use_nemo_gym": True, "nemo_gym": _gym(recipe, node)},
        "logger": {
            "mlflow_enabled": True,
            "mlflow": {"experiment_name": recipe.family, "run_name": f"{recipe.name} {name}"},
        },
        "cluster": {"gpus_per_node": max(1, place.gpus), "num_nodes": place.machines},
    }
    if isinstance(node, RLNode):
        config["grpo"] |= _grpo(node)
        config["loss_fn"] |= _rl_loss(node)
    else:
        config["grpo"] |= {"async_grpo": {"enabled": True}, "adv_estimator": {"name": "opd"}}
        config["loss_fn"] |= _mopd_loss(node)
        teachers = _teachers(recipe, node, layout)
        config["on_policy_distillation"] = _distillation(teachers, max(1, place.gpus), _split(node))
        # In NeMo-RL trainer, sampler and each teacher run on separate machines.
        config["policy"]["generation"]["colocated"] = {
            "enabled": False,
            "resources": {"gpus_per_node": max(1, place.gpus), "num_nodes": 1},
        }
        config["cluster"]["num_nodes"] += 1 + len(set(teachers.values()))
    return config


def differences(recipe: Recipe, name: str, node: RLNode | DistillNode) -> list[str]:
    """One line for each setting of the node that NeMo-RL does not have or treats differently."""
    lines = [
        f"rollout.max_log_prob_gap {node.rollout.max_log_prob_gap:g}: no bound there that stops a run",
        f"max_failure_rate {node.max_failure_rate:g}: no count of failed verdicts there",
        "mix: by the order of the prompts in the file, so data.shuffle must stay false",
        *_defaults(node),
        "benchmarks: evaluate the checkpoint with `cascade evaluate` after converting it",
    ]
    if isinstance(node, RLNode):
        lines.append(
            "advantage: divided by the group's sample deviation (G−1) there, the population's (G) here, "
            f"so smaller by a factor of {((node.rollouts - 1) / node.rollouts) ** 0.5:.3f} there"
        )
        if node.dynamic_filtering and node.max_refills:
            lines.append(f"max_refills {node.max_refills}: the run ends there when the batch is not full by then")
        if node.dynamic_filtering and not node.max_refills:
            lines.append(
                "max_refills 0: groups without variance stay in the batch; they have no gradient, but their tokens "
                "count in the mean"
            )
        if node.min_teaching:
            lines.append(f"min_teaching {node.min_teaching:g}: a run there goes on where too few prompts teach")
        if node.difficulty:
            lines.append(f"difficulty {node.difficulty}: nothing is measured there; prompts of all levels are drawn")
        if node.min_best_reward:
            lines.append(
                f"min_best_reward {node.min_best_reward:g}: no such filter there; any group with variance counts"
            )
    else:
        lines += [
            f"{key}: no such setting there, left out"
            for key in ("held_out", "start")
            if getattr(node, key) != type(node).model_fields[key].default
        ]
        lines += [
            "on-policy: MOPD runs on asynchronous GRPO there; a rollout may be a step older than the weights",
            f"teachers: {TO_FILL_IN} until {node.teachers} has chosen, then export again; their parallelism: to be set",
        ]
    if node.lora is not None:
        lines.append(f"lora of rank {node.lora.rank}: all weights are trained there; set policy.dtensor_cfg.lora_cfg")
    if not node.rollout.thinking:
        lines.append("rollout.thinking false: set it for the policy server of NeMo Gym too")
    for domain in node.mix:
        for environment, server in gym.served(recipe, domain).items():
            if server is None:
                lines.append(
                    f"{domain}: no server of NeMo Gym is known here for its rows ({environment}); give env.nemo_gym "
                    "one, and the rows an agent_ref where they have none"
                )
            elif server.otherwise:
                lines.append(f"{domain}: {server.otherwise}")
    lines += [
        f"judges.{kind}: its address and model belong into the configuration of the server"
        for kind in recipe.judges.named
    ]
    return lines


def _start(recipe: Recipe, node: RLNode | DistillNode, layout: Layout) -> Path:
    return (layout.root / recipe.base if node.init == BASE else layout.checkpoint(node.init)).resolve()


def _defaults(node: OnPolicyNode) -> list[str]:
    if node.engine == "nemo":
        return ["parallelism beyond `parallel` (pipelines, sequences): that of the defaults, made for 30B-A3B"]
    return ["parallelism: that of the defaults, made for 30B-A3B on machines of 8 GPUs"]


def _split(node: OnPolicyNode) -> dict[str, int]:
    """Tensor and context parallelism, for engine nemo."""
    if node.engine != "nemo":
        return {}
    return {
        "tensor_model_parallel_size": node.parallel.tensor,
        "context_parallel_size": node.parallel.context,
    }


def _megatron(node: OnPolicyNode) -> dict[str, Any]:
    rate = node.optimizer
    cosine = rate.schedule == "cosine"
    experts = {
        "expert_model_parallel_size": node.parallel.expert,
        "activation_checkpointing": node.parallel.checkpoint_activations,
    }
    return {
        **_split(node),
        **(experts if node.engine == "nemo" else {}),
        "freeze_moe_router": not node.update_router,
        **({} if node.update_router else {"moe_router_bias_update_rate": 0.0}),
        "optimizer": {
            "lr": rate.learning_rate,
            "min_lr": (rate.min_learning_rate or 0.0) if cosine else rate.learning_rate,
            "weight_decay": rate.weight_decay,
            "adam_beta1": rate.betas[0],
            "adam_beta2": rate.betas[1],
        },
        "scheduler": {
            "lr_decay_style": rate.schedule,
            "lr_decay_iters": node.steps if cosine else None,
            "lr_warmup_iters": rate.warmup_steps,
            "lr_warmup_init": rate.first_rate if rate.warmup_steps else 0.0,
        },
    }


def _grpo(node: RLNode) -> dict[str, Any]:
    config: dict[str, Any] = {
        "normalize_rewards": True,
        "use_leave_one_out_baseline": False,
        "use_dynamic_sampling": node.dynamic_filtering and node.max_refills > 0,
        # NeMo-RL's advantage estimator reads the two settings again from its own section.
        "adv_estimator": {"name": "grpo", "normalize_rewards": True, "use_leave_one_out_baseline": False},
    }
    if config["use_dynamic_sampling"]:
        config["dynamic_sampling_max_gen_batches"] = 1 + node.max_refills
    if node.overlong == "zero":
        config["reward_shaping"] = {"enabled": True, "stop_properly_penalty_coef": 0.0}
    return config


def _rl_loss(node: RLNode) -> dict[str, Any]:
    """Strictly on-policy: the importance ratio is 1, without clipping. NeMo-RL's KL term has the score-function
    gradient, as Cascade's does."""
    return {
        "reference_policy_kl_penalty": node.kl,
        "reference_policy_kl_type": "k3",
        "use_on_policy_kl_approximation": False,
        "force_on_policy_ratio": True,
        "use_importance_sampling_correction": False,
        "token_level_loss": True,
    }


def _mopd_loss(node: DistillNode) -> dict[str, Any]:
    low, high = node.importance
    return {
        "reference_policy_kl_penalty": 0.0,
        "disable_ppo_ratio": True,
        "force_on_policy_ratio": False,
        "use_importance_sampling_correction": True,
        "truncated_importance_sampling_type": "icepop",
        "truncated_importance_sampling_ratio_min": low,
        "truncated_importance_sampling_ratio": high,
        "token_level_loss": False,  # By response: 1/|V(y)|, then the mean over responses.
    }


def _gym(recipe: Recipe, node: OnPolicyNode) -> dict[str, Any]:
    servers = [server for domain in node.mix for server in gym.served(recipe, domain).values() if server is not None]
    paths = [gym.POLICY_SERVER, *dict.fromkeys(server.config for server in servers)]
    # The server asks its judge model about answers that the rule rejects. Switched off, it must still be configured.
    by_rule = {"judge_model_server": {"name": "policy_model"}, "should_use_judge": False}
    math = {"math_with_judge": {"resources_servers": {"math_with_judge": by_rule}}}
    return {"config_paths": paths, **(math if gym.SERVED["math"] in servers else {})}


def _teachers(recipe: Recipe, node: DistillNode, layout: Layout) -> dict[str, str]:
    """Agent → checkpoint of its teacher: the selected one, else the only candidate, else TO_FILL_IN."""
    decision = layout.decision(node.teachers)
    selection = read_json(decision)["teachers"] if decision.exists() else {}
    choice = recipe.teachers[node.teachers]
    teachers: dict[str, str] = {}
    for domain in node.mix:
        candidates = choice.domains.get(domain, choice.candidates)
        if domain in selection:
            checkpoint = str((layout.root / selection[domain]["checkpoint"]).resolve())
        elif len(candidates) == 1:
            checkpoint = str(layout.checkpoint(candidates[0]).resolve())
        else:
            checkpoint = TO_FILL_IN
        for server in gym.served(recipe, domain).values():
            if server is None:
                continue
            if teachers.setdefault(server.agent, checkpoint) != checkpoint:
                raise CascadeError(
                    f"{domain}: its teacher is not that of another domain with the agent {server.agent}, and NeMo-RL "
                    "tells teachers apart by agent; give one of the domains an environment of its own"
                )
    return teachers


def _distillation(teachers: dict[str, str], gpus: int, split: dict[str, int]) -> dict[str, Any]:
    return {
        "enabled": True,
        "teacher_model_by_agent_name": teachers,
        "strict_agent_name_match": True,
        "deduplicate_shared_teacher_checkpoints": True,
        "non_colocated_teachers": {
            "enabled": True,
            "default_teacher_cfg": {"num_nodes": 1, "gpus_per_node": gpus, "micro_batch_size": 1, **split},
        },
    }
