"""What the base model reads beside the environments' own tasks: plain English.

Rows carry `text`, a whole document. Every generator raises CascadeError for a level outside 1 to 5.
"""

from collections.abc import Callable, Iterator

from cascade.chat import Row
from cascade.pretraining.corpus import facts, stories

GENERATORS: dict[str, Callable[[int, int, int], Iterator[Row]]] = {
    "text": facts.generate,
    "stories": stories.generate,
}
"""By source: `generate(count, seed, level)`."""
