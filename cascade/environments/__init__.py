"""One module a domain: verify(row, response) → a verdict; and a generator of nano tasks."""

from cascade.environments.base import Environment, GroupEnvironment, Verdict, environment_of, get, names

__all__ = ["Environment", "GroupEnvironment", "Verdict", "environment_of", "get", "names"]
