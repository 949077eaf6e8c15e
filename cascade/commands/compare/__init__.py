"""Two runs side by side: scores, settings, data, costs. `cascade compare`."""

from cascade.commands.compare.facts import Comparison, compare
from cascade.commands.compare.text import as_text

__all__ = ["Comparison", "as_text", "compare"]
