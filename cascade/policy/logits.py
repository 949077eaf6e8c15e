"""Log-probabilities of given tokens, without materialising the logits [tokens, vocabulary] of a whole batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 2**19, "cuda": 2**26}
"""Number of logits computed at a time: on CPUs few enough for a core's cache; on GPUs enough that launches do not
matter."""
HELD = {"cpu": 2**25, "cuda": 2**28}
"""Up to so many probabilities are kept for the backward pass; more are recomputed in it."""


@dataclass(frozen=True)
class Transform:
    """Transformations of logits z that some models use: scale · z, or cap · tanh(z / cap)."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> "Transform":
        scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return cls(scale, getattr(config, "final_logit_softcapping", None))


def token_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, transform: Transform = Transform()
) -> tuple[Tensor, Tensor]:
    """log π(target) and the entropy of π, both float32 [n], in nats; π = softmax(hidden · weightᵀ).

    hidden [n, D], weight [V, D], targets [n]. Gradients flow through the log-probabilities only.
    """
    if transform.scale != 1:
        hidden = hidden * transform.scale
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _TokenLogProbs.apply(hidden, weight, targets, transform.cap)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> tuple[Tensor, Tensor]:
        ctx.cap = cap
        hold = cap is None and any(ctx.needs_input_grad) and len(hidden) * len(weight) <= HELD[hidden.device.type]
        log_probs, entropies, held = [], [], []
        for h, target in _chunks(hidden, targets, len(weight)):
            shifted, mass, total, _ = _softmax(h, weight, cap)
            log_total = total.log()
            log_probs.append(shifted.gather(1, target.unsqueeze(1)) - log_total)
            # H = log Z - Σ p · logit
            entropies.append(log_total - (mass.unsqueeze(1) @ shifted.unsqueeze(2)).squeeze(2) / total)
            if hold:
                held += [mass, total]
        ctx.save_for_backward(hidden, weight, targets, *held)
        entropy = torch.cat(entropies).squeeze(1)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(log_probs).squeeze(1), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, *held = ctx.saved_tensors
        by_hidden = torch.empty_like(hidden)
        by_weight = torch.zeros_like(weight, dtype=gradients[0].dtype)
        start = 0
        for number, (h, target) in enumerate(_chunks(hidden, targets, len(weight))):
            end = start + len(h)
            scale = -gradients[0][start:end].unsqueeze(1)
            _, mass, total, slope = (
                (None, *held[2 * number : 2 * number + 2], None) if held else _softmax(h, weight, ctx.cap)
            )
            by_logits = mass * (scale / total)
            by_logits.scatter_add_(1, target.unsqueeze(1), -scale)
            by_hidden[start:end] = _through_head(by_logits, slope, h, weight, by_weight)
            start = end
        return by_hidden, by_weight.to(weight.dtype), None, None


def token_forward_kl(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    transform: Transform = Transform(),
    teacher_transform: Transform = Transform(),
) -> tuple[Tensor, Tensor]:
    """KL(π_teacher ‖ π) over the whole vocabulary and the entropy of π, both float32 [n], in nats.

    hidden and teacher_hidden [n, D], weights [V, D]. Gradients flow through the divergence, to hidden and weight only:
    that of the logits is π - π_teacher. Nothing of size V is kept for the backward pass; it is computed again.
    """
    hidden, teacher_hidden = hidden * transform.scale, teacher_hidden * teacher_transform.scale
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, teacher_hidden, teacher_weight = (
            t.to(dtype) for t in (hidden, weight, teacher_hidden, teacher_weight)
        )
    caps = transform.cap, teacher_transform.cap
    return _TokenForwardKL.apply(hidden, weight, teacher_hidden.detach(), teacher_weight.detach(), *caps)


class _TokenForwardKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        cap: float | None,
        teacher_cap: float | None,
    ) -> tuple[Tensor, Tensor]:
        divergences, entropies = [], []
        for ours, theirs in _chunks(hidden, teacher_hidden, len(weight)):
            shifted, mass, total, _ = _softmax(ours, weight, cap)
            log_probs = shifted - total.log()
            entropies.append(-(mass * log_probs).sum(1) / total.squeeze(1))
            shifted, mass, total, _ = _softmax(theirs, teacher_weight, teacher_cap)
            divergences.append((mass * (shifted - total.log() - log_probs)).sum(1) / total.squeeze(1))
        ctx.save_for_backward(hidden, weight, teacher_hidden, teacher_weight)
        ctx.caps = cap, teacher_cap
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(divergences), entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, teacher_hidden, teacher_weight = ctx.saved_tensors
        by_hidden = torch.empty_like(hidden)
        by_weight = torch.zeros_like(weight, dtype=gradients[0].dtype)
        start = 0
        for ours, theirs in _chunks(hidden, teacher_hidden, len(weight)):
            end = start + len(ours)
            _, mass, total, slope = _softmax(ours, weight, ctx.caps[0])
            _, their_mass, their_total, _ = _softmax(theirs, teacher_weight, ctx.caps[1])
            by_logits = (mass / total - their_mass / their_total) * gradients[0][start:end].unsqueeze(1)
            by_hidden[start:end] = _through_head(by_logits, slope, ours, weight, by_weight)
            start = end
        return by_hidden, by_weight.to(weight.dtype), None, None, None, None


def _through_head(by_logits: Tensor, slope: Tensor | None, hidden: Tensor, weight: Tensor, by_weight: Tensor) -> Tensor:
    """Gradients by hidden [n, D] of those by (capped) logits [n, V], which it overwrites; those by weight are added to
    `by_weight`."""
    if slope is not None:
        by_logits *= slope
    by_logits = by_logits.to(weight.dtype)
    by_weight += by_logits.t() @ hidden
    return by_logits @ weight


def _softmax(hidden: Tensor, weight: Tensor, cap: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Logits minus their maximum [n, V], their exponentials, and the sums of these [n, 1]; at least float32. For capped
    logits also the derivative of the cap [n, V]."""
    logits = hidden @ weight.t()
    logits = logits if logits.dtype == torch.float64 else logits.float()
    slope = None
    if cap is not None:
        bent = (logits / cap).tanh()
        logits, slope = cap * bent, 1 - bent.square()
    logits -= logits.amax(-1, keepdim=True)
    mass = logits.exp()
    return logits, mass, mass.sum(-1, keepdim=True), slope


def _chunks(hidden: Tensor, targets: Tensor, vocabulary: int) -> list[tuple[Tensor, Tensor]]:
    size = max(64, CHUNK[hidden.device.type] // vocabulary)
    return list(zip(hidden.split(size), targets.split(size), strict=True))
