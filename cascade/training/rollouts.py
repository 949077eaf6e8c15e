"""From prompts to judged groups: sample a group for each prompt, verify, drop zero-variance groups, refill."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from cascade import environments, judges, world
from cascade.chat import Row, encode_prompt, parse_response, prompt_of
from cascade.environments import GroupEnvironment, Verdict
from cascade.environments.judging import judge_together, text_of
from cascade.errors import CascadeError
from cascade.recipe import OnPolicyNode, RLNode
from cascade.rollout.base import Sample, Sampler, SampleRequest
from cascade.seeds import derive_seed
from cascade.training.prompts import Draw, Prompt, PromptSource


@dataclass(frozen=True)
class Rollout:
    """One response of the policy and what became of it. `reward` is None where there is none to learn from:
    the verifier failed, or the response is overlong and masked."""

    prompt: Prompt
    prompt_ids: list[int]
    sample: Sample
    text: str
    verdict: Verdict | None
    """None: not judged, because it is overlong."""
    reward: float | None


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt."""

    prompt: Prompt
    rollouts: list[Rollout]

    @property
    def rewards(self) -> list[float]:
        return [rollout.reward for rollout in self.rollouts if rollout.reward is not None]

    @property
    def zero_variance(self) -> bool:
        """No two rewards differ: nothing to prefer, so no advantage."""
        return len(set(self.rewards)) < 2


@dataclass
class Collected:
    """The groups of one step."""

    kept: list[Group] = field(default_factory=list)
    dropped: list[Group] = field(default_factory=list)
    low_best: list[Group] = field(default_factory=list)
    """Those of `dropped` that no zero variance explains: none of their rollouts is good enough."""
    refills: int = 0
    """Rounds of sampling after the first."""
    sampling_seconds: float = 0.0
    verifying_seconds: float = 0.0
    judging: judges.Usage = field(default_factory=judges.Usage)
    """What the models that judge have cost, where any did."""

    @property
    def groups(self) -> list[Group]:
        return [*self.kept, *self.dropped]

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]


@dataclass(frozen=True)
class Selection:
    """Which rollouts count. Distillation takes all: its advantage comes from the teacher, not from rewards."""

    dynamic_filtering: bool = False
    max_refills: int = 0
    overlong: Literal["zero", "mask", "keep"] = "keep"
    min_best_reward: float = 0.0

    @classmethod
    def of(cls, node: OnPolicyNode) -> "Selection":
        if isinstance(node, RLNode):
            refills = node.max_refills if node.dynamic_filtering else 0
            return cls(node.dynamic_filtering, refills, node.overlong, node.min_best_reward)
        return cls()

    def why_dropped(self, group: Group) -> Literal["zero_variance", "low_best"] | None:
        """None: the group counts."""
        if self.dynamic_filtering and group.zero_variance:
            return "zero_variance"
        if self.min_best_reward > 0 and max(group.rewards, default=0.0) <= self.min_best_reward:
            return "low_best"
        return None


class Collector:
    """Makes the groups of a step with the sampler's current weights."""

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
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._pool = pool
        self._selection = Selection.of(node)

    def collect(self, step: int) -> Collected:
        """Draw, sample and judge; under dynamic filtering, draw other prompts of the same domains in place of
        dropped groups, in a bounded number of rounds.

        Raises CascadeError when more rollouts than `max_failure_rate` have no verdict.
        """
        collected = Collected()
        draws = self._prompts.draw_step(self._node.prompts)
        while True:
            # Every process samples and judges its share of the prompts; all of them get all the groups.
            groups = world.unshare(self._judged_groups(world.share(draws), step, collected))
            why = [self._selection.why_dropped(group) for group in groups]
            dropped = [group for group, reason in zip(groups, why, strict=True) if reason]
            collected.kept += [group for group, reason in zip(groups, why, strict=True) if not reason]
            collected.dropped += dropped
            collected.low_best += [group for group, reason in zip(groups, why, strict=True) if reason == "low_best"]
            self._check_failures(collected, step)
            if not dropped or collected.refills == self._selection.max_refills:
                return collected
            collected.refills += 1
            missing = Counter(group.prompt.domain for group in dropped)
            draws = [draw for domain, count in missing.items() for draw in self._prompts.draw(domain, count)]

    def _judged_groups(self, draws: list[Draw], step: int, collected: Collected) -> list[Group]:
        began = time.perf_counter()
        settings = self._node.rollout
        rows = [draw.prompt.row for draw in draws]
        prompt_ids = [encode_prompt(self._tokenizer, *prompt_of(row), thinking=settings.thinking) for row in rows]
        # The draw's position stands for the refill round and the epoch: a prompt drawn again is sampled anew.
        requests = [
            SampleRequest(ids, derive_seed(self._seed, self._name, step, draw.prompt.id, rollout, draw.position))
            for draw, ids in zip(draws, prompt_ids, strict=True)
            for rollout in range(self._node.rollouts)
        ]
        samples = self._sampler.sample(
            requests,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        sampled = time.perf_counter()
        size = self._node.rollouts
        jobs = [job for i in range(len(draws)) for job in self._jobs(draws[i].prompt, i * size)]
        owners = [job[0] // size for job in jobs]
        judged = self._pool.map(
            self._judge,
            [draws[i].prompt for i in owners],
            [rows[i] for i in owners],
            [prompt_ids[i] for i in owners],
            [[samples[i] for i in job] for job in jobs],
        )
        rollouts = [rollout for of_job in judged for rollout in of_job]
        collected.sampling_seconds += sampled - began
        collected.verifying_seconds += time.perf_counter() - sampled
        for usage in world.gather(judges.take_usage()):
            collected.judging += usage
        return [Group(draw.prompt, rollouts[i * size : (i + 1) * size]) for i, draw in enumerate(draws)]

    def _jobs(self, prompt: Prompt, first: int) -> list[list[int]]:
        """Which of a group's rollouts, the first of them `first`, are judged in one call: all or one by one."""
        group = list(range(first, first + self._node.rollouts))
        together = isinstance(environments.get(prompt.environment), GroupEnvironment)
        return [group] if together else [[rollout] for rollout in group]

    def _judge(self, prompt: Prompt, row: Row, prompt_ids: list[int], samples: list[Sample]) -> list[Rollout]:
        texts = [text_of(self._tokenizer, sample) for sample in samples]
        thinking, overlong = self._node.rollout.thinking, self._selection.overlong
        responses = {
            i: parse_response(texts[i], thinking=thinking, finished=sample.finished)
            for i, sample in enumerate(samples)
            if sample.finished or overlong == "keep"
        }
        found = judge_together(environments.get(prompt.environment), row, list(responses.values()))
        verdicts = dict(zip(responses, found, strict=True))
        unjudged = 0.0 if overlong == "zero" else None
        return [
            Rollout(prompt, prompt_ids, sample, texts[i], verdict, verdict.reward if verdict else unjudged)
            for i, sample in enumerate(samples)
            for verdict in [verdicts.get(i)]
        ]

    def _check_failures(self, collected: Collected, step: int) -> None:
        rollouts = collected.rollouts
        failures = failure_codes(rollouts)
        if failures.total() > self._node.max_failure_rate * len(rollouts):
            codes = ", ".join(f"{code} {count}" for code, count in failures.most_common())
            raise CascadeError(
                f"{self._name}: step {step}: {failures.total()} of {len(rollouts)} rollouts have no verdict ({codes}), "
                f"above max_failure_rate {self._node.max_failure_rate}; mend the verifier or its rows, then rerun"
            )


def failure_codes(rollouts: list[Rollout]) -> Counter[str]:
    """Failed verdicts, counted by code."""
    return Counter(r.verdict.failure for r in rollouts if r.verdict is not None and r.verdict.failure is not None)


def sample_rows(rollouts: list[Rollout], step: int) -> list[dict]:
    """The best, the worst, the longest and the first failed rollout, for people to read."""
    judged = [rollout for rollout in rollouts if rollout.reward is not None]
    failed = [rollout for rollout in rollouts if rollout.verdict is not None and rollout.verdict.failure is not None]
    chosen = [("longest", max(rollouts, key=lambda r: len(r.sample.token_ids)))]
    if judged:
        chosen.insert(0, ("best", max(judged, key=lambda r: r.reward or 0.0)))
        chosen.insert(1, ("worst", min(judged, key=lambda r: r.reward or 0.0)))
    if failed:
        chosen.append(("failed", failed[0]))
    return [_readable(step, kind, rollout) for kind, rollout in chosen]


def _readable(step: int, kind: str, rollout: Rollout) -> dict:
    messages, _ = prompt_of(rollout.prompt.row)
    verdict = rollout.verdict
    return {
        "step": step,
        "kind": kind,
        "domain": rollout.prompt.domain,
        "prompt_id": rollout.prompt.id,
        "prompt": messages,
        "response": rollout.text,
        "tokens": len(rollout.sample.token_ids),
        "finished": rollout.sample.finished,
        "reward": rollout.reward,
        "failure": verdict.failure if verdict else None,
        "reason": verdict.reason if verdict else "overlong",
    }
