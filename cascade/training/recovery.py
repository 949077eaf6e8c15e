"""Recovery of each domain on held-out prompts, measured while a distillation trains."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from cascade import environments
from cascade.errors import CascadeError
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe import Distillation, HeldOut
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Driver, RolloutRequest
from cascade.training.metrics import Metrics
from cascade.training.prompts import Prompt
from cascade.training.teacher_scoring import Teacher
from cascade.utils import distributed
from cascade.utils.seeds import derive_seed

MIN_GAP = 0.02
"""What a domain must lie below its teacher, in reward, to have something to recover."""

Scores = dict[str, float]
"""Domain → mean reward."""


@dataclass
class Progress:
    """Held-out scores so far: of the node's `init`, of the teachers, and the student's last."""

    before: Scores = field(default_factory=dict)
    teacher: Scores = field(default_factory=dict)
    student: Scores = field(default_factory=dict)

    def recovery(self) -> Scores:
        """Domain → recovery rate, where its teacher is better than `before` by `MIN_GAP`."""
        return {
            domain: (self.student[domain] - before) / (self.teacher[domain] - before)
            for domain, before in self.before.items()
            if self.teacher[domain] - before >= MIN_GAP
        }

    def metrics(self) -> Metrics:
        """By domain, and the recovery of all: the gaps closed over the gaps."""
        rates = self.recovery()
        closed = sum(self.student[domain] - self.before[domain] for domain in rates)
        gaps = sum(self.teacher[domain] - self.before[domain] for domain in rates)
        return {
            **{f"held_out/reward/{domain}": score for domain, score in self.student.items()},
            **{f"held_out/recovery/{domain}": rate for domain, rate in rates.items()},
            **({"held_out/recovery": closed / gaps} if rates else {}),
        }


def set_aside(prompts: dict[str, list[Prompt]], settings: HeldOut) -> dict[str, list[Prompt]]:
    """Take each domain's last prompts out of `prompts` and return them.

    Raises CascadeError where none would be left to train on.
    """
    held_out = {}
    for domain, rows in prompts.items():
        if len(rows) <= settings.prompts:
            raise CascadeError(
                f"held_out.prompts: {settings.prompts}, but {domain} has {len(rows)} RL prompts in all; "
                "curate more, or hold out fewer"
            )
        held_out[domain] = rows[-settings.prompts :]
        prompts[domain] = rows[: -settings.prompts]
    return held_out


class HeldOutScores:
    """Samples and judges the held-out prompts, with the same seeds each time, so that scores compare."""

    def __init__(
        self,
        prompts: dict[str, list[Prompt]],
        node: Distillation,
        tokenizer: PreTrainedTokenizerBase,
        pool: ThreadPoolExecutor,
        *keys: int | str,
    ):
        self._prompts = prompts
        assert node.held_out is not None
        self._rollouts = node.held_out.rollouts
        self._driver = (tokenizer, pool, node.rollout)
        self._keys = keys
        self._tokens = 0

    def of(self, sampler: Sampler, domains: list[str]) -> Scores:
        """Mean reward by domain, each response judged by itself, as in benchmarks. A rollout without a verdict does
        not count. Raises CascadeError where a domain has no verdict at all."""
        prompts = distributed.shard([prompt for domain in domains for prompt in self._prompts[domain]])
        requests = [
            RolloutRequest(
                prompt.row,
                environments.get(prompt.environment),
                [derive_seed(*self._keys, "held-out", prompt.id, i) for i in range(self._rollouts)],
            )
            for prompt in prompts
        ]
        driver = Driver(sampler, *self._driver, together=False, judge_unfinished=True)
        groups = driver.run(requests).groups
        rows: list[list[tuple[str, float | None, int]]] = distributed.gather_shards(
            [
                [(p.domain, r.verdict.reward if r.verdict else None, r.transcript.length) for r in group]
                for p, group in zip(prompts, groups, strict=True)
            ]
        )
        found: dict[str, list[float]] = {domain: [] for domain in domains}
        for group in rows:
            for domain, reward, length in group:
                self._tokens += length
                if reward is not None:
                    found[domain].append(reward)
        for domain, rewards in found.items():
            if not rewards:
                raise CascadeError(f"held-out prompts of {domain}: no rollout has a verdict; check the verifier")
        return {domain: sum(rewards) / len(rewards) for domain, rewards in found.items()}

    def taken_tokens(self) -> int:
        """Tokens sampled since the last call."""
        tokens, self._tokens = self._tokens, 0
        return tokens


class RecoveryMonitor:
    """Measures recovery while a distillation trains, every `held_out.every` steps."""

    def __init__(
        self, node: Distillation, scores: HeldOutScores, teachers: dict[str, Teacher], saved: dict[str, Any] | None
    ):
        assert node.held_out is not None
        self._node = node
        self._every = node.held_out.every
        self._scores = scores
        self._teachers = teachers
        self._progress = Progress(**saved) if saved else Progress()

    def measure_ends(self, policy: Policy, sampler: Sampler) -> None:
        """Score the node's `init`, whose weights `policy` has, and the teachers. The sampler then has other weights.
        Nothing where the node was resumed."""
        if self._progress.before:
            return
        sampler.refresh(policy)
        self._progress.before = self._scores.of(sampler, list(self._teachers))
        for teacher in {teacher.hash: teacher for teacher in self._teachers.values()}.values():
            domains = [domain for domain, other in self._teachers.items() if other.hash == teacher.hash]
            sampler.refresh(make_policy(self._node.engine, teacher.checkpoint, None, parallel=self._node.parallel))
            self._progress.teacher |= self._scores.of(sampler, domains)

    def step(self, step: int, sampler: Sampler) -> Metrics:
        """Before step `step`, the sampler having the policy's weights: where it is time, measure."""
        if step % self._every:
            return {}
        self._progress.student = self._scores.of(sampler, list(self._teachers))
        return self._progress.metrics() | {"held_out/tokens": float(self._scores.taken_tokens())}

    def as_json(self) -> dict[str, Any]:
        return {"recovery": asdict(self._progress)}
