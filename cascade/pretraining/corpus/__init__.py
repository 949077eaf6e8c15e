"""What the base model reads beside the environments' own tasks: later domains and plain English.

Rows have the shape of the environments' nano tasks (`cascade.environments.base`). Single-turn rows carry
`demonstration`, episodes `messages`, plain documents `text`. Every generator raises CascadeError for a level
outside 1 to 5.
"""

from collections.abc import Callable, Iterator

from cascade.chat import Row
from cascade.pretraining.corpus import facts, stories, tool_dialogues

GENERATORS: dict[str, Callable[[int, int, int], Iterator[Row]]] = {
    "swe_agentic": tool_dialogues.generate,
    "text": facts.generate,
    "stories": stories.generate,
}
"""By source: `generate(count, seed, level)`."""
