"""The metrics of a step, by name: overall, and per domain with `/<domain>` appended to the name."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from cascade import environments
from cascade.environments import EpisodeEnvironment
from cascade.policy.base import StepReport
from cascade.training.batch import Batch
from cascade.training.groups import Collected, Group, Rollout, failure_codes
from cascade.training.losses import importance_weights, mismatch_kl, segment_mean

Metrics = dict[str, float]

MISMATCH = (0.5, 2.0)
"""Range of π_train/π_inf outside which a token counts as mismatched; distillation masks the same tokens by default."""


def step_metrics(report: StepReport, rate: float, seconds: float) -> Metrics:
    """Metrics of one optimizer step, of SFT or on-policy training."""
    values = {
        "train/loss": report.loss,
        "train/learning_rate": rate,
        "train/gradient_norm": report.gradient_norm,
        "train/entropy": report.scores.entropy.mean().item(),
        "train/tokens": report.tokens,
        "time/training_seconds": seconds,
        "speed/training_tokens_per_second": report.tokens / seconds,
    }
    if report.expert_load is not None:
        load = report.expert_load
        values["train/expert_load_max_over_mean"] = (load.amax(1) / load.mean(1)).mean().item()
    return values


def agreement_metrics(batch: Batch, report: StepReport) -> Metrics:
    """The mismatch of trainer and sampler on the sampled tokens, in nats; and the entropy by domain."""
    gap = (report.scores.log_probs - batch.sampler_log_probs).abs()
    weights = importance_weights(report.scores.log_probs, batch.sampler_log_probs, *MISMATCH)
    return {
        **token_means("train/log_prob_gap", gap, batch),
        "train/log_prob_gap_max": gap.max().item(),
        "train/mismatch_kl": mismatch_kl(report.scores.log_probs, batch.sampler_log_probs).mean().item(),
        **token_means("train/mismatch_share", (weights == 0).float(), batch),
        **token_means("train/entropy", report.scores.entropy, batch),
    }


def token_means(name: str, values: Tensor, batch: Batch) -> Metrics:
    """Mean of [N] per-token values, over all tokens and over each domain's."""
    domains = sorted(set(batch.domains))
    of_token = torch.tensor([domains.index(domain) for domain in batch.domains])[batch.owner]
    means = segment_mean(values, of_token, len(domains)).tolist()
    return {name: values.mean().item(), **{f"{name}/{d}": mean for d, mean in zip(domains, means, strict=True)}}


def token_spreads(name: str, values: Tensor, batch: Batch) -> Metrics:
    """Population standard deviation of [N] per-token values, over all tokens and over each domain's."""
    means = token_means(name, values, batch)
    squares = token_means(name, values.double().square(), batch)
    return {key: max(0.0, squares[key] - mean**2) ** 0.5 for key, mean in means.items()}


def rollout_metrics(collected: Collected) -> Metrics:
    """Metrics of everything sampled in a step, dropped groups included."""
    values = {
        "rollout/refills": float(collected.refills),
        "rollout/groups": float(len(collected.groups)),
        "time/sampling_seconds": collected.sampling_seconds,
        "time/verification_wait_seconds": collected.waiting_seconds,
        "speed/sampling_tokens_per_second": sum(_lengths(collected.rollouts)) / collected.sampling_seconds,
    }
    if collected.judging.requests:
        values |= {f"rollout/judge_{name}": float(amount) for name, amount in asdict(collected.judging).items()}
    for code, count in failure_codes(collected.rollouts).items():
        values[f"rollout/failure_code/{code}"] = float(count)
    dropped = {id(group) for group in collected.dropped}
    low_best = {id(group) for group in collected.low_best}
    tokens = sum(_lengths(collected.rollouts))
    for domain in ["", *sorted({group.prompt.domain for group in collected.groups})]:
        groups = [group for group in collected.groups if domain in ("", group.prompt.domain)]
        suffix = f"/{domain}" if domain else ""
        group_values = _group_metrics(groups)
        group_values["filtered"] = _share(id(group) in dropped for group in groups)
        group_values["low_best"] = _share(id(group) in low_best for group in groups)
        if domain:
            group_values["prompt_share"] = len(groups) / len(collected.groups)
            group_values["token_share"] = group_values["length"] * sum(len(group.rollouts) for group in groups) / tokens
        values |= {f"rollout/{name}{suffix}": value for name, value in group_values.items()}
    return values


def _group_metrics(groups: list[Group]) -> Metrics:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = [reward for group in groups for reward in group.rewards]
    judged_rewards = [group.rewards for group in groups if group.rewards]
    values = {
        "zero_variance": _share(group.zero_variance for group in groups),
        "truncated": _share(not rollout.transcript.finished for rollout in rollouts),
        "failures": failure_codes(rollouts).total() / len(rollouts),
        "length": sum(_lengths(rollouts)) / len(rollouts),
    }
    if any(isinstance(environments.get(group.prompt.environment), EpisodeEnvironment) for group in groups):
        values["turns"] = sum(len(rollout.transcript.turns) for rollout in rollouts) / len(rollouts)
    if qualities := [r.verdict.quality for r in rollouts if r.verdict is not None and r.verdict.quality is not None]:
        values["quality"] = sum(qualities) / len(qualities)
    if rewards:
        values["reward"] = sum(rewards) / len(rewards)
        values["solved_by_all"] = _share(min(group) == 1 for group in judged_rewards)
        values["solved_by_none"] = _share(max(group) == 0 for group in judged_rewards)
    return values


def _lengths(rollouts: list[Rollout]) -> list[int]:
    return [rollout.transcript.length for rollout in rollouts]


def _share(conditions: Iterable[bool]) -> float:
    flags = list(conditions)
    return sum(flags) / len(flags)


@dataclass(frozen=True)
class Halves:
    """The prompts of each domain in two halves, so that products of their gradients estimate squared norms."""

    domains: list[str]
    parts: list[int]
    """[R] of each rollout: 2d or 2d + 1 for domain d; rollouts of one prompt are in one half."""
    prompts: list[int]
    """Number of prompts of each part."""

    @classmethod
    def of(cls, batch: Batch) -> "Halves":
        domains = sorted(set(batch.domains))
        part_of_group: dict[int, int] = {}
        prompts = [0] * (2 * len(domains))
        for group, domain in zip(batch.groups.tolist(), batch.domains, strict=True):
            if group not in part_of_group:
                part = 2 * domains.index(domain)
                part_of_group[group] = part + (prompts[part] > prompts[part + 1])
                prompts[part_of_group[group]] += 1
        return cls(domains, [part_of_group[group] for group in batch.groups.tolist()], prompts)

    def metrics(self, products: dict[int, float]) -> Metrics:
        """Of each domain with two prompts or more: the squared norm of its gradient's expectation, and its share of
        their sum.

        With n₁ and n₂ prompts in the halves and gradients g₁ and g₂ of expectation n₁μ and n₂μ, the estimate of
        ‖(n₁ + n₂)μ‖² is (n₁ + n₂)² / (n₁n₂) · g₁ᵀg₂: unbiased, so it may be negative, and then has no share.
        """
        squares = {}
        for d, product in products.items():
            first, second = self.prompts[2 * d], self.prompts[2 * d + 1]
            squares[self.domains[d]] = (first + second) ** 2 / (first * second) * product
        total = sum(max(0.0, square) for square in squares.values())
        shares = {d: max(0.0, square) / total for d, square in squares.items()} if total > 0 else {}
        return {
            **{f"train/gradient_square/{domain}": square for domain, square in squares.items()},
            **{f"train/gradient_share/{domain}": share for domain, share in shares.items()},
        }
