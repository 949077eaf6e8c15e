"""Recovery of each domain on held-out prompts while a distillation trains, and what follows from it: the shares of the
prompts and corrections along task vectors."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from cascade import environments
from cascade.errors import CascadeError
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe import Distillation, DistillNode, HeldOut
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Driver, RolloutRequest
from cascade.training import task_vectors
from cascade.training.metrics import Metrics
from cascade.training.prompts import Prompt, PromptSource
from cascade.training.teacher_scoring import Teacher
from cascade.utils import distributed
from cascade.utils.seeds import derive_seed

MIN_GAP = 0.02
"""What a domain must lie below its teacher, in reward, to have something to recover."""

Scores = dict[str, float]
"""Domain → mean reward."""


def headroom_shares(mix: dict[str, float], student: Scores, teacher: Scores, anchor: float) -> dict[str, float]:
    """Domain → share of the prompts: `anchor` by the mix, the rest in proportion to max(teacher - student, 0). The mix
    where no teacher is better."""
    headroom = {domain: max(0.0, teacher[domain] - student[domain]) for domain in mix}
    total = sum(headroom.values())
    if total == 0:
        return mix
    return {domain: anchor * share + (1 - anchor) * headroom[domain] / total for domain, share in mix.items()}


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

    def behind(self, threshold: float) -> list[str]:
        """The domains whose recovery is at most the threshold."""
        return [domain for domain, rate in self.recovery().items() if rate <= threshold]

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
    """Measures recovery while a distillation trains, every `held_out.every` steps, and acts on it: distributes prompts
    by headroom, corrects along task vectors."""

    def __init__(
        self,
        node: Distillation,
        scores: HeldOutScores,
        teachers: dict[str, Teacher],
        common_start: Path | None,
        source: PromptSource,
        saved: dict[str, Any] | None,
    ):
        assert node.held_out is not None
        self._node = node
        self._every = node.held_out.every
        self._corrections = node.corrections if isinstance(node, DistillNode) else None
        self._scores = scores
        self._teachers = teachers
        self._common_start = common_start
        self._source = source
        self._mix = source.mix
        self._progress = Progress(**saved) if saved else Progress()
        if self._progress.student:
            self._distribute()

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

    def step(self, step: int, policy: Policy, sampler: Sampler) -> Metrics:
        """Before step `step`, the sampler having the policy's weights: where it is time, measure and act."""
        if step % self._every:
            return {}
        self._progress.student = self._scores.of(sampler, list(self._teachers))
        metrics = self._progress.metrics()
        if self._corrections is not None and 0 < step <= self._corrections.at_most * self._every:
            domains = self._progress.behind(self._corrections.threshold)
            metrics |= {f"held_out/corrected/{domain}": float(domain in domains) for domain in self._teachers}
            if domains:
                assert self._common_start is not None
                checkpoints = [self._teachers[domain].checkpoint for domain in domains]
                task_vectors.correct(policy.model, self._common_start, checkpoints, self._corrections.scale)
                sampler.refresh(policy)
        self._distribute()
        metrics["held_out/tokens"] = float(self._scores.taken_tokens())
        return metrics

    def _distribute(self) -> None:
        if self._node.prompts_by == "headroom":
            student, teacher = self._progress.student, self._progress.teacher
            self._source.mix = headroom_shares(self._mix, student, teacher, self._node.anchor)

    def as_json(self) -> dict[str, Any]:
        return {"recovery": asdict(self._progress)}
