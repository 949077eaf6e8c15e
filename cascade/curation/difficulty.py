"""Pass rate of a reference checkpoint: prompts that it always or never solves teach little."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

from transformers import PreTrainedTokenizerBase

from cascade import environments
from cascade.curation.rows import Candidate
from cascade.errors import RowError
from cascade.recipe import Difficulty, Rollout
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Driver, RolloutRequest, RolloutResult
from cascade.utils.seeds import derive_seed

PROMPTS = 64
"""Prompts sampled at once."""


class DifficultyFilter:
    """Sets `pass_rate`, the mean reward of the rollouts that could be judged.

    Errors: `too_hard`, `too_easy`, `unsolved` (all but the share that is kept), `undecided` (no rollout could be
    judged).
    """

    def __init__(
        self,
        settings: Difficulty,
        rollout: Rollout,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        threads: int,
    ):
        self._settings = settings
        self._rollout = rollout
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._seed = seed
        self._threads = threads

    def check(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        with ThreadPoolExecutor(self._threads) as pool:
            driver = Driver(self._sampler, self._tokenizer, pool, self._rollout, together=False, judge_unfinished=True)
            return [
                self._judge(row, results)
                for at in range(0, len(rows), PROMPTS)
                for row, results in self._rollouts(driver, rows[at : at + PROMPTS])
            ]

    def _rollouts(self, driver: Driver, rows: Sequence[Candidate]) -> list[tuple[Candidate, list[RolloutResult]]]:
        requests = []
        for row in rows:
            assert row.gym is not None
            assert row.environment is not None
            seeds = [derive_seed(self._seed, "difficulty", row.id, i) for i in range(self._settings.rollouts)]
            requests.append(RolloutRequest(row.gym, environments.get(row.environment), seeds))
        return list(zip(rows, driver.run(requests).groups, strict=True))

    def _judge(self, row: Candidate, results: Sequence[RolloutResult]) -> RowError | None:
        rewards = [r.verdict.reward for r in results if r.verdict is not None and r.verdict.reward is not None]
        if not rewards:
            return RowError("undecided", f"none of {len(results)} rollouts could be judged")
        row.pass_rate = sum(rewards) / len(rewards)
        if row.pass_rate < self._settings.minimum:
            return RowError("too_hard", f"pass rate {row.pass_rate:.2f}, below {self._settings.minimum:g}")
        if row.pass_rate > self._settings.maximum:
            return RowError("too_easy", f"pass rate {row.pass_rate:.2f}, above {self._settings.maximum:g}")
        draw = Random(derive_seed(self._seed, "difficulty", row.id, "unsolved")).random()
        if row.pass_rate == 0 and draw >= self._settings.keep_unsolved:
            return RowError("unsolved", f"solved by none; {self._settings.keep_unsolved:g} of such prompts are kept")
        return None
