import random
from concurrent.futures import Future

import pytest
import tiny
import torch

from cascade.policy.hf import HFPolicy
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine import prompts
from cascade.rollout.torch_engine.cached_decoder import CachedDecoder
from cascade.rollout.torch_engine.sampler import TorchSampler

STOP = range(0, tiny.VOCABULARY, 12)


def words(draw, count):
    return [draw.randrange(3, tiny.VOCABULARY) for _ in range(count)]


@pytest.fixture(scope="module", params=["nemotron_h", "qwen3_moe"])
def policy(request, tmp_path_factory):
    return HFPolicy(tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"), request.param))


@pytest.fixture
def read(monkeypatch):
    """How many tokens each forward pass has read, padding included."""
    counts = []
    real = prompts.hidden_states

    def counting(model, blocks, keep=False):
        counts.append(sum(block.tokens.numel() for block in blocks))
        return real(model, blocks, keep)

    monkeypatch.setattr(prompts, "hidden_states", counting)
    return counts


def test_a_prompt_read_in_three_parts_is_the_prompt_read_at_once(policy, read):
    draw, weights = random.Random(3), TorchSampler(policy)._weights
    first = [words(draw, n) for n in (1, 40, 3, 17, 65)]
    second = [prompt + words(draw, n) for prompt, n in zip(first, (33, 31, 30, 32, 29), strict=True)]
    # One that nothing is known of among the others, and two rows that go on from one prompt.
    third = [*(prompt + words(draw, n) for prompt, n in zip(second, (5, 50, 9, 2, 1), strict=True)), words(draw, 30)]
    with torch.inference_mode():
        decoder = CachedDecoder(weights)
        decoder.prefill(first, torch.arange(5))
        known = [decoder.prefix(n) for n in range(5)]
        decoder = CachedDecoder(weights)
        decoder.prefill(second, torch.arange(5), known)
        known = [*(decoder.prefix(n) for n in range(5)), None]
        decoder, at_once = CachedDecoder(weights), CachedDecoder(weights)
        rows = torch.tensor([0, 1, 2, 3, 4, 5, 1])
        logits, expected = decoder.prefill(third, rows, known), at_once.prefill(third, rows)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        for token in ([5, 6, 7, 8, 9, 10, 11], [9, 9, 9, 4, 4, 4, 3]):
            logits, expected = decoder.step(torch.tensor(token)), at_once.step(torch.tensor(token))
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert read[2] < read[3] / 2


def test_a_conversation_is_read_on_and_its_responses_are_those_of_reading_it_anew(policy, read):
    def talk(sampler_of_turn):
        requests = [SampleRequest(words(random.Random(n // 4), 60 + n // 4), n) for n in range(16)]
        said = {n: [] for n in range(16)}

        def on_finish(n, sample):
            said[n].append(sample)
            turns = len(said[n])
            if turns == 1 + n % 3:
                return None
            asked = [*current[n].prompt, *sample.token_ids, *words(random.Random(100 * n + turns), 5)]
            current[n] = SampleRequest(asked, 1000 * turns + n)
            answer = Future()
            answer.set_result(current[n])
            return answer

        current = dict(enumerate(requests))
        sampler_of_turn(requests, on_finish)
        return {n: [s.token_ids for s in samples] for n, samples in said.items()}

    def at_once(requests, on_finish):
        TorchSampler(policy, STOP).sample(requests, max_new_tokens=12, on_finish=on_finish)

    def turn_by_turn(requests, on_finish):
        sampler, turn = TorchSampler(policy, STOP), dict(enumerate(requests))
        while turn:
            samples = sampler.sample(list(turn.values()), max_new_tokens=12)
            answers = {n: on_finish(n, sample) for n, sample in zip(turn, samples, strict=True)}
            turn = {n: answer.result() for n, answer in answers.items() if answer is not None}

    found = talk(at_once)
    tokens = sum(read)
    read.clear()
    assert found == talk(turn_by_turn)
    assert {len(turns) for turns in found.values()} == {1, 2, 3}
    # Three turns of which the first is the longest: it is read once for the four that share it, and never again.
    assert tokens < sum(read) / 2


def test_a_request_that_does_not_go_on_from_the_last_is_read_anew(policy):
    def on_finish(n, sample):
        if sample.token_ids and not asked:
            asked.append(n)
            answer = Future()
            answer.set_result(SampleRequest([9, 8, 7, 6], 5))
            return answer
        return None

    asked: list[int] = []
    (found,) = TorchSampler(policy, STOP).sample([SampleRequest([3, 4, 5], 1)], max_new_tokens=9, on_finish=on_finish)
    (expected,) = TorchSampler(policy, STOP).sample([SampleRequest([9, 8, 7, 6], 5)], max_new_tokens=9)
    assert found.token_ids == expected.token_ids
