"""From sources to packed conversations, RL prompts and held-out benchmarks."""

from cascade.curation.pipeline import build

__all__ = ["build"]
