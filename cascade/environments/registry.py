"""The environments by name, and how a row finds its own: by our name or by NeMo Gym's."""

import importlib

from cascade.chat import Row
from cascade.environments.base import Environment, check_grading
from cascade.errors import CascadeError, RowError

MODULES = {
    "reasoning_gym": "cascade.environments.reasoning_gym",
    "math": "cascade.environments.math",
    "instruction_following": "cascade.environments.instruction_following",
    "mcqa": "cascade.environments.mcqa",
    "tool_calling": "cascade.environments.tool_calling",
    "structured_output": "cascade.environments.structured_output",
    "long_context": "cascade.environments.long_context",
    "gym_server": "cascade.environments.gym_server",
    "human_preference": "cascade.environments.human_preference",
    "code": "cascade.environments.code",
    "swe_agentless": "cascade.environments.swe_agentless",
    "swe_agentic": "cascade.environments.swe_agentic",
    "verifiers": "cascade.environments.verifiers",
    "harbor": "cascade.environments.harbor",
}

LEVELS = {
    "reasoning_gym": 4,
    "math": 3,
    "instruction_following": 3,
    "mcqa": 4,
    "tool_calling": 4,
    "structured_output": 4,
    "long_context": 5,
    "human_preference": 5,
    "code": 5,
    "swe_agentless": 5,
    "swe_agentic": 5,
}
"""Difficulty levels of each generator, from 1. Here, so that a recipe is checked without importing them; environments
that are not listed have no tasks of their own."""


def names() -> list[str]:
    return sorted(MODULES)


def check_level(name: str, level: int) -> None:
    """Raises CascadeError where the environment's generator has no such level."""
    if (levels := LEVELS.get(name, 0)) == 0:
        raise CascadeError(f"{name} has no tasks of its own; known generators: {', '.join(sorted(LEVELS))}")
    if not 1 <= level <= levels:
        raise CascadeError(f"{name} has levels 1 to {levels}; there is no level {level}")


def get(name: str) -> Environment:
    """Raises CascadeError naming the known ones."""
    if name not in MODULES:
        raise CascadeError(f"unknown environment {name!r}; known: {', '.join(names())}")
    return importlib.import_module(MODULES[name]).ENVIRONMENT


def environment_of(row: Row) -> Environment:
    """The environment a row asks for, in our field or in NeMo Gym's. Raises RowError (`no_environment`,
    `bad_grading`)."""
    check_grading(row)
    for asked in _named(row):
        if (found := called(asked)) is None:
            raise RowError("no_environment", f"no environment here is called {asked!r}; known: {', '.join(names())}")
        return found
    raise RowError("no_environment", "the row names no environment (environment, environment_name or agent_ref)")


def called(name: str) -> Environment | None:
    """The environment of this name, ours or one of NeMo Gym's: an environment or an agent whose name begins with it."""
    if name in MODULES:
        return get(name)
    known = (get(ours) for ours in names())
    return next((found for found in known if any(name.startswith(alias) for alias in found.gym_names)), None)


def renamed(row: Row, name: str) -> Row:
    """The row, naming NeMo Gym's environment `name` alone: which of an environment's rules apply depends on it."""
    others = {key: value for key, value in row.items() if key not in ("environment", "environment_name")}
    return {**others, "agent_ref": {"type": "responses_api_agents", "name": name}}


def is_named(row: Row, name: str) -> bool:
    """Whether the row names an environment, or an agent of NeMo Gym's, whose name begins with `name`."""
    return any(asked.startswith(name) for asked in _named(row))


def _named(row: Row) -> list[str]:
    agent = row.get("agent_ref")
    asked = (
        row.get("environment"),
        row.get("environment_name"),
        agent.get("name") if isinstance(agent, dict) else None,
    )
    return [str(name) for name in asked if name]
