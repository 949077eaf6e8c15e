"""Two runs side by side: scores, settings, data, costs. `cascade compare`."""

from cascade.compare.facts import Comparison, compare
from cascade.compare.text import as_text

__all__ = ["Comparison", "as_text", "compare"]
