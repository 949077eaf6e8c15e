"""The environments by name, and how a row finds its own: by our name or by NeMo Gym's."""

import importlib

from cascade.chat import Row
from cascade.environments.base import Environment
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
}


def names() -> list[str]:
    return sorted(MODULES)


def get(name: str) -> Environment:
    """Raises CascadeError naming the known ones."""
    if name not in MODULES:
        raise CascadeError(f"unknown environment {name!r}; known: {', '.join(names())}")
    return importlib.import_module(MODULES[name]).ENVIRONMENT


def environment_of(row: Row) -> Environment:
    """The environment a row asks for, in our field or in NeMo Gym's. Raises RowError (`no_environment`)."""
    for asked in _named(row):
        if asked in MODULES:
            return get(asked)
        for name in names():
            if any(asked.startswith(alias) for alias in get(name).gym_names):
                return get(name)
        raise RowError("no_environment", f"no environment here is called {asked!r}; known: {', '.join(names())}")
    raise RowError("no_environment", "the row names no environment (environment, environment_name or agent_ref)")


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
