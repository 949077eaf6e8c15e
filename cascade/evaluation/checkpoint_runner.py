"""Rollouts of a checkpoint on benchmark prompts: k for each prompt, with the same seeds for every checkpoint, so that
comparisons are paired."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from cascade import environments
from cascade.chat import prompt_of, render
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe import Evaluation, Recipe
from cascade.rollout import make_sampler
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Driver, RolloutRequest, RolloutResult
from cascade.training.prompts import Prompt
from cascade.utils.seeds import derive_seed


class CheckpointRunner:
    """A checkpoint, loaded to sample and judge rollouts."""

    def __init__(self, recipe: Recipe, engine: str, checkpoint: Path, threads: int):
        torch.set_num_threads(threads)
        self._seed = recipe.seed
        self._settings: Evaluation = recipe.evaluation
        self._policy: Policy = make_policy(engine, checkpoint, None)
        self._sampler: Sampler = make_sampler(recipe.evaluation.rollout, self._policy, threads)
        self._pool = ThreadPoolExecutor(max_workers=recipe.judging_threads)

    def run(self, prompts: list[Prompt], first: int = 0) -> list[dict[str, Any]]:
        """One row for each rollout, in the order of the prompts; rollouts of a prompt are numbered from `first`."""
        settings, tokenizer = self._settings.rollout, self._policy.tokenizer
        rows = [prompt.row for prompt in prompts]
        driver = Driver(self._sampler, tokenizer, self._pool, settings, together=False, judge_unfinished=True)
        requests = [
            RolloutRequest(
                row,
                environments.get(prompt.environment),
                [derive_seed(self._seed, "benchmark", prompt.id, first + j) for j in range(self._settings.rollouts)],
            )
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        texts = [render(tokenizer, *prompt_of(r), thinking=settings.thinking, for_generation=True) for r in rows]
        return [
            _row(prompt, text, first + rollout, result)
            for prompt, text, results in zip(prompts, texts, driver.run(requests).groups, strict=True)
            for rollout, result in enumerate(results)
        ]

    def close(self) -> None:
        self._sampler.close()
        self._pool.shutdown()


def _row(prompt: Prompt, text: str, rollout: int, result: RolloutResult) -> dict[str, Any]:
    assert result.verdict is not None
    return {
        "domain": prompt.domain,
        "prompt_id": prompt.id,
        "rollout": rollout,
        "reward": result.verdict.reward,
        "failure": result.verdict.failure,
        "reason": result.verdict.reason,
        "length": result.transcript.length,
        "finished": result.transcript.finished,
        "prompt": text,
        "response": result.text,
    }
