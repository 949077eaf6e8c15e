"""The torch engine: batched sampling with cached states, in one process.

Prefill runs once per distinct prompt, and its state is used for all rollouts; on CPUs the prefill of a conversation's
next turn starts at the end of its last prompt. Finished rows leave the batch. All conversations start their next turn
together, when the last response of this turn is finished and every environment has answered, so that the rows of a
batch do not depend on how fast environments answer.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cascade.chat import format_of
from cascade.policy import forward, nemotron_h
from cascade.policy.base import Policy
from cascade.rollout.base import OnFinish, Sample, SampleRequest
from cascade.rollout.torch_engine.cached_decoder import CachedDecoder, Weights
from cascade.rollout.torch_engine.cuda_graphs import GraphDecoder
from cascade.rollout.torch_engine.decoder import Decoder, Prefix, TransformersDecoder
from cascade.rollout.torch_engine.llama_decoder import LlamaWeights
from cascade.rollout.torch_engine.nemotron_h_decoder import NemotronHWeights
from cascade.rollout.torch_engine.sampling import draw, uniforms

MAX_ROWS = 512
"""Rows per batch."""

LEAVE = 0.125
"""Share of finished rows at which they are removed from the batch: the copy takes about as long as a step."""


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn, and how many."""

    max_new_tokens: int
    temperature: float
    top_p: float


Finish = Callable[[int, Sample], bool]
"""(conversation, its response) → whether there may be another turn."""


class TurnSampler:
    """Samples one turn of many conversations from a model, whose weights it shares; call `load` after they change.

    `max_rows`: largest number of rows per batch; on CUDA also limited by memory.
    """

    def __init__(self, max_rows: int = MAX_ROWS):
        self.max_rows = max_rows
        self._graphs: GraphDecoder | None = None

    def load(self, model: PreTrainedModel, device: torch.device, stop: Iterable[int]) -> None:
        self._model, self._device = model, device
        self._stop = torch.tensor(sorted(stop), device=device, dtype=torch.long)
        supported = forward.supports(model)
        if supported and device.type == "cuda":
            if self._graphs is None or self._graphs.model is not model:
                self._graphs = GraphDecoder(model)
            self._graphs.load()
        self._weights: Weights | None = None
        if supported and self._graphs is None:
            self._weights = NemotronHWeights(model) if nemotron_h.supports(model) else LlamaWeights(model)

    def sample_turn(
        self, turn: dict[int, SampleRequest], drawing: Drawing, finish: Finish, read: dict[int, Prefix]
    ) -> dict[int, Prefix]:
        """Report each conversation's response to `finish` as soon as it ends. `read`: prefixes of an earlier turn;
        returns those of this turn's conversations that `finish` says may go on."""
        conversations, going_on = list(turn), set()
        rows = self.max_rows
        if self._graphs:
            longest = max(len(request.prompt) for request in turn.values())
            rows = min(rows, self._graphs.most_rows(longest + drawing.max_new_tokens))

        def finish_one(conversation: int, sample: Sample) -> None:
            if finish(conversation, sample):
                going_on.add(conversation)

        prefixes: dict[int, Prefix] = {}
        with torch.inference_mode():
            for start in range(0, len(conversations), rows):
                wave = {n: turn[n] for n in conversations[start : start + rows]}
                of_wave = self._wave(wave, drawing, finish_one, read)
                prefixes |= {n: prefix for n in wave if n in going_on and (prefix := of_wave(n))}
        return prefixes

    def _decoder(self) -> Decoder:
        return CachedDecoder(self._weights) if self._weights else TransformersDecoder(self._model)

    def _wave(
        self,
        wave: dict[int, SampleRequest],
        drawing: Drawing,
        finish: Callable[[int, Sample], None],
        read: dict[int, Prefix],
    ) -> Callable[[int], Prefix | None]:
        """Sample one turn of some conversations. `read`: their prefixes from earlier turns. Returns a
        function from a conversation to its new prefix."""
        conversations, requests = list(wave), list(wave.values())
        numbers: dict[tuple[int, ...], int] = {}
        prompt_of = [numbers.setdefault(tuple(request.prompt), len(numbers)) for request in requests]
        prompts, rows = [list(prompt) for prompt in numbers], torch.tensor(prompt_of, device=self._device)
        points = uniforms([request.seed for request in requests], drawing.max_new_tokens).to(self._device)
        if not self._graphs:
            known: list[Prefix | None] = [None] * len(prompts)
            for number, conversation, request in zip(prompt_of, conversations, requests, strict=True):
                prefix = read.get(conversation)
                if prefix and request.prompt[: len(prefix.tokens)] == prefix.tokens:
                    known[number] = prefix
            decoder = self._decode(
                prompts, known, rows, points, drawing, lambda row, sample: finish(conversations[row], sample)
            )
            number_of = dict(zip(conversations, prompt_of, strict=True))
            prefix_of = cache(decoder.prefix)  # Conversations that have the same prompt share it.
            return lambda conversation: prefix_of(number_of[conversation])
        decoded = self._graphs.decode(prompts, rows, points, self._stop, drawing.temperature, drawing.top_p)
        last = decoded.tokens.gather(1, (decoded.lengths - 1).unsqueeze(1)).squeeze(1)
        columns = (decoded.tokens, decoded.log_probs, decoded.lengths, torch.isin(last, self._stop))
        for conversation, ids, values, length, finished in zip(
            conversations, *(column.tolist() for column in columns), strict=True
        ):
            finish(conversation, Sample(ids[:length], values[:length], finished))
        return lambda conversation: None

    def _decode(
        self,
        prompts: list[list[int]],
        known: list[Prefix | None],
        prompt_of: Tensor,
        points: Tensor,
        drawing: Drawing,
        finish: Callable[[int, Sample], None],
    ) -> Decoder:
        """Decode step by step; row i, which continues prompt `prompt_of[i]`, is reported as soon as it ends."""
        decoder = self._decoder()
        logits = decoder.prefill(prompts, prompt_of, known)
        count, limit = points.shape
        tokens = torch.zeros(count, limit, dtype=torch.long, device=self._device)
        log_probs = torch.zeros(count, limit, device=self._device)
        rows = torch.arange(count, device=self._device)
        running = torch.ones(count, dtype=torch.bool, device=self._device)

        def over(these: Tensor, length: int, finished: bool) -> None:
            found = (these, tokens[these, :length], log_probs[these, :length])
            for row, ids, values in zip(*(part.tolist() for part in found), strict=True):
                finish(row, Sample(ids, values, finished))

        for position in range(limit):
            token, log_prob = draw(logits, points[rows, position], drawing.temperature, drawing.top_p)
            tokens[rows, position], log_probs[rows, position] = token, log_prob
            ended = running & torch.isin(token, self._stop)
            if ended.any():
                over(rows[ended], position + 1, True)
                running &= ~ended
                left = int(running.sum())
                if left == 0:
                    return decoder
                if left <= (1 - LEAVE) * len(rows):
                    keep = running.nonzero().squeeze(1)
                    decoder.keep(keep)
                    rows, token, running = rows[keep], token[keep], running[keep]
            if position + 1 < limit:
                logits = decoder.step(token)
        over(rows[running], limit, False)
        return decoder


class TorchSampler(TurnSampler):
    """Samples from a policy's model, whose weights it shares; call `refresh` after they change.

    `stop`: tokens that end a response; by default the tokenizer's and the generation config's.
    """

    def __init__(self, policy: Policy, stop: Many[int] | None = None, max_rows: int = MAX_ROWS):
        super().__init__(max_rows)
        self._given_stop = stop
        self.refresh(policy)

    def refresh(self, policy: Policy) -> None:
        stop = stop_tokens(policy.model, policy.tokenizer) if self._given_stop is None else self._given_stop
        self.load(policy.model, policy.device, stop)

    def sample(
        self,
        requests: list[SampleRequest],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_finish: OnFinish | None = None,
    ) -> list[Sample]:
        drawing = Drawing(max_new_tokens, temperature, top_p)
        read: dict[int, Prefix] = {}

        def sample_turn(turn: dict[int, SampleRequest], finish: Finish) -> None:
            nonlocal read
            read = self.sample_turn(turn, drawing, finish, read)

        return in_turns(requests, on_finish, sample_turn)

    def close(self) -> None:
        """Free caches and graphs, if any; the model belongs to the policy."""
        self._graphs = None


def in_turns(
    requests: list[SampleRequest],
    on_finish: OnFinish | None,
    sample_turn: Callable[[dict[int, SampleRequest], Finish], None],
) -> list[Sample]:
    """`Sampler.sample` by turns: `sample_turn` reports each response of a turn, by the number of its conversation."""
    last: dict[int, Sample] = {}
    answers: dict[int, Future[SampleRequest | None]] = {}

    def finish(conversation: int, sample: Sample) -> bool:
        last[conversation] = sample
        answer = on_finish(conversation, sample) if on_finish else None
        if answer is not None:
            answers[conversation] = answer
        return answer is not None

    turn = dict(enumerate(requests))
    while turn:
        sample_turn(turn, finish)
        following = {n: answers[n].result() for n in sorted(answers)}
        turn = {n: request for n, request in following.items() if request is not None}
        answers.clear()
    return [last[n] for n in range(len(requests))]


def stop_tokens(model: PreTrainedModel | Policy, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The end-of-turn tokens of the chat template, the tokenizer and the generation config."""
    found: set[int] = set()
    if tokenizer.chat_template:
        chat_format, vocabulary = format_of(tokenizer), tokenizer.get_vocab()
        found.update(vocabulary[end] for end in (chat_format.end, chat_format.call_end) if end in vocabulary)
    for value in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [value] if isinstance(value, int) else [])
    return found
