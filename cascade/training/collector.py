"""From prompts to judged groups: sample a group for each prompt, verify, drop zero-variance groups, refill."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from transformers import PreTrainedTokenizerBase

from cascade import environments, judges
from cascade.errors import CascadeError
from cascade.recipe import OnPolicyNode
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Driver, RolloutRequest, RolloutResult
from cascade.training.groups import Collected, Group, Rollout, failure_codes
from cascade.training.prompts import Draw, Prompt, PromptSource
from cascade.training.rollout_filter import RolloutFilter
from cascade.utils import distributed
from cascade.utils.seeds import derive_seed


class Collector:
    """Samples and judges the groups of a step with the sampler's current weights."""

    def __init__(
        self,
        node: OnPolicyNode,
        name: str,
        seed: int,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSource,
        pool: ThreadPoolExecutor,
    ):
        self._node = node
        self._name = name
        self._seed = seed
        self._source = prompts
        self._filter = RolloutFilter.of(node)
        self._driver = Driver(
            sampler,
            tokenizer,
            pool,
            node.rollout,
            together=True,
            judge_unfinished=self._filter.judges_overlong,
        )

    def collect(self, step: int) -> Collected:
        """Draw, sample and judge; under dynamic filtering, draw other prompts of the same domains in place of
        dropped groups, in a bounded number of rounds.

        Raises CascadeError when more rollouts than `max_failure_rate` have no verdict.
        """
        collected = Collected()
        draws = self._source.draw_step(self._node.prompts)
        while True:
            # Every process samples and judges its share of the prompts; all of them get all the groups.
            groups = distributed.gather_shards(self._judged_groups(distributed.shard(draws), step, collected))
            reasons = [self._filter.drop_reason(group) for group in groups]
            dropped = [group for group, reason in zip(groups, reasons, strict=True) if reason]
            collected.kept += [group for group, reason in zip(groups, reasons, strict=True) if not reason]
            collected.dropped += dropped
            collected.low_best += [group for group, reason in zip(groups, reasons, strict=True) if reason == "low_best"]
            self._check_failures(collected, f"step {step}")
            if not dropped or collected.refills == self._filter.max_refills:
                return collected
            collected.refills += 1
            missing = Counter(group.prompt.domain for group in dropped)
            draws = [draw for domain, count in missing.items() for draw in self._source.draw(domain, count)]

    def measure(self, prompts: list[Prompt]) -> list[Group]:
        """A group of each prompt, for `difficulty`. Raises CascadeError as `collect` does."""
        collected = Collected()
        draws = [Draw(prompt, 0) for prompt in prompts]
        groups = distributed.gather_shards(self._judged_groups(distributed.shard(draws), "difficulty", collected))
        collected.kept = groups
        self._check_failures(collected, "difficulty")
        return groups

    def _judged_groups(self, draws: list[Draw], step: int | str, collected: Collected) -> list[Group]:
        # The draw's position stands for the refill round and the epoch: a prompt drawn again gets other seeds.
        requests = [
            RolloutRequest(
                draw.prompt.row,
                environments.get(draw.prompt.environment),
                [
                    derive_seed(self._seed, self._name, step, draw.prompt.id, rollout, draw.position)
                    for rollout in range(self._node.rollouts)
                ],
            )
            for draw in draws
        ]
        results = self._driver.run(requests)
        collected.sampling_seconds += results.sampling_seconds
        collected.waiting_seconds += results.waiting_seconds
        for usage in distributed.gather(judges.take_usage()):
            collected.judging += usage
        return [
            Group(draw.prompt, [self._rollout(draw.prompt, result) for result in group])
            for draw, group in zip(draws, results.groups, strict=True)
        ]

    def _rollout(self, prompt: Prompt, result: RolloutResult) -> Rollout:
        reward = self._filter.reward(result.verdict)
        return Rollout(prompt, result.transcript, result.text, result.verdict, reward)

    def _check_failures(self, collected: Collected, when: str) -> None:
        rollouts = collected.rollouts
        failures = failure_codes(rollouts)
        if failures.total() > self._node.max_failure_rate * len(rollouts):
            codes = ", ".join(f"{code} {count}" for code, count in failures.most_common())
            raise CascadeError(
                f"{self._name}: {when}: {failures.total()} of {len(rollouts)} rollouts have no verdict ({codes}), "
                f"above max_failure_rate {self._node.max_failure_rate}; fix the verifier or its rows, then rerun"
            )
