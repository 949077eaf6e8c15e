"""The base model's card: training data, loss curve and scores, all measured."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cascade import environments
from cascade.policy import make_policy
from cascade.pretraining.pretrain import load_base_recipe
from cascade.recipe.sections import Rollout
from cascade.rollout.driver import Driver, RolloutRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.utils.files import read_json, write_atomic, write_json
from cascade.utils.seeds import derive_seed

Scores = dict[str, dict[str, float]]

MAX_TURNS, MAX_CONTEXT = 12, 2048
"""Limits of an episode; demonstrations have up to 9 turns and 1,000 tokens."""


def measure(
    checkpoint: Path, levels: dict[str, list[int]], *, prompts: int, rollouts: int, max_new_tokens: int
) -> Scores:
    """pass@1, pass@k for k = `rollouts`, and pass@1 without thinking, for each environment and level.

    The tasks are generated from seeds that no training text uses.
    """
    policy = make_policy("hf", checkpoint, None, update_router=False)
    sampler = TorchSampler(policy)
    scores: Scores = {}
    with ThreadPoolExecutor() as pool:
        for name, environment_levels in levels.items():
            environment = environments.get(name)
            for level in environment_levels:
                rows = list(environment.generate(prompts, derive_seed("card"), level))
                metrics: dict[str, float] = {}
                for thinking in (True, False):
                    settings = Rollout(
                        max_new_tokens=max_new_tokens,
                        thinking=thinking,
                        max_turns=MAX_TURNS,
                        max_context=MAX_CONTEXT,
                    )
                    driver = Driver(sampler, policy.tokenizer, pool, settings, together=False, judge_unfinished=True)
                    seeds = [[derive_seed("card", row["id"], rollout) for rollout in range(rollouts)] for row in rows]
                    groups = driver.run(
                        [RolloutRequest(row, environment, of_row) for row, of_row in zip(rows, seeds, strict=True)]
                    ).groups
                    solved = [[bool(a.verdict and a.verdict.reward == 1) for a in answers] for answers in groups]
                    pass_at_1 = sum(map(sum, solved)) / (prompts * rollouts)
                    if thinking:
                        metrics["pass@1"] = pass_at_1
                        metrics[f"pass@{rollouts}"] = sum(map(any, solved)) / prompts
                        lengths = [answer.transcript.length for answers in groups for answer in answers]
                        metrics["tokens"] = sum(lengths) / len(lengths)
                    else:
                        metrics["pass@1 without thinking"] = pass_at_1
                scores[f"{name} level {level}"] = {key: round(value, 3) for key, value in metrics.items()}
    return scores


def write_card(recipe_path: Path, checkpoint: Path, *, prompts: int = 100, rollouts: int = 8) -> Scores:
    """Measure the base model and write its README.md; the scores are also added to pretraining.json."""
    recipe = load_base_recipe(recipe_path)
    levels = {name: sorted(recipe.mixture[name]) for name in recipe.mixture if name in environments.names()}
    scores = measure(checkpoint, levels, prompts=prompts, rollouts=rollouts, max_new_tokens=192)
    facts = read_json(checkpoint / "pretraining.json")
    facts["scores"] = scores
    write_json(checkpoint / "pretraining.json", facts)
    columns = list(next(iter(scores.values())))
    table = [
        "| environment | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
        *(f"| {name} | " + " | ".join(f"{row[c]:.2f}" for c in columns) + " |" for name, row in scores.items()),
    ]
    curve = facts["loss"]
    points = [curve[i] for i in sorted({round(k * (len(curve) - 1) / 9) for k in range(10)})]
    text = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# {recipe.name}

A NemotronH hybrid (Mamba-2, attention, mixture of experts) of {facts["parameters"] / 1e6:.2f} million parameters,
pattern `{recipe.model["hybrid_override_pattern"]}`, with a {recipe.vocabulary:,}-token BPE tokenizer and Nemotron's
chat format. It is the start of the nano recipe: a base model of mixed habits, made to be post-trained on two CPU cores.

Made by `cascade pretrain {recipe_path.as_posix()}` on {facts["device"]} in {facts["seconds"]} s.

## Data

{facts["documents"]:,} documents ({facts["corpus_tokens"] / 1e6:.1f} million tokens) that the project generates itself:
tasks of every environment and of the later domains (code, edits, long documents, tool dialogues, conversation),
and plain text. {recipe.hasty:.0%} of the tasks are answered hastily: the reasoning breaks off and the answer is wrong
in a plausible way. {recipe.direct:.0%} are answered without reasoning. Answers count fully in the loss, what is only
read counts {recipe.training.prompt_weight}. {facts["trained_tokens"] / 1e6:.0f} million tokens were trained on, in
{recipe.training.steps:,} steps.

## Loss on answer tokens (nats)

| million tokens | {" | ".join(f"{point['tokens'] / 1e6:.0f}" for point in points)} |
| --- |{" --- |" * len(points)}
| loss | {" | ".join(f"{point['loss']:.3f}" for point in points)} |

## What it can do

{prompts} held-out tasks a level, {rollouts} responses each, temperature 1. `tokens` is the mean length of a response.

{chr(10).join(table)}
"""
    write_atomic(checkpoint / "README.md", text)
    return scores
