"""What every environment is, and how a row finds its own.

A verdict is a reward or a typed failure, never both. A wrong answer has reward 0. A failure means that the
question could not be decided (a broken row, a verifier that ran out of time): it is masked from training
and counted, because learning from it as a zero would teach noise.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cascade.chat import Response, Row
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
}


@dataclass(frozen=True)
class Verdict:
    reward: float | None
    failure: str | None = None
    """Short code of why there is no reward (`timeout`, `bad_row`, …)."""
    extracted: Any = None
    """What was read out of the response and judged."""
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.reward is None) == (self.failure is None):
            raise ValueError("a verdict has either a reward or a failure")


class Environment(ABC):
    """A domain's verifier and its nano task generator. Stateless: any number of threads may call it."""

    name: ClassVar[str]
    gym_names: ClassVar[tuple[str, ...]] = ()
    """Names under which NeMo Gym's rows and configurations know the same environment."""

    @abstractmethod
    def check_row(self, row: Row) -> None:
        """Raise RowError where `verify` could not work with this row."""

    @abstractmethod
    def verify(self, row: Row, response: Response) -> Verdict:
        """Judge one response. Never raises on what a model wrote."""

    @abstractmethod
    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Nano tasks, as Gym rows that also carry `environment`, `domain`, `level` and `demonstration`.

        `level` runs from 1 (easiest) upward; the same (seed, level) gives the same rows, and a larger count
        only appends. `demonstration` is a correct answer: `reasoning`, `content`, and `tool_calls` where the
        answer is a call.
        """


class GroupEnvironment(Environment):
    """A domain whose reward is relative: it says which rollouts of a prompt are better, not how good they are.

    Training rewards a group by `verify_group`. `verify` judges one response by itself, against something that stays
    the same from checkpoint to checkpoint; evaluation, curation and `cascade score` use it.
    """

    @abstractmethod
    def verify_group(self, row: Row, responses: Sequence[Response]) -> list[Verdict]:
        """Judge the responses to one prompt together: a verdict each, in their order. Equal responses have equal
        rewards. Never raises on what a model wrote."""


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
