"""A checkpoint that answers benchmarks: k responses a prompt, the same seeds for every checkpoint, so that comparisons
are paired."""

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
from cascade.rollout.driver import Answer, Driver, Question
from cascade.training.prompts import Prompt
from cascade.utils.seeds import derive_seed


class CheckpointRunner:
    """A checkpoint, loaded to answer prompts."""

    def __init__(self, recipe: Recipe, engine: str, checkpoint: Path, threads: int):
        torch.set_num_threads(threads)
        self._seed = recipe.seed
        self._settings: Evaluation = recipe.evaluation
        self._policy: Policy = make_policy(engine, checkpoint, None)
        self._sampler: Sampler = make_sampler(recipe.evaluation.rollout, self._policy)
        self._pool = ThreadPoolExecutor(max_workers=recipe.judging_threads)

    def run(self, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """One line a rollout, prompts in their order."""
        settings, tokenizer = self._settings.rollout, self._policy.tokenizer
        rows = [prompt.row for prompt in prompts]
        driver = Driver(self._sampler, tokenizer, self._pool, settings, together=False, judge_unfinished=True)
        questions = [
            Question(
                row,
                environments.get(prompt.environment),
                [derive_seed(self._seed, "benchmark", prompt.id, j) for j in range(self._settings.rollouts)],
            )
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        texts = [render(tokenizer, *prompt_of(r), thinking=settings.thinking, for_generation=True) for r in rows]
        return [
            _line(prompt, text, rollout, answer)
            for prompt, text, answers in zip(prompts, texts, driver.ask(questions).groups, strict=True)
            for rollout, answer in enumerate(answers)
        ]

    def close(self) -> None:
        self._sampler.close()
        self._pool.shutdown()


def _line(prompt: Prompt, text: str, rollout: int, answer: Answer) -> dict[str, Any]:
    assert answer.verdict is not None
    return {
        "domain": prompt.domain,
        "prompt_id": prompt.id,
        "rollout": rollout,
        "reward": answer.verdict.reward,
        "failure": answer.verdict.failure,
        "reason": answer.verdict.reason,
        "length": answer.transcript.length,
        "finished": answer.transcript.finished,
        "prompt": text,
        "response": answer.text,
    }
