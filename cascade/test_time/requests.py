"""What a strategy asks for, and what it is told.

A strategy is a coroutine: it yields requests, is sent a result for each, and returns its outcome. Where the search is
stopped from outside, `Stopped` is thrown into it, and it returns the outcome so far.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from cascade.environments.code.answers import Answer
from cascade.environments.competition.judging import Judgement, Trial

Role = Literal["write", "verify", "refine", "grade"]


@dataclass(frozen=True)
class Generate:
    """A response to sample. `key` names it within its problem: its seed derives from that."""

    key: str
    role: Role
    round: int
    prompt: str
    checkpoint: int = 0


@dataclass(frozen=True)
class Generated:
    """`content` is the response without its reasoning; `tokens` counts both."""

    content: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class TryOut:
    """Run a program on the samples, and on generated inputs of each subtask."""

    key: str
    round: int
    program: Answer


@dataclass(frozen=True)
class Submit:
    """Have a program judged on the hidden tests. `counted`: as a submission."""

    key: str
    round: int
    program: Answer
    counted: bool = True


Request = Generate | TryOut | Submit
Result = Generated | Trial | Judgement | None
"""None: a program could not be judged."""


@dataclass(frozen=True)
class Mark:
    """Where a search stood: what it had spent, and its best candidate then (`key`), or its score so far."""

    round: int
    generations: int
    tokens: int
    submissions: int = 0
    key: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Outcome:
    answer: str
    """Empty: none was found."""
    marks: list[Mark]
    reason: str
    """Why it ended: `accepted`, `rounds`, `budget`, `stopped`."""
    facts: dict[str, Any] = field(default_factory=dict)


class Stopped(Exception):
    """The search ends now: by the stop file, or as its time is spent."""


Search = Generator[list[Request], list[Any], Outcome]
