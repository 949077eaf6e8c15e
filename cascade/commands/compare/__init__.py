"""`cascade compare`: scores, settings, data and costs of two runs."""

from cascade.commands.compare.facts import Comparison, compare
from cascade.commands.compare.text import as_text

__all__ = ["Comparison", "as_text", "compare"]
