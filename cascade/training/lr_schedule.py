"""The learning rate of a step. Counted in steps, never in seconds, so results do not depend on the machine."""

import math

from cascade.recipe import Optimizer


def learning_rate(optimizer: Optimizer, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`.

    Warm-up is linear from `warmup_from` at step 0 to the peak at step `warmup_steps`. After it the rate is
    constant, or follows a half cosine that reaches `min_learning_rate` at the last step.
    """
    peak = optimizer.learning_rate
    if step < optimizer.warmup_steps:
        return optimizer.warmup_from + (peak - optimizer.warmup_from) * step / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return peak
    progress = (step - optimizer.warmup_steps) / max(1, steps - 1 - optimizer.warmup_steps)
    return optimizer.min_learning_rate + (peak - optimizer.min_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
