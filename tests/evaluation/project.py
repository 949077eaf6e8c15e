"""A project with finished evaluations, written as `evaluate` writes them, without a model."""

from cascade.evaluation.results import (
    EvaluationResult,
    prompt_results,
    record,
    summarise,
    write_prompts,
    write_rollouts,
)
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import evaluation_journal
from cascade.utils.files import hash_directory, write_atomic, write_json

DOMAINS = ("one", "two")
GATE = {
    "round": 2,
    "candidate": "mopd",
    "against": ["sft", "rl"],
    "budget": 0,
    "registered_name": "miniature",
    "alias": "champion",
}


OPTIMIZER = {"learning_rate": 0.01}
ON_POLICY = {
    "mix": {"one": 0.5, "two": 0.5},
    "steps": 4,
    "prompts": 4,
    "rollouts": 4,
    "rollout": {"max_new_tokens": 5},
    "optimizer": OPTIMIZER,
}


REPAIR = {"init": "mopd", "reads_round": 2, "round": 3, "against": ["sft", "rl"], "budget": 0, **ON_POLICY}


def recipe_with_repair(**repair: object) -> Recipe:
    """sft → rl → mopd → mend: the check of mopd."""
    raw = recipe_with_gate().model_dump(mode="json")
    return Recipe.model_validate({**raw, "repair": {"mend": {**REPAIR, **repair}}})


def recipe_with_gate(**gate: object) -> Recipe:
    """sft → rl → mopd → release, over the domains `one` and `two`."""
    sources = {d: {"generator": "mcqa", "domain": d, "sft": 1, "rl": 1, "benchmark": 1} for d in DOMAINS}
    return Recipe.model_validate(
        {
            "name": "miniature",
            "family": "miniature",
            "threads": 1,
            "curation": {"sources": sources, "max_tokens": 12, "sequence_length": 12},
            "sft": {"sft": {"init": "base", "round": 1, "epochs": 1.0, "batch": 1, "optimizer": OPTIMIZER}},
            "rl": {"rl": {"init": "sft", "round": 1, **ON_POLICY}},
            "teachers": {"choose": {"round": 1, "candidates": ["sft", "rl"]}},
            "distill": {"mopd": {"init": "rl", "round": 2, "teachers": "choose", **ON_POLICY}},
            "repair": {},
            "evaluation": {"rollouts": 4, "rollout": {"max_new_tokens": 5, "thinking": False}},
            "gate": {"release": {**GATE, **gate}},
        }
    )


def make_node(layout: Layout, node: str, content: str | None = None) -> str:
    """A stand-in for a checkpoint; returns its hash."""
    write_atomic(layout.checkpoint(node) / "config.json", content or f'{{"node": "{node}"}}')
    return hash_directory(layout.checkpoint(node))


def write_evaluation(
    layout: Layout, node: str, rewards: dict[str, list[list[float | None]]], checkpoint: str | None = None
) -> None:
    """`rewards[domain][prompt][rollout]`; None is a verdict that failed."""
    lines = [
        {
            "domain": domain,
            "prompt_id": f"{domain}-{prompt}",
            "rollout": rollout,
            "reward": reward,
            "failure": "timeout" if reward is None else None,
            "reason": "",
            "length": 3,
            "finished": True,
            "prompt": f"question {prompt}",
            "response": f"answer <b>{rollout}</b>",
        }
        for domain, prompts in rewards.items()
        for prompt, of_prompt in enumerate(prompts)
        for rollout, reward in enumerate(of_prompt)
    ]
    result = EvaluationResult(node, checkpoint or make_node(layout, node), prompt_results(lines))
    directory = layout.evaluation(node)
    write_rollouts(directory / "rollouts.parquet", lines)
    write_prompts(directory / "prompts.csv", result.domains)
    write_json(directory / "summary.json", summarise(result, lines, len(next(iter(rewards.values()))[0])))
    inputs = {"checkpoint": result.checkpoint, "benchmarks": {d: len(p) for d, p in rewards.items()}}
    write_json(directory / "manifest.json", {"node": node, "inputs": inputs, "checkpoint": result.checkpoint})
    record(evaluation_journal(layout, node), layout, node)


def share(solved: int, prompts: int = 40, rollouts: int = 4) -> list[list[float]]:
    """Rewards of a domain in which the first `solved` prompts are always solved and the others never."""
    return [[float(prompt < solved)] * rollouts for prompt in range(prompts)]
