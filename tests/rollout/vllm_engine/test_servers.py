"""The sampler on servers: what it asks, how it shares out, and what it does when servers die."""

import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.errors import CascadeError
from cascade.policy.checkpoint import load_checkpoint
from cascade.policy.nemo import NemoPolicy
from cascade.recipe import Rollout
from cascade.rollout import make_sampler
from cascade.rollout.base import Sample, SampleRequest
from cascade.rollout.torch_engine.sampler import stop_tokens
from cascade.rollout.vllm_engine import servers
from cascade.rollout.vllm_engine.sampler import VLLMSampler
from cascade.utils import distributed
from tests.policy import tiny

sys.path.insert(0, str(Path(__file__).parent))
from fake_vllm import FakeVLLM, tokens

STOP = range(0, 50, 7)


class Policy:
    """Saves a file that tells how often it was saved."""

    model = tokenizer = None
    sharded = False
    saved = 0

    def save(self, directory: Path) -> None:
        self.saved += 1
        directory.mkdir(parents=True)
        (directory / "version").write_text(str(self.saved))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, seconds in (("PROBE", 0.05), ("BACKOFF", 0.002), ("DEADLINE", 1.0)):
        monkeypatch.setattr(servers, f"{name}_SECONDS", seconds)


@pytest.fixture
def fakes():
    made: list[FakeVLLM] = []

    def start(port: int = 0) -> FakeVLLM:
        made.append(FakeVLLM(port))
        return made[-1]

    yield start
    for fake in made:
        fake.kill()


@pytest.fixture
def sampler_on():
    made: list[VLLMSampler] = []

    def make(*fakes: FakeVLLM, **settings) -> VLLMSampler:
        rollout = Rollout(engine="vllm", max_new_tokens=8, servers=[fake.url for fake in fakes], **settings)
        made.append(VLLMSampler(Policy(), rollout, STOP))
        return made[-1]

    yield make
    for sampler in made:
        sampler.close()


def requests(count=24, prompts=6) -> list[SampleRequest]:
    return [SampleRequest([n % prompts, 7], 1000 + n) for n in range(count)]


def expected(asked: list[SampleRequest]) -> list[list[int]]:
    return [tokens(request.seed, 8) for request in asked]


def wait_until(condition, seconds=5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_samples_come_in_the_order_of_the_requests_with_their_log_probabilities(fakes, sampler_on):
    server = fakes()
    samples = sampler_on(server).sample(requests(), max_new_tokens=8, temperature=0.5, top_p=0.9)
    assert [sample.token_ids for sample in samples] == expected(requests())
    assert [sample.finished for sample in samples] == [ids[-1] in STOP for ids in expected(requests())]
    assert {sample.finished for sample in samples} == {True, False}
    assert all(sample.log_probs == [-len(server.weights)] * len(sample.token_ids) for sample in samples)
    body = server.asked[0]
    assert (body["prompt"], body["max_tokens"], body["temperature"], body["top_p"]) == ([0, 7], 8, 0.5, 0.9)
    assert body["stop_token_ids"] == list(STOP)
    assert body["return_token_ids"] is True
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)


def test_a_prompts_rollouts_are_kept_together_and_prompts_spread(fakes, sampler_on):
    running = [fakes(), fakes(), fakes()]
    sampler_on(*running).sample(requests(), max_new_tokens=8)
    prompts = [{tuple(body["prompt"]) for body in server.asked} for server in running]
    assert [sorted(p) for p in prompts] == [[(0, 7), (3, 7)], [(1, 7), (4, 7)], [(2, 7), (5, 7)]]


def test_every_refresh_is_taken_over_by_every_server(fakes, sampler_on, tmp_path):
    running = [fakes(), fakes()]
    sampler = sampler_on(*running, weights=str(tmp_path / "weights"))
    policy = Policy()
    seen = []
    for step in (1, 2):
        sampler.refresh(policy)
        seen.append({server.weights for server in running})
        (path,) = seen[-1]
        assert (Path(path) / "version").read_text() == str(step)
        assert [found.name for found in (tmp_path / "weights").iterdir()] == [Path(path).name]
    assert seen[0] != seen[1]


def test_of_processes_that_train_together_the_first_alone_loads_and_all_sample(fakes, sampler_on, monkeypatch):
    kept, restarted = fakes(), fakes()
    first, second = sampler_on(kept, restarted), sampler_on(kept, restarted)
    for sampler in (first, second):
        sampler.refresh(Policy())
    told: dict[str, object] = {}
    monkeypatch.setattr(distributed, "size", lambda: 2)
    for sampler, is_first in ((first, True), (second, False)):
        monkeypatch.setattr(distributed, "is_main", lambda is_first=is_first: is_first)
        # Names tell apart what the first process makes: its directory, then the servers that have loaded it.
        monkeypatch.setattr(
            distributed,
            "broadcast_from_main",
            lambda make: told.setdefault(make.__name__, make()) if distributed.is_main() else told[make.__name__],
        )
        monkeypatch.setattr(distributed, "barrier", lambda: None)
        if not is_first:
            restarted.kill()
            restarted = fakes(restarted.port)
            told["loaded"] = [kept.url]
        policy = Policy()
        sampler.refresh(policy)
        assert policy.saved == is_first
    assert kept.reloads == 3
    assert (restarted.reloads, restarted.weights) == (1, kept.weights)
    assert [s.token_ids for s in second.sample(requests(), max_new_tokens=8)] == expected(requests())


def test_a_killed_servers_requests_are_answered_by_the_others_with_the_same_seeds(fakes, sampler_on, capfd):
    first, second = fakes(), fakes()
    sampler = sampler_on(first, second)
    sampler.refresh(Policy())
    first.gate.clear()
    with ThreadPoolExecutor(1) as thread:
        sampling = thread.submit(sampler.sample, requests(), max_new_tokens=8)
        wait_until(lambda: len(first.asked) == 12)
        first.kill()
        samples = sampling.result(timeout=20)
    assert [sample.token_ids for sample in samples] == expected(requests())
    assert len(second.asked) == 24
    assert f"{first.url} is lost" in capfd.readouterr().err


def test_a_server_started_again_gets_the_current_weights_before_it_is_asked(fakes, sampler_on):
    server = fakes()
    sampler = sampler_on(server)
    server.gate.clear()
    with ThreadPoolExecutor(1) as thread:
        sampling = thread.submit(sampler.sample, requests(), max_new_tokens=8)
        wait_until(lambda: len(server.asked) == 24)
        server.kill()
        again = fakes(server.port)
        samples = sampling.result(timeout=20)
    assert [sample.token_ids for sample in samples] == expected(requests())
    assert again.weights == server.weights
    assert {x for sample in samples for x in sample.log_probs} == {-float(len(server.weights))}


def test_a_server_that_dies_while_nothing_is_sampled_comes_back_with_the_current_weights(fakes, sampler_on):
    server = fakes()
    sampler = sampler_on(server)
    sampler.refresh(Policy())
    server.kill()
    time.sleep(0.2)
    again = fakes(server.port)
    sampler.sample(requests(), max_new_tokens=8)
    assert again.weights == server.weights


def test_a_request_that_every_server_fails_ends_the_call(fakes, sampler_on):
    server = fakes()
    server.status["/v1/completions"] = 500
    with pytest.raises(CascadeError, match=rf"failed the same request 8 times, at last {server.url}: HTTP 500"):
        sampler_on(server).sample(requests(1), max_new_tokens=8)


def test_without_any_server_it_waits_says_so_and_gives_up(fakes, sampler_on, capfd):
    server = fakes()
    server.kill()
    with pytest.raises(CascadeError, match=rf"no vLLM server for 1 s \({server.url}: .*\); start them, then rerun"):
        sampler_on(server).sample(requests(), max_new_tokens=8)
    assert capfd.readouterr().err.count("waiting for a vLLM server") == 1


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/completions", 400, "HTTP 400"),
        ("/collective_rpc", 404, "start it with VLLM_SERVER_DEV_MODE=1"),
        ("/collective_rpc", 500, "cannot load .*does it see this directory"),
    ],
)
def test_what_no_retry_mends_is_an_error_in_one_line(fakes, sampler_on, path, status, message):
    server = fakes()
    server.status[path] = status
    with pytest.raises(CascadeError, match=message) as caught:
        sampler_on(server).sample(requests(1), max_new_tokens=8)
    assert "\n" not in str(caught.value)


def test_a_conversations_next_turn_does_not_wait_for_the_others(fakes, sampler_on):
    """Conversation 0 takes four turns while every other response is held back."""
    server = fakes()
    turns: list[tuple[int, Sample]] = []

    def on_finish(conversation: int, sample: Sample) -> Future[SampleRequest | None] | None:
        assert threading.current_thread() is caller
        turns.append((conversation, sample))
        if conversation:
            return None
        answer: Future[SampleRequest | None] = Future()
        done = len(turns)
        slow.gate.set() if done == 4 else None
        answer.set_result(SampleRequest([0, 7], 2000 + done) if done < 4 else None)
        return answer

    slow = fakes()
    slow.gate.clear()
    caller = threading.current_thread()
    asked = [SampleRequest([0], 1), SampleRequest([1], 2)]
    samples = sampler_on(server, slow).sample(asked, max_new_tokens=8, on_finish=on_finish)
    assert [conversation for conversation, _ in turns] == [0, 0, 0, 0, 1]
    assert [body["seed"] for body in server.asked] == [1, 2001, 2002, 2003]
    assert [sample.token_ids for sample in samples] == [tokens(2003, 8), tokens(2, 8)]


def test_nothing_to_sample(fakes, sampler_on):
    assert sampler_on(fakes()).sample([], max_new_tokens=8) == []


class Unsplit(NemoPolicy):
    """All of engine nemo but NeMo, in one process."""

    def _load(self):
        return load_checkpoint(self._source)[0]


def test_no_process_holds_the_whole_model_for_servers(fakes, tmp_path):
    """Of a model that is split because it does not fit on one GPU, nothing but the configuration is asked."""
    policy = Unsplit(tiny.checkpoint(tmp_path / "model", "nemotron_h"), device="cpu")
    sampler = make_sampler(Rollout(engine="vllm", max_new_tokens=8, servers=[fakes().url]), policy)
    try:
        assert [len(sample.token_ids) for sample in sampler.sample(requests(2, 1), max_new_tokens=8)]
        assert policy._whole is None
        assert set(sampler._stop) == stop_tokens(policy.model, policy.tokenizer)
    finally:
        sampler.close()
