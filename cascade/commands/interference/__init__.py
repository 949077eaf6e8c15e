"""The effect of RL on one domain on every other, measured from one start, and the order of stages that it suggests."""

from cascade.commands.interference.run import measure

__all__ = ["measure"]
