"""What every environment is, and how a row finds its own.

A verdict is a reward or a typed failure, never both. A wrong answer has reward 0. A failure means that the
question could not be decided (a broken row, a verifier that ran out of time): it is masked from training
and counted, because learning from it as a zero would teach noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

from cascade.chat import Message, Response, Row
from cascade.errors import SandboxError

GYM_GRADING = "gym"


@dataclass(frozen=True)
class Verdict:
    reward: float | None
    failure: str | None = None
    """Short code of why there is no reward (`timeout`, `bad_row`, …)."""
    extracted: Any = None
    """What was read out of the response and judged."""
    reason: str = ""
    quality: float | None = None
    """Where the reward is relative to a group: how good the response is by itself, on its judge's scale. It is logged,
    since a mean of relative rewards says nothing about the policy."""

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
        answer is a call; of an episode `messages`, all that follows the prompt, up to the last response.
        """


class GroupEnvironment(Environment):
    """A domain whose reward is relative: it says which rollouts of a prompt are better, not how good they are.

    Training rewards a group by `verify_group`. `verify` judges one response by itself, against something that stays
    the same from checkpoint to checkpoint; evaluation, curation and `cascade score` use it.
    """

    @abstractmethod
    def verify_group(self, row: Row, responses: Sequence[Response]) -> list[Verdict]:
        """Judge the responses to one prompt together: a verdict each, in their order, with its `quality` where there is
        one. Equal responses have equal rewards. Never raises on what a model wrote."""


class Episode(ABC):
    """One rollout's own world. One thread at a time uses it, not always the same one."""

    @abstractmethod
    def answer(self, response: Response) -> list[Message] | None:
        """Carry out what the response asks for: the environment's messages (`tool`), None where the episode is over.

        What a model wrote is never an exception: a bad call is answered with what is wrong with it. Raises where the
        environment itself fails, which makes the rollout's verdict a failure.
        """

    @abstractmethod
    def verdict(self) -> Verdict:
        """Judge what the world has become. Called once at most, also where a limit cut the episode off."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Called once, whatever happened before; does not raise."""


class EpisodeEnvironment(Environment):
    """A domain of many turns: it answers what the model writes until the model, or a limit, ends it."""

    @abstractmethod
    def start(self, row: Row) -> Episode:
        """A fresh episode. Any number may be under way at once. Raises as `Episode.answer` does."""

    def verify(self, row: Row, response: Response) -> Verdict:
        """Judge a whole transcript: its calls, those of every turn, are carried out again in a fresh episode.

        A transcript without a call is a failure (`no_episode`): it does not say what became of the world.
        """
        if not response.tool_calls:
            return Verdict(
                None, failure="no_episode", reason="the response holds no tool call, so no episode to replay"
            )
        try:
            with closing(self.start(row)) as episode:
                for call in response.tool_calls:
                    if episode.answer(Response("", tool_calls=(call,))) is None:
                        break
                return episode.verdict()
        except Exception as error:
            return failure_of(error)


def failure_of(error: Exception) -> Verdict:
    """The verdict of a rollout whose environment raised."""
    code = "sandbox" if isinstance(error, SandboxError) else "verifier_error"
    return Verdict(None, failure=code, reason=str(error) if code == "sandbox" else f"{type(error).__name__}: {error}")


def in_gym(row: Row) -> bool:
    """Whether the row asks for NeMo Gym's own rules (`grading: gym`) where they differ from ours."""
    return row.get("grading") == GYM_GRADING
