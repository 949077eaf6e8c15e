"""One module a domain: verify(row, response) → a verdict; and a generator of nano tasks."""

from cascade.environments.base import Environment, Episode, EpisodeEnvironment, GroupEnvironment, Verdict
from cascade.environments.registry import check_level, environment_of, get, names

__all__ = [
    "Environment",
    "Episode",
    "EpisodeEnvironment",
    "GroupEnvironment",
    "Verdict",
    "check_level",
    "environment_of",
    "get",
    "names",
]
