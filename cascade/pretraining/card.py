"""The base model's card: what it was made of, how training went, what it can do, each from a measurement."""

from pathlib import Path

from cascade import chat, environments
from cascade.environments.judging import judge_text, text_of
from cascade.files import read_json, write_atomic, write_json
from cascade.policy import make_policy
from cascade.pretraining.pretrain import load_base_recipe
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_sampler import TorchSampler
from cascade.seeds import derive_seed

Scores = dict[str, dict[str, float]]


def measure(
    checkpoint: Path, levels: dict[str, list[int]], *, prompts: int, rollouts: int, max_new_tokens: int
) -> Scores:
    """Per environment and level: pass@1, pass@k over `rollouts`, and pass@1 without thinking.

    The tasks come from seeds that no training text uses.
    """
    policy = make_policy("hf", checkpoint, None, update_router=False)
    sampler = TorchSampler(policy)
    scores: Scores = {}
    for name, chosen in levels.items():
        environment = environments.get(name)
        for level in chosen:
            rows = list(environment.generate(prompts, derive_seed("card"), level))
            found: dict[str, float] = {}
            for thinking in (True, False):
                requests = [
                    SampleRequest(
                        chat.encode_prompt(policy.tokenizer, *chat.prompt_of(row), thinking=thinking),
                        derive_seed("card", row["id"], rollout),
                    )
                    for row in rows
                    for rollout in range(rollouts)
                ]
                samples = sampler.sample(requests, max_new_tokens=max_new_tokens)
                solved = []
                for index, sample in enumerate(samples):
                    row, text = rows[index // rollouts], text_of(policy.tokenizer, sample)
                    verdict = judge_text(environment, row, text, thinking=thinking, finished=sample.finished)
                    solved.append(float(verdict.reward == 1))
                groups = [solved[i : i + rollouts] for i in range(0, len(solved), rollouts)]
                if thinking:
                    found["pass@1"] = sum(solved) / len(solved)
                    found[f"pass@{rollouts}"] = sum(max(g) for g in groups) / len(groups)
                    found["tokens"] = sum(len(s.token_ids) for s in samples) / len(samples)
                else:
                    found["pass@1 without thinking"] = sum(solved) / len(solved)
            scores[f"{name} level {level}"] = {key: round(value, 3) for key, value in found.items()}
    return scores


def write_card(recipe_path: Path, checkpoint: Path, *, prompts: int = 100, rollouts: int = 8) -> Scores:
    """Measure the base model and write its README.md; the scores also go into pretraining.json."""
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
    shown = [curve[i] for i in sorted({round(k * (len(curve) - 1) / 9) for k in range(10)})]
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

| million tokens | {" | ".join(f"{point['tokens'] / 1e6:.0f}" for point in shown)} |
| --- |{" --- |" * len(shown)}
| loss | {" | ".join(f"{point['loss']:.3f}" for point in shown)} |

## What it can do

{prompts} held-out tasks a level, {rollouts} responses each, temperature 1. `tokens` is the mean length of a response.

{chr(10).join(table)}
"""
    write_atomic(checkpoint / "README.md", text)
    return scores
