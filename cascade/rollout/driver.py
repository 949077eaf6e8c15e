"""From prompts to verdicts: the rollout driver of training, evaluation and curation.

A rollout is judged in a thread pool as soon as it is finished, while others are still being sampled. In an episode the
environment answers every response in that pool, and its answer starts the next turn. Results do not depend on the
order in which threads finish.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from cascade.chat import Response, Row, encode, format_of, prompt_of, render
from cascade.environments.base import Environment, Episode, EpisodeEnvironment, GroupEnvironment, Verdict, failure_of
from cascade.environments.verification import judge, judge_episode, judge_together
from cascade.recipe.sections import Rollout as Settings
from cascade.rollout.base import Sample, Sampler, SampleRequest
from cascade.rollout.transcript import Transcript, Turn, render_answer, response_text
from cascade.utils.seeds import derive_seed


@dataclass(frozen=True)
class RolloutRequest:
    """A prompt to sample one rollout from for each seed."""

    row: Row
    environment: Environment
    seeds: list[int]


@dataclass(frozen=True)
class RolloutResult:
    transcript: Transcript
    text: str
    """Everything after the prompt, in an episode the environment's messages too."""
    verdict: Verdict | None
    """None: not judged, because it was truncated by a limit."""


@dataclass(frozen=True)
class RolloutResults:
    groups: list[list[RolloutResult]]
    """For each request, one result for each seed."""
    sampling_seconds: float
    """Until the last response was sampled, including the environments' time between the turns of episodes."""
    waiting_seconds: float
    """From then until the last verdict."""


class Driver:
    """`together`: where rewards are relative (`GroupEnvironment`), judge a request's rollouts against each other.
    `judge_unfinished`: also judge rollouts that were truncated by a limit, as they are."""

    def __init__(
        self,
        sampler: Sampler,
        tokenizer: PreTrainedTokenizerBase,
        pool: ThreadPoolExecutor,
        settings: Settings,
        *,
        together: bool,
        judge_unfinished: bool,
    ):
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._pool = pool
        self._settings = settings
        self._together = together
        self._judge_unfinished = judge_unfinished

    def run(self, requests: Sequence[RolloutRequest]) -> RolloutResults:
        """Sample and judge. An exception in an environment is a failed verdict of its rollout."""
        start = time.perf_counter()
        groups = [self._conversations(request) for request in requests]
        conversations = [conversation for group in groups for conversation in group]
        group_of = [group for group in groups for _ in group]
        jobs: list[Future[Any]] = []

        def on_finish(index: int, sample: Sample) -> Future[SampleRequest | None] | None:
            conversation = conversations[index]
            conversation.turns.append(Turn(conversation.context, sample))
            conversation.finished = sample.finished
            environment = conversation.request.environment
            if isinstance(environment, EpisodeEnvironment):
                next_turn = self._pool.submit(self._continue_episode, conversation, environment, jobs)
                jobs.append(next_turn)
                return next_turn
            group = group_of[index]
            if not (self._together and isinstance(environment, GroupEnvironment)):
                jobs.append(self._pool.submit(self._judge, [conversation]))
            elif all(member.turns for member in group):
                jobs.append(self._pool.submit(self._judge, group))
            return None

        try:
            self._sampler.sample(
                [SampleRequest(conversation.context, conversation.seed) for conversation in conversations],
                max_new_tokens=self._settings.max_new_tokens,
                temperature=self._settings.temperature,
                top_p=self._settings.top_p,
                on_finish=on_finish,
            )
            sampled = time.perf_counter()
            for job in jobs:
                job.result()
        finally:
            _cancel_and_wait(jobs)
            for conversation in conversations:
                conversation.close()
        results = [[conversation.result() for conversation in group] for group in groups]
        return RolloutResults(results, sampled - start, time.perf_counter() - sampled)

    def _conversations(self, request: RolloutRequest) -> list["_Conversation"]:
        messages, tools = prompt_of(request.row)
        prompt = render(self._tokenizer, messages, tools, thinking=self._settings.thinking, for_generation=True)
        token_ids = encode(self._tokenizer, prompt)
        return [_Conversation(request, seed, token_ids, prompt, tools) for seed in request.seeds]

    def _parse(self, conversation: "_Conversation", text: str, finished: bool = True) -> Response:
        read = format_of(self._tokenizer).parse
        return read(text, conversation.prompt, tools=conversation.tools, finished=finished)

    def _continue_episode(
        self, conversation: "_Conversation", environment: EpisodeEnvironment, jobs: list[Future[Any]]
    ) -> SampleRequest | None:
        """The request of an episode's next turn; None where it is over, with its verdict added to `jobs`."""
        request = self._next_turn(conversation, environment)
        if request is None:
            jobs.append(self._pool.submit(self._judge_episode, conversation))
        return request

    def _next_turn(self, conversation: "_Conversation", environment: EpisodeEnvironment) -> SampleRequest | None:
        sample, settings = conversation.turns[-1].sample, self._settings
        try:
            if conversation.episode is None:
                conversation.episode = environment.start(conversation.request.row)
            if not sample.finished:
                return None
            response = self._parse(conversation, response_text(self._tokenizer, sample))
            messages = conversation.episode.answer(response)
        except Exception as error:
            conversation.verdict = failure_of(error)
            return None
        if messages is None:
            return None
        prompt = render_answer(self._tokenizer, messages, thinking=settings.thinking, calls=response.tool_calls)
        context = encode(self._tokenizer, prompt)
        token_ids = [*Transcript(conversation.turns, True).token_ids, *context]
        turns = len(conversation.turns)
        if turns == settings.max_turns or len(token_ids) + settings.max_new_tokens > settings.max_context:
            conversation.finished = False
            return None
        conversation.context, conversation.prompt = context, prompt
        return SampleRequest(token_ids, derive_seed(conversation.seed, turns))

    def _judge_episode(self, conversation: "_Conversation") -> None:
        if conversation.verdict is None and (conversation.finished or self._judge_unfinished):
            assert conversation.episode is not None
            conversation.verdict = judge_episode(conversation.episode)
        conversation.close()
        conversation.text = conversation.transcript.text(self._tokenizer)

    def _judge(self, members: list["_Conversation"]) -> None:
        for member in members:
            member.text = member.transcript.text(self._tokenizer)
        judged = [member for member in members if member.finished or self._judge_unfinished]
        request = members[0].request
        responses = [self._parse(member, member.text, member.finished) for member in judged]
        if self._together:
            verdicts = judge_together(request.environment, request.row, responses)
        else:
            verdicts = [judge(request.environment, request.row, response) for response in responses]
        for member, verdict in zip(judged, verdicts, strict=True):
            member.verdict = verdict


def _cancel_and_wait(jobs: list[Future[Any]]) -> None:
    """Cancel the jobs that have not started and wait for the others, including those that a running job adds."""
    for job in jobs:
        if not job.cancel():
            wait([job])


@dataclass
class _Conversation:
    request: RolloutRequest
    seed: int
    """Seed of the first turn; those of later turns derive from it and the turn's number."""
    context: list[int]
    """Tokens before the response of the current turn that no earlier turn has."""
    prompt: str
    """Their text."""
    tools: list[dict] | None
    turns: list[Turn] = field(default_factory=list)
    finished: bool = False
    episode: Episode | None = None
    verdict: Verdict | None = None
    text: str = ""

    @property
    def transcript(self) -> Transcript:
        return Transcript(self.turns, self.finished)

    def result(self) -> RolloutResult:
        return RolloutResult(self.transcript, self.text, self.verdict)

    def close(self) -> None:
        """May be called twice."""
        if self.episode is not None:
            self.episode.close()
            self.episode = None
