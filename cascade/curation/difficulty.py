"""Pass rate of a reference checkpoint: prompts that it always or never solves teach little.

The recipe's evaluation rollouts are used, with the torch engine or with vLLM, on servers too. Rates are written as
they are found, so that an interrupted run goes on from there.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cascade import environments
from cascade.chat import Row
from cascade.curation.selection import Judge, Share
from cascade.errors import RowError
from cascade.recipe import BASE, Difficulty, Recipe, Rollout
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Driver, RolloutRequest, RolloutResult
from cascade.utils.seeds import derive_seed

PROMPTS = {"torch": 64, "vllm": 1024}
"""Prompts sampled at once, by engine."""


class DifficultyFilter:
    """Finds the pass rate of prompts, the mean reward of the rollouts that could be judged.

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
        known: Path,
    ):
        """`known`: a JSON Lines file of the rates found so far; rates are added to it."""
        self._settings = settings
        self._rollout = rollout
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._seed = seed
        self._threads = threads
        self._known_path = known
        self._known = _read_rates(known)

    def check(self, rows: Sequence[tuple[str, str, Row]]) -> Iterator[tuple[RowError | None, float | None]]:
        """The error and the pass rate of each row (id, environment, the Gym row), in order; None: undecided."""
        some = PROMPTS[self._rollout.engine]
        for at in range(0, len(rows), some):
            part = rows[at : at + some]
            self._find([row for row in part if row[0] not in self._known])
            for row_id, _, _ in part:
                yield self._judge(row_id, self._known[row_id]), self._known[row_id]

    def _find(self, rows: Sequence[tuple[str, str, Row]]) -> None:
        if not rows:
            return
        requests = [
            RolloutRequest(gym, environments.get(environment), self._seeds(row_id)) for row_id, environment, gym in rows
        ]
        with ThreadPoolExecutor(self._threads) as pool:
            driver = Driver(self._sampler, self._tokenizer, pool, self._rollout, together=False, judge_unfinished=True)
            groups = driver.run(requests).groups
        self._known_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._known_path, "a", encoding="utf-8") as file:
            for (row_id, _, _), results in zip(rows, groups, strict=True):
                self._known[row_id] = rate = _rate(results)
                file.write(json.dumps([row_id, rate]) + "\n")

    def _seeds(self, row_id: str) -> list[int]:
        return [derive_seed(self._seed, "difficulty", row_id, i) for i in range(self._settings.rollouts)]

    def _judge(self, row_id: str, pass_rate: float | None) -> RowError | None:
        if pass_rate is None:
            return RowError("undecided", f"none of {self._settings.rollouts} rollouts could be judged")
        if pass_rate < self._settings.minimum:
            return RowError("too_hard", f"pass rate {pass_rate:.2f}, below {self._settings.minimum:g}")
        if pass_rate > self._settings.maximum:
            return RowError("too_easy", f"pass rate {pass_rate:.2f}, above {self._settings.maximum:g}")
        draw = Random(derive_seed(self._seed, "difficulty", row_id, "unsolved")).random()
        if pass_rate == 0 and draw >= self._settings.keep_unsolved:
            return RowError("unsolved", f"solved by none; {self._settings.keep_unsolved:g} of such prompts are kept")
        return None


def make_judge(recipe: Recipe, root: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> Judge:
    """Judges the rows of a piece with the recipe's reference checkpoint."""
    from cascade.policy import make_policy
    from cascade.rollout import make_sampler

    settings, rollout = recipe.curation.difficulty, recipe.evaluation.rollout
    assert settings is not None
    checkpoint = root / (recipe.base if settings.checkpoint == BASE else settings.checkpoint)
    sampler = make_sampler(rollout, make_policy("hf", checkpoint, None))
    known = folder / "difficulty.jsonl"
    found = DifficultyFilter(settings, rollout, sampler, tokenizer, recipe.seed, recipe.judging_threads, known)

    def judge(share: Share, rows: NDArray[np.int64]) -> Iterator[tuple[RowError | None, float | None]]:
        contents = share.made.content(rows.astype(np.uint32))
        yield from found.check([(c["id"], c["environment"], json.loads(c["content"])) for c in contents])

    return judge


def _rate(results: Sequence[RolloutResult]) -> float | None:
    rewards = [r.verdict.reward for r in results if r.verdict is not None and r.verdict.reward is not None]
    return sum(rewards) / len(rewards) if rewards else None


def _read_rates(path: Path) -> dict[str, float | None]:
    """Of a file whose last line may have been cut off."""
    rates: dict[str, float | None] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                entry: list[Any] = json.loads(line)
                rates[entry[0]] = entry[1]
    return rates
