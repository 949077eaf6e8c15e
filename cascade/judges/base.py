"""Interfaces of judges, their results and usage.

A judge that cannot decide raises a JudgeError. There is no default score: the policy would be trained on it like on any
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

from cascade.errors import CascadeError

if TYPE_CHECKING:
    from cascade.chat import Message


class JudgeError(CascadeError):
    """A request that the judge did not decide. `code` becomes the verdict's failure."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Comparison:
    """A judge's opinion of two responses, in the form of NeMo Gym's `genrm_compare`."""

    score_1: float
    """How helpful the first response is, 1 to 5."""
    score_2: float
    ranking: float
    """1: the first is much better; 6: the second is much better; 3.5: neither."""
    reasons: str = ""


class PreferenceJudge(Protocol):
    def compare(self, messages: Sequence[Message], pairs: Sequence[tuple[str, str]]) -> list[Comparison | JudgeError]:
        """Compare the responses of each pair to the conversation, in the order given, all pairs at once.

        A comparison that failed is an error in its place; the others are unaffected.
        """
        ...


class AnswerJudge(Protocol):
    def is_correct(self, question: str, reference: str, answer: str) -> bool:
        """Whether `answer` says what `reference` says. Raises JudgeError."""
        ...


class PatchJudge(Protocol):
    def score(self, issue: str, files: Mapping[str, str], patch: str) -> float:
        """How likely it is, in [0, 1], that `patch` (a unified diff of `files`, {path: text}) resolves the issue and
        breaks nothing. Raises JudgeError."""
        ...


class ProofJudge(Protocol):
    def grade(self, problem: str, proof: str) -> float:
        """The proof's grade in [0, 1]. Raises JudgeError."""
        ...


@dataclass
class Usage:
    """Usage of judge models."""

    requests: int = 0
    """Requests sent, retries included."""
    retries: int = 0
    failures: int = 0
    """Requests without a decision after their last retry."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Summed over requests, also over concurrent ones."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests ({self.retries:,} retries, {self.failures:,} failures), "
            f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens, {self.seconds:,.1f} s"
        )
