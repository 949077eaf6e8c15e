"""The learning rate of a step. Counted in steps, never in seconds, so results do not depend on the machine."""

import math

from cascade.recipe import Optimizer


def learning_rate(optimizer: Optimizer, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`.

    Warm-up is linear from `warmup_from` at step 0 to the peak at step `warmup_steps`. After it the rate is
    constant, or follows a half cosine that reaches `min_learning_rate` at the last step. Where the recipe gives neither
    end, both are 0 one step outside the run, so that no step is wasted on a rate of 0.
    """
    peak, warmup = optimizer.learning_rate, optimizer.warmup_steps
    if step < warmup:
        first = optimizer.first_rate
        return first + (peak - first) * step / warmup
    if optimizer.schedule == "constant":
        return peak
    last = optimizer.min_learning_rate
    progress = (step - warmup) / max(1, steps - warmup - (last is not None))
    return (last or 0.0) + (peak - (last or 0.0)) * (1 + math.cos(math.pi * progress)) / 2
