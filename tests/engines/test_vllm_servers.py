"""vLLM's own server: the weights reach it, and it is killed while it samples."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-engines` has it")

from cascade.policy.hf import HFPolicy
from cascade.recipe import Rollout
from cascade.rollout import make_sampler
from cascade.rollout.base import Sample
from cascade.rollout.vllm_engine import servers
from cascade.utils.orphans import Tether
from tests.engines.moe import make_moe
from tests.engines.test_vllm import GAP, largest_gap, requests


class Server:
    """A server as docs/vllm.md says to start it, over `parallel` processes, in a process group of its own; it does not
    outlive the tests."""

    def __init__(self, checkpoint, port: int, tether: Tether, parallel: int):
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
        command += [
            "--dtype",
            "float32",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--gpu-memory-utilization",
            "0.1",
            "--tensor-parallel-size",
            str(parallel),
        ]
        command += ["--enforce-eager", "--worker-cls", "cascade.rollout.vllm_engine.worker_cpu.ReloadingCPUWorker"]
        with tether.tie():
            environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
            if parallel > 1:
                environment["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(map(str, range(parallel)))
            self._process = subprocess.Popen(command, env=environment, start_new_session=True)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("parallel", [1, 2])
def test_a_server_samples_from_the_policys_weights_and_once_killed_and_restarted_again(
    tmp_path, capfd, monkeypatch, parallel: int
):
    monkeypatch.setattr(servers, "DEADLINE_SECONDS", 300)
    policy = HFPolicy(make_moe(tmp_path / "policy", seed=0))
    other, port = make_moe(tmp_path / "other", seed=1), free_port()
    tether = Tether()
    running = [Server(other, port, tether, parallel)]
    sampler = make_sampler(Rollout(engine="vllm", max_new_tokens=24, servers=[f"http://127.0.0.1:{port}"]), policy)
    killed = threading.Event()

    def on_finish(conversation: int, sample: Sample) -> None:
        if not killed.is_set():
            killed.set()
            running[0].kill()
            running.append(Server(other, port, tether, parallel))

    try:
        whole = sampler.sample(requests(), max_new_tokens=24)
        assert largest_gap(policy, whole) < GAP
        began = time.monotonic()
        samples = sampler.sample(requests(), max_new_tokens=24, on_finish=on_finish)
        assert killed.is_set()
        print(f"killed and restarted: {time.monotonic() - began:.1f} s")
    finally:
        sampler.close()
        for server in running:
            server.kill()
        tether.release()
    assert [sample.token_ids for sample in samples] == [sample.token_ids for sample in whole]
    assert largest_gap(policy, samples) < GAP
    told = capfd.readouterr().err
    assert f"http://127.0.0.1:{port} is lost" in told
    assert f"http://127.0.0.1:{port} takes part" in told
