"""Generators of the mixture's rows: every environment's, and those of plain text."""

from collections.abc import Callable, Iterator

from cascade import environments
from cascade.environments.human_preference.tasks import mixed_quality
from cascade.pretraining import corpus

Generator = Callable[[int, int, int], Iterator[dict]]


def _environment(name: str) -> Generator:
    return lambda count, seed, level: environments.get(name).generate(count, seed, level)


GENERATORS: dict[str, Generator] = {
    **{name: _environment(name) for name in environments.names()},
    # Instead of the environment's demonstrations, which are all good: pretraining needs replies of every quality.
    "human_preference": mixed_quality,
    **corpus.GENERATORS,
}
