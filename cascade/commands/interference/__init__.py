"""The effect of RL on one domain on all others, measured from one checkpoint, and the order of stages that it
suggests."""

from cascade.commands.interference.run import measure

__all__ = ["measure"]
