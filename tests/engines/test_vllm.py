"""vLLM itself, on the CPU: it samples from the policy's weights, also from those of the next step, and survives."""

import multiprocessing
import os
import random
import signal
from concurrent.futures import Future

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-engines` has it")

from cascade.errors import CascadeError
from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer, Rollout
from cascade.rollout import make_sampler
from cascade.rollout.base import Sample, SampleRequest
from cascade.utils.files import read_json
from tests.engines.moe import make_moe
from tests.policy import tiny
from tests.training.miniature import VOCABULARY

GAP = 1e-4
"""In nats: what float32 leaves between two implementations of one model."""
SETTINGS = Rollout(engine="vllm", max_new_tokens=24, memory=0.15)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return HFPolicy(make_moe(tmp_path_factory.mktemp("moe") / "model", seed=0), Optimizer(learning_rate=0.01))


@pytest.fixture(scope="module")
def sampler(policy):
    sampler = make_sampler(SETTINGS, policy)
    yield sampler
    sampler.close()


def requests(count: int = 48) -> list[SampleRequest]:
    draw = random.Random(0)
    prompts = [[draw.randrange(4, len(VOCABULARY)) for _ in range(n)] for n in (1, 2, 3, 17, 40)]
    return [SampleRequest(prompts[n % len(prompts)], n) for n in range(count)]


def sequences(asked: list[SampleRequest], samples: list[Sample]) -> list[Sequence]:
    return [
        Sequence(r.prompt + s.token_ids, [False] * len(r.prompt) + [True] * len(s.token_ids))
        for r, s in zip(asked, samples, strict=True)
    ]


def largest_gap(policy, samples: list[Sample]) -> float:
    trainer = policy.score(sequences(requests(len(samples)), samples)).log_probs
    return (trainer - torch.tensor([x for sample in samples for x in sample.log_probs])).abs().max().item()


def kill_engine() -> None:
    for process in multiprocessing.active_children():
        if process.name.startswith("EngineCore"):
            os.kill(process.pid, signal.SIGKILL)


def test_log_probabilities_are_the_trainers(policy, sampler):
    samples = sampler.sample(requests(), max_new_tokens=24)
    assert largest_gap(policy, samples) < GAP
    for sample in samples:
        assert sample.finished == (sample.token_ids[-1] == 1)
        assert 1 not in sample.token_ids[:-1]
        assert sample.finished or len(sample.token_ids) == 24
    assert {sample.finished for sample in samples} == {True, False}
    assert len({tuple(sample.token_ids) for sample in samples}) > 40


def test_a_draw_depends_on_its_request_alone(sampler):
    asked = requests()
    samples = sampler.sample(asked, max_new_tokens=24)
    order = random.Random(1).sample(range(len(asked)), 15)
    again = sampler.sample([asked[n] for n in order], max_new_tokens=24)
    assert [sample.token_ids for sample in again] == [samples[n].token_ids for n in order]


def test_log_probabilities_are_at_the_temperature_of_sampling(policy, sampler):
    (sample,) = sampler.sample([SampleRequest([5, 6], 3)], max_new_tokens=12, temperature=0.5)
    logits = tiny.reference_log_probs(policy.model, [5, 6, *sample.token_ids])[1:] / 0.5
    found = logits.log_softmax(-1)[range(len(sample.token_ids)), sample.token_ids]
    assert sample.log_probs == pytest.approx(found.tolist(), abs=GAP)


def test_after_a_step_it_samples_from_the_new_weights(policy, sampler):
    before = sampler.sample(requests(), max_new_tokens=24)
    policy.step(sequences(requests(), before), lambda log_probs, _: log_probs.sum() / 1000, 0.01)
    stale = sampler.sample(requests(), max_new_tokens=24)
    assert [sample.token_ids for sample in stale] == [sample.token_ids for sample in before]
    assert largest_gap(policy, stale) > 100 * GAP
    sampler.refresh(policy)
    fresh = sampler.sample(requests(), max_new_tokens=24)
    assert largest_gap(policy, fresh) < GAP
    assert [sample.token_ids for sample in fresh] != [sample.token_ids for sample in before]


def test_a_killed_engine_is_started_again_and_its_requests_survive(policy, sampler, capfd):
    whole = sampler.sample(requests(), max_new_tokens=24)
    killed: list[int] = []

    def on_finish(conversation: int, sample: Sample) -> None:
        if not killed:
            kill_engine()
        killed.append(conversation)

    samples = sampler.sample(requests(), max_new_tokens=24, on_finish=on_finish)
    assert sorted(killed) == list(range(48))
    assert [sample.token_ids for sample in samples] == [sample.token_ids for sample in whole]
    assert largest_gap(policy, samples) < GAP
    assert "the vLLM engine died; it is started again" in capfd.readouterr().err


def test_an_engine_killed_while_the_policy_trained_gets_the_new_weights(policy, sampler):
    samples = sampler.sample(requests(), max_new_tokens=24)
    policy.step(sequences(requests(), samples), lambda log_probs, _: log_probs.sum() / 1000, 0.01)
    kill_engine()
    sampler.refresh(policy)
    assert largest_gap(policy, sampler.sample(requests(), max_new_tokens=24)) < GAP


def test_a_conversations_next_turn_continues_its_tokens(policy, sampler):
    turns: dict[int, list[Sample]] = {}
    asked = dict(enumerate(requests(8)))

    def on_finish(conversation: int, sample: Sample) -> Future[SampleRequest | None]:
        turns.setdefault(conversation, []).append(sample)
        answer: Future[SampleRequest | None] = Future()
        grown = [*asked[conversation].prompt, *sample.token_ids, 7]
        asked[conversation] = SampleRequest(grown, 100 + conversation)
        answer.set_result(asked[conversation] if len(turns[conversation]) < 3 else None)
        return answer

    last = sampler.sample(requests(8), max_new_tokens=10, on_finish=on_finish)
    assert all(len(found) == 3 and found[-1] == last[n] for n, found in turns.items())
    for n, found in turns.items():
        prompt = asked[n].prompt[: -len(last[n].token_ids) - 1]
        trainer = policy.score(
            [Sequence(prompt + last[n].token_ids, [False] * len(prompt) + [True] * len(found[-1].token_ids))]
        )
        assert trainer.log_probs.tolist() == pytest.approx(found[-1].log_probs, abs=GAP)


def test_what_does_not_fit_into_the_context_is_refused(sampler):
    with pytest.raises(CascadeError, match=r"250 prompt tokens and max_new_tokens 24 do not fit into its 256 tokens"):
        sampler.sample([SampleRequest([5] * 250, 0)], max_new_tokens=24)


def test_a_checkpoint_of_the_hybrid_reads_as_one_in_vllm(tmp_path):
    from vllm.transformers_utils.config import get_config

    config = get_config(tiny.checkpoint(tmp_path / "hybrid"), trust_remote_code=False)
    assert (config.hybrid_override_pattern, config.num_hidden_layers) == ("ME*EM-", 6)
    written = read_json(tmp_path / "hybrid" / "config.json")
    assert len(written["layers_block_type"]) == written["num_hidden_layers"] == 6
