"""Sampling divided among processes: the samples of one process."""

import os
import random
import signal
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe

import architectures
import pytest
import tiny
import torch

from cascade.errors import CascadeError
from cascade.launch import fork_server
from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer, Rollout
from cascade.rollout import make_sampler
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine import processes, prompts
from cascade.rollout.torch_engine.processes import ProcessSampler, SharedWeights, divide
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.utils.worker_process import WorkerProcess
from tests.launch.conftest import alive

KINDS = list(tiny.MAKERS)
STOP = range(0, tiny.VOCABULARY, 12)


@pytest.fixture(scope="module", autouse=True)
def preloaded():
    """Processes start at once."""
    with fork_server.server({}):
        yield


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: HFPolicy(tiny.checkpoint(root / kind, kind)) for kind in KINDS}


@pytest.fixture
def sampler(policies):
    made = ProcessSampler(policies["nemotron_h"], 2, STOP)
    yield made
    made.close()


def requests(count=24, seed=0):
    draw = random.Random(1)
    texts = [[draw.randrange(3, tiny.VOCABULARY) for _ in range(n)] for n in (1, 2, 3, 17, 40, 41, 60)]
    return [SampleRequest(texts[n % len(texts)], seed + n) for n in range(count)]


def assert_equal_samples(ours, theirs):
    assert [s.token_ids for s in ours] == [s.token_ids for s in theirs]
    assert [s.finished for s in ours] == [s.finished for s in theirs]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, atol=1e-5, rtol=0)


def pids(sampler: ProcessSampler) -> list[int]:
    """Of the processes that have the sampler's weights."""
    inode, found = os.fstat(sampler._weights.file).st_ino, []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{process}/maps") as maps:
            if any(f" {inode} " in line and "/memfd:weights" in line for line in maps):
                found.append(int(process))
    return [process for process in found if process != os.getpid()]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_one_process(policies, kind):
    sampler = ProcessSampler(policies[kind], 3, STOP)
    reference = TorchSampler(policies[kind], STOP)
    for count, limit in ((24, 45), (2, 9), (40, 5)):
        asked = requests(count, seed=count)
        finished = {}
        samples = sampler.sample(
            asked, max_new_tokens=limit, on_finish=lambda n, sample, to=finished: to.update({n: sample})
        )
        assert_equal_samples(samples, reference.sample(asked, max_new_tokens=limit))
        assert [finished[n] for n in range(count)] == samples
    assert sampler.sample([], max_new_tokens=4) == []
    hot = {"max_new_tokens": 9, "temperature": 2.0, "top_p": 0.7}
    assert_equal_samples(sampler.sample(requests(), **hot), reference.sample(requests(), **hot))
    sampler.close()


def test_the_same_requests_give_the_same_bytes(sampler, policies):
    once = sampler.sample(requests(), max_new_tokens=20)
    assert sampler.sample(requests(), max_new_tokens=20) == once
    other = ProcessSampler(policies["nemotron_h"], 2, STOP)
    assert other.sample(requests(), max_new_tokens=20) == once
    other.close()


def test_refresh_takes_over_new_weights_and_other_policies(policies, tmp_path):
    policy = HFPolicy(tiny.checkpoint(tmp_path / "model"), Optimizer(learning_rate=1.0))
    sampler = ProcessSampler(policy, 2, STOP)
    before = sampler.sample(requests(), max_new_tokens=10)
    for _ in range(3):
        policy.step([Sequence([3, 4, 5, 6], [False, True, True, True])], lambda p, _: -p.sum(), 0.01)
    assert sampler.sample(requests(), max_new_tokens=10) == before  # A copy: nothing has changed without `refresh`.
    for current in (policy, policies["qwen3"], policy):
        sampler.refresh(current)
        found = sampler.sample(requests(), max_new_tokens=10)
        assert_equal_samples(found, TorchSampler(current, STOP).sample(requests(), max_new_tokens=10))
        assert [s.token_ids for s in found] != [s.token_ids for s in before]
    sampler.close()


def talk(sampler):
    """Conversations of one to three turns, four to a prompt: their responses."""
    draw = random.Random(2)
    opening = [[draw.randrange(3, tiny.VOCABULARY) for _ in range(60 + n)] for n in range(4)]
    current = {n: SampleRequest(opening[n // 4], n) for n in range(16)}
    said = {n: [] for n in range(16)}

    def on_finish(n, sample):
        said[n].append(sample)
        turns = len(said[n])
        if turns == 1 + n % 3:
            return None
        extra = random.Random(100 * n + turns)
        prompt = [*current[n].prompt, *sample.token_ids, *(extra.randrange(3, tiny.VOCABULARY) for _ in range(5))]
        current[n] = SampleRequest(prompt, 1000 * turns + n)
        answer = Future()
        # Not at once: environments take their time.
        threading.Timer(0.01 * extra.random(), answer.set_result, [current[n]]).start()
        return answer

    last = sampler.sample(list(current.values()), max_new_tokens=12, on_finish=on_finish)
    assert last == [said[n][-1] for n in range(16)]
    return [sample for n in range(16) for sample in said[n]]


@pytest.mark.parametrize("kind", ["nemotron_h", "qwen3_moe"])
def test_conversations_of_several_turns_are_those_of_one_process(policies, kind):
    sampler = ProcessSampler(policies[kind], 2, STOP)
    found = talk(sampler)
    assert_equal_samples(found, talk(TorchSampler(policies[kind], STOP)))
    assert len(found) > 24
    assert talk(sampler) == found
    sampler.close()


class WorkerThread:
    """In place of a process, so that a test sees what it reads."""

    def __init__(self, call):
        self.pipe, end = Pipe()
        threading.Thread(target=getattr(processes, call.partition(":")[2]), args=(end,), daemon=True).start()

    send, receive, send_file = WorkerProcess.send, WorkerProcess.receive, WorkerProcess.send_file

    def kill(self):
        self.pipe.close()


def test_a_worker_reads_a_prompt_once_and_reads_a_conversation_on(policies, monkeypatch):
    read = []
    real = prompts.hidden_states

    def counting(model, blocks, keep=False):
        read.append(sum(block.tokens.numel() for block in blocks))
        return real(model, blocks, keep)

    monkeypatch.setattr(prompts, "hidden_states", counting)
    talk(TorchSampler(policies["qwen3"], STOP))
    alone = sum(read)
    read.clear()
    threads = torch.get_num_threads()
    monkeypatch.setattr(processes, "WorkerProcess", WorkerThread)
    sampler = ProcessSampler(policies["qwen3"], 2, STOP)
    talk(sampler)
    sampler.close()
    torch.set_num_threads(threads)
    # Each has two of the four prompts, as a block of its own: only the padding differs.
    assert len(read) == 6
    assert abs(sum(read) - alone) < 0.1 * alone


def test_a_killed_process_is_an_error_of_one_line_and_the_others_end_too(sampler, policies):
    sampler.sample(requests(), max_new_tokens=4)
    workers = pids(sampler)
    assert len(workers) == 2

    def on_finish(n, sample):
        os.kill(workers[1], signal.SIGKILL)

    with pytest.raises(CascadeError, match=r"^sampling: its process ended with status -9; run it again$"):
        sampler.sample(requests(), max_new_tokens=200, on_finish=on_finish)
    assert not any(map(alive, workers))
    reference = TorchSampler(policies["nemotron_h"], STOP)
    assert_equal_samples(sampler.sample(requests(), max_new_tokens=9), reference.sample(requests(), max_new_tokens=9))
    sampler.close()
    assert sampler._weights is None


def test_after_an_error_of_on_finish_nothing_of_its_call_is_left(sampler, policies):
    def on_finish(n, sample):
        raise ValueError(n)

    with pytest.raises(ValueError, match=r"\d"):
        sampler.sample(requests(), max_new_tokens=30, on_finish=on_finish)
    reference = TorchSampler(policies["nemotron_h"], STOP)
    assert_equal_samples(sampler.sample(requests(), max_new_tokens=9), reference.sample(requests(), max_new_tokens=9))


@pytest.mark.parametrize("name", list(architectures.SETTINGS))
def test_a_model_of_shared_weights_is_the_model(name):
    model = architectures.make(name).eval()
    weights = SharedWeights(model)
    weights.update()
    message = processes._Load(weights.pickled, weights.places)
    assert len(weights.pickled) < 200_000
    copy = message.model(weights.file)
    tokens = torch.arange(3, 20).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(copy(tokens, use_cache=False).logits, model(tokens, use_cache=False).logits)
        next(model.parameters()).add_(1)
        assert not torch.equal(next(copy.parameters()), next(model.parameters()))
        weights.update()
        assert all(map(torch.equal, copy.parameters(), model.parameters()))


def test_requests_are_divided_by_prompts_and_evenly():
    def of(*texts):
        return [SampleRequest([ord(letter)], 0) for letter in "".join(texts)]

    assert divide(of("aa", "bb", "cc", "dd"), 2) == [0, 0, 1, 1, 0, 0, 1, 1]
    assert divide(of("abc", "abc"), 3) == [0, 1, 2, 0, 1, 2]
    assert divide(of("aaa", "bbb", "ccc"), 2) == [0, 0, 0, 1, 1, 1, 0, 0, 1]  # Nine: five and four.
    assert divide(of("aaaa"), 2) == [0, 0, 1, 1]
    assert divide(of("a"), 2) == [0]
    assert divide([], 2) == []


def test_the_recipe_says_how_many_processes(policies):
    settings, policy = Rollout(engine="torch", max_new_tokens=4), policies["qwen3"]
    assert isinstance(make_sampler(settings, policy, 1), TorchSampler)
    sampler = make_sampler(settings, policy, 2)
    assert isinstance(sampler, ProcessSampler)
    assert len(sampler._workers) == 2
    sampler.close()
