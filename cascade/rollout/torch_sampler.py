"""The torch engine: batched sampling with cached states, in the trainer's own process.

Each distinct prompt is read once, its state handed to all its rollouts. Finished rows leave the batch.
"""

from collections.abc import Sequence as Many

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cascade.policy import nemotron_h
from cascade.policy.base import Policy
from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.cuda_graphs import Decoded, GraphDecoder
from cascade.rollout.decoder import Decoder, TransformersDecoder
from cascade.rollout.nemotron_h import NemotronHDecoder, Weights
from cascade.rollout.sampling import draw, uniforms

LEAVE = 0.125
"""Share of finished rows at which the rest is moved together: moving costs about as much as a step."""


class TorchSampler:
    """Samples from a policy's model, whose weights it shares; call `refresh` after they change.

    `stop`: tokens that end a response; by default the tokenizer's and the generation config's. `max_rows`: rows
    decoded at a time, at most; on CUDA also no more than there is room for.
    """

    def __init__(self, policy: Policy, stop: Many[int] | None = None, max_rows: int = 512):
        self.max_rows = max_rows
        self._given_stop = stop
        self._graphs: GraphDecoder | None = None
        self.refresh(policy)

    def refresh(self, policy: Policy) -> None:
        self._model = policy.model
        self._device = policy.device
        stop = stop_tokens(policy.model, policy.tokenizer) if self._given_stop is None else self._given_stop
        self._stop = torch.tensor(sorted(stop), device=self._device, dtype=torch.long)
        supported = nemotron_h.supports(policy.model)
        if supported and self._device.type == "cuda":
            if self._graphs is None or self._graphs.model is not policy.model:
                self._graphs = GraphDecoder(policy.model)
            self._graphs.load()
        self._weights = Weights(policy.model) if supported and self._graphs is None else None

    def sample(
        self, requests: list[SampleRequest], *, max_new_tokens: int, temperature: float = 1.0, top_p: float = 1.0
    ) -> list[Sample]:
        samples: list[Sample] = []
        rows = self.max_rows
        if self._graphs:
            longest = max((len(request.prompt) for request in requests), default=0)
            rows = min(rows, self._graphs.most_rows(longest + max_new_tokens))
        with torch.inference_mode():
            for start in range(0, len(requests), rows):
                samples += self._wave(requests[start : start + rows], max_new_tokens, temperature, top_p)
        return samples

    def close(self) -> None:
        """Drop the caches and graphs, where there are any; the model is the policy's."""
        self._graphs = None

    def _decoder(self) -> Decoder:
        return NemotronHDecoder(self._weights) if self._weights else TransformersDecoder(self._model)

    def _wave(self, requests: list[SampleRequest], limit: int, temperature: float, top_p: float) -> list[Sample]:
        numbers: dict[tuple[int, ...], int] = {}
        prompt_of = [numbers.setdefault(tuple(request.prompt), len(numbers)) for request in requests]
        prompts, rows = [list(prompt) for prompt in numbers], torch.tensor(prompt_of, device=self._device)
        points = uniforms([request.seed for request in requests], limit).to(self._device)
        decode = self._graphs.decode if self._graphs else self._decode
        decoded = decode(prompts, rows, points, self._stop, temperature, top_p)
        last = decoded.tokens.gather(1, (decoded.lengths - 1).unsqueeze(1)).squeeze(1)
        columns = (decoded.tokens, decoded.log_probs, decoded.lengths, torch.isin(last, self._stop))
        return [Sample(t[:n], p[:n], f) for t, p, n, f in zip(*(c.tolist() for c in columns), strict=True)]

    def _decode(
        self,
        prompts: list[list[int]],
        prompt_of: Tensor,
        points: Tensor,
        stop: Tensor,
        temperature: float,
        top_p: float,
    ) -> Decoded:
        """Step by step; see `GraphDecoder.decode`."""
        decoder = self._decoder()
        logits = decoder.prefill(prompts, prompt_of)
        count, limit = points.shape
        tokens = torch.zeros(count, limit, dtype=torch.long, device=self._device)
        log_probs = torch.zeros(count, limit, device=self._device)
        lengths = torch.full((count,), limit, device=self._device)
        rows = torch.arange(count, device=self._device)
        running = torch.ones(count, dtype=torch.bool, device=self._device)
        for position in range(limit):
            token, log_prob = draw(logits, points[rows, position], temperature, top_p)
            tokens[rows, position], log_probs[rows, position] = token, log_prob
            ended = running & torch.isin(token, stop)
            if ended.any():
                lengths[rows[ended]] = position + 1
                running &= ~ended
                left = int(running.sum())
                if left == 0:
                    break
                if left <= (1 - LEAVE) * len(rows):
                    keep = running.nonzero().squeeze(1)
                    decoder.keep(keep)
                    rows, token, running = rows[keep], token[keep], running[keep]
            if position + 1 < limit:
                logits = decoder.step(token)
        return Decoded(tokens, log_probs, lengths)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The end-of-turn tokens of tokenizer and generation config together."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found.update(value if isinstance(value, list | tuple) else [value] if isinstance(value, int) else [])
    return found
