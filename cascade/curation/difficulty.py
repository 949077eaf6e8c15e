"""Pass rate of a reference checkpoint: prompts that it always or never solves teach little."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cascade import chat, environments
from cascade.curation.rows import Candidate
from cascade.environments.judging import judge_text, text_of
from cascade.errors import RowError
from cascade.recipe import Difficulty, Rollout
from cascade.rollout.base import Sample, Sampler, SampleRequest
from cascade.seeds import derive_seed

PROMPTS = 64
"""Prompts sampled at once."""


class DifficultyFilter:
    """Sets `pass_rate`, the mean reward of the rollouts that could be judged.

    Errors: `too_hard`, `too_easy`, `undecided` (no rollout could be judged).
    """

    def __init__(
        self,
        settings: Difficulty,
        rollout: Rollout,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
    ):
        self._settings = settings
        self._rollout = rollout
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._seed = seed

    def check(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        return [error for at in range(0, len(rows), PROMPTS) for error in self._batch(rows[at : at + PROMPTS])]

    def _batch(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        count = self._settings.rollouts
        requests = []
        for row in rows:
            prompt = chat.encode_prompt(self._tokenizer, row.messages, row.tools, self._rollout.thinking)
            requests += [SampleRequest(prompt, derive_seed(self._seed, "difficulty", row.id, i)) for i in range(count)]
        samples = self._sampler.sample(
            requests,
            max_new_tokens=self._rollout.max_new_tokens,
            temperature=self._rollout.temperature,
            top_p=self._rollout.top_p,
        )
        return [self._judge(row, samples[i * count : (i + 1) * count]) for i, row in enumerate(rows)]

    def _judge(self, row: Candidate, samples: Sequence[Sample]) -> RowError | None:
        assert row.gym is not None
        assert row.environment is not None
        environment = environments.get(row.environment)
        rewards = []
        for sample in samples:
            text = text_of(self._tokenizer, sample)
            thinking, finished = self._rollout.thinking, sample.finished
            reward = judge_text(environment, row.gym, text, thinking=thinking, finished=finished).reward
            if reward is not None:
                rewards.append(reward)
        if not rewards:
            return RowError("undecided", f"none of {len(samples)} rollouts could be judged")
        row.pass_rate = sum(rewards) / len(rewards)
        if row.pass_rate < self._settings.minimum:
            return RowError("too_hard", f"pass rate {row.pass_rate:.2f}, below {self._settings.minimum:g}")
        if row.pass_rate > self._settings.maximum:
            return RowError("too_easy", f"pass rate {row.pass_rate:.2f}, above {self._settings.maximum:g}")
        return None
