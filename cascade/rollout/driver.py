"""From prompts to verdicts: the one way in which training, evaluation and curation have a model answer.

A rollout is judged in a pool of threads as soon as it is finished, while others are still being sampled. In an
episode the environment answers every response there, and its answer opens the next turn. Nothing depends on the
order in which the threads are done.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from cascade.chat import Row, encode_prompt, parse_response, prompt_of
from cascade.environments.base import Environment, Episode, EpisodeEnvironment, GroupEnvironment, Verdict, failure_of
from cascade.environments.verification import judge, judge_episode, judge_together
from cascade.recipe.sections import Rollout as Settings
from cascade.rollout.base import Sample, Sampler, SampleRequest
from cascade.rollout.transcript import Transcript, Turn, encode_answer, response_text
from cascade.utils.seeds import derive_seed


@dataclass(frozen=True)
class Question:
    """A prompt to be answered once for each seed."""

    row: Row
    environment: Environment
    seeds: list[int]


@dataclass(frozen=True)
class Answer:
    transcript: Transcript
    text: str
    """Everything after the prompt: in an episode also what the environment said."""
    verdict: Verdict | None
    """None: not judged, because a limit cut it off."""


@dataclass(frozen=True)
class Answers:
    groups: list[list[Answer]]
    """Of each question, one for each seed."""
    sampling_seconds: float
    """Until the last response was sampled; an episode's includes what its environment took between the turns."""
    waiting_seconds: float
    """From then until the last verdict."""


class Driver:
    """`together`: where rewards are relative (`GroupEnvironment`), judge a question's answers against each other.
    `judge_unfinished`: also judge what a limit cut off, as it is: what it lacks it gets no points for."""

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

    def ask(self, questions: Sequence[Question]) -> Answers:
        """Sample and judge. An environment's failure is the failed verdict of its rollout."""
        began = time.perf_counter()
        groups = [self._conversations(question) for question in questions]
        asked = [conversation for group in groups for conversation in group]
        group_of = [group for group in groups for _ in group]
        jobs: list[Future[Any]] = []

        def on_finish(index: int, sample: Sample) -> Future[SampleRequest | None] | None:
            conversation = asked[index]
            conversation.turns.append(Turn(conversation.context, sample))
            conversation.finished = sample.finished
            environment = conversation.question.environment
            if isinstance(environment, EpisodeEnvironment):
                going_on = self._pool.submit(self._go_on, conversation, environment, jobs)
                jobs.append(going_on)
                return going_on
            group = group_of[index]
            if not (self._together and isinstance(environment, GroupEnvironment)):
                jobs.append(self._pool.submit(self._judge, [conversation]))
            elif all(member.turns for member in group):
                jobs.append(self._pool.submit(self._judge, group))
            return None

        try:
            self._sampler.sample(
                [SampleRequest(conversation.context, conversation.seed) for conversation in asked],
                max_new_tokens=self._settings.max_new_tokens,
                temperature=self._settings.temperature,
                top_p=self._settings.top_p,
                on_finish=on_finish,
            )
            sampled = time.perf_counter()
            for job in jobs:
                job.result()
        finally:
            _settle(jobs)
            for conversation in asked:
                conversation.close()
        found = [[conversation.answer() for conversation in group] for group in groups]
        return Answers(found, sampled - began, time.perf_counter() - sampled)

    def _conversations(self, question: Question) -> list["_Conversation"]:
        messages, tools = prompt_of(question.row)
        prompt = encode_prompt(self._tokenizer, messages, tools, thinking=self._settings.thinking)
        return [_Conversation(question, seed, prompt) for seed in question.seeds]

    def _go_on(
        self, conversation: "_Conversation", environment: EpisodeEnvironment, jobs: list[Future[Any]]
    ) -> SampleRequest | None:
        """The request of an episode's next turn; None, and a job that judges it, where it is over."""
        request = self._next_turn(conversation, environment)
        if request is None:
            jobs.append(self._pool.submit(self._judge_episode, conversation))
        return request

    def _next_turn(self, conversation: "_Conversation", environment: EpisodeEnvironment) -> SampleRequest | None:
        sample, settings = conversation.turns[-1].sample, self._settings
        try:
            if conversation.episode is None:
                conversation.episode = environment.start(conversation.question.row)
            if not sample.finished:
                return None
            text = response_text(self._tokenizer, sample)
            messages = conversation.episode.answer(parse_response(text, thinking=settings.thinking))
        except Exception as error:
            conversation.verdict = failure_of(error)
            return None
        if messages is None:
            return None
        context = encode_answer(self._tokenizer, messages, thinking=settings.thinking)
        read = [*Transcript(conversation.turns, True).token_ids, *context]
        turns = len(conversation.turns)
        if turns == settings.max_turns or len(read) + settings.max_new_tokens > settings.max_context:
            conversation.finished = False
            return None
        conversation.context = context
        return SampleRequest(read, derive_seed(conversation.seed, turns))

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
        question = members[0].question
        responses = [
            parse_response(member.text, thinking=self._settings.thinking, finished=member.finished) for member in judged
        ]
        if self._together:
            verdicts = judge_together(question.environment, question.row, responses)
        else:
            verdicts = [judge(question.environment, question.row, response) for response in responses]
        for member, verdict in zip(judged, verdicts, strict=True):
            member.verdict = verdict


def _settle(jobs: list[Future[Any]]) -> None:
    """Cancel what does not run yet and wait for what does, also for jobs that a running one still adds."""
    for job in jobs:
        if not job.cancel():
            wait([job])


@dataclass
class _Conversation:
    question: Question
    seed: int
    """Of its first turn; those of the others derive from it and the turn."""
    context: list[int]
    """What the turn being sampled reads beyond the turns so far."""
    turns: list[Turn] = field(default_factory=list)
    finished: bool = False
    episode: Episode | None = None
    verdict: Verdict | None = None
    text: str = ""

    @property
    def transcript(self) -> Transcript:
        return Transcript(self.turns, self.finished)

    def answer(self) -> Answer:
        return Answer(self.transcript, self.text, self.verdict)

    def close(self) -> None:
        """A second time, too."""
        if self.episode is not None:
            self.episode.close()
            self.episode = None
