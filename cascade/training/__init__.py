"""Training: the SFT loop and the one on-policy loop."""

from cascade.training.on_policy import pass_on, run_on_policy
from cascade.training.sft import run_sft

__all__ = ["pass_on", "run_on_policy", "run_sft"]
