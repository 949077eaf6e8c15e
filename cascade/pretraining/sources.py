"""Where the mixture's rows come from: every environment's generator, and the corpus of plain text."""

from collections.abc import Callable, Iterator

from cascade import environments
from cascade.environments.human_preference.tasks import mixed_quality
from cascade.pretraining import corpus

Generator = Callable[[int, int, int], Iterator[dict]]


def _environment(name: str) -> Generator:
    return lambda count, seed, level: environments.get(name).generate(count, seed, level)


GENERATORS: dict[str, Generator] = {
    **{name: _environment(name) for name in environments.names()},
    # Not its demonstrations, which are all good: the base reads replies of every quality.
    "human_preference": mixed_quality,
    **corpus.GENERATORS,
}
