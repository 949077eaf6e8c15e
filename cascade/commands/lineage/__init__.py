"""Where a model comes from, and where data went: from a number to every hash behind it, and back. `cascade lineage`."""

from cascade.commands.lineage.backward import backward
from cascade.commands.lineage.forward import forward

__all__ = ["backward", "forward"]
