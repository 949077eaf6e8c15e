"""The constraint types of instruction following, by what they look at. Importing this registers all of them."""

from cascade.environments.instruction_following.constraints import format, words
from cascade.environments.instruction_following.constraints.registry import CONSTRAINTS, bind

__all__ = ["CONSTRAINTS", "bind", "format", "words"]
