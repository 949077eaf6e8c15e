"""Verification on the machines of a Ray cluster. Training, evaluation and curation judge as ever; the threads that
would do it wait for verifiers elsewhere instead.

What travels is the row and the response one way and the verdict the other: policy, tokenizer and the state of an
episode stay where they are. Every machine of the cluster has Cascade installed, at this version, and the sandbox where
code is judged; JUDGE_API_KEY, where judges want one, must stand in the environment of `ray start`. Ray authenticates
nobody: its ports belong on a network that only the cluster's machines reach.
"""

import os
import socket
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from cascade import environments, judges
from cascade.chat import Response, Row
from cascade.environments import Verdict
from cascade.environments.verification import judge, judge_elsewhere, judge_together
from cascade.errors import CascadeError
from cascade.judges.settings import Judges
from cascade.recipe.placement import Verification

PATIENCE = 3600.0
"""Seconds after which a verdict that has not come counts as lost. Verifiers have time limits of their own."""

RETRIES = 2
"""How often a verification is given to a new worker when its machine or process was lost."""


def spread(settings: Verification, asked: Judges, threads: int) -> None:
    """Have `threads` threads of this process judge on the cluster from now on. The first that asks joins it.

    Raises CascadeError where Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise CascadeError("verification.ray: Ray is not installed; pip install -e '.[ray]'") from None
    judge_elsewhere(_Cluster(settings, asked, threads))


class _Verifier:
    """A process of the cluster that judges, with `asked` as the recipe's judges."""

    def __init__(self, asked: Judges):
        judges.use(asked)

    def judge(
        self, name: str, row: Row, responses: Sequence[Response], together: bool
    ) -> tuple[list[Verdict], judges.Usage]:
        environment = environments.get(name)
        if together:
            found = judge_together(environment, row, responses)
        else:
            found = [judge(environment, row, response) for response in responses]
        return found, judges.take_usage()


class _Cluster:
    """The verifiers, each call given to one of those with the fewest under way."""

    def __init__(self, settings: Verification, asked: Judges, threads: int):
        self._settings = settings
        self._asked = asked
        self._at_once = -(-threads // settings.workers)
        self._lock = threading.Lock()
        self._verifiers: list[Any] = []
        self._under_way: list[int] = []

    def __call__(self, name: str, row: Row, responses: Sequence[Response], together: bool) -> list[Verdict]:
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        with self._lock:
            if not self._verifiers:
                self._join()
            chosen = min(range(len(self._verifiers)), key=lambda i: self._under_way[i])
            self._under_way[chosen] += 1
        try:
            call = self._verifiers[chosen].judge.remote(name, row, list(responses), together)
            found, usage = ray.get(call, timeout=PATIENCE)
        except GetTimeoutError:
            return [Verdict(None, "verifier_lost", reason=f"no verdict in {PATIENCE:.0f} s")] * len(responses)
        except RayError as error:
            lost = " ".join(str(error).split())[:300]
            return [Verdict(None, "verifier_lost", reason=lost)] * len(responses)
        finally:
            with self._lock:
                self._under_way[chosen] -= 1
        judges.report_usage(usage)
        return found

    def _join(self) -> None:
        """Raises CascadeError where there is no cluster or it is too small. The processes of one node, which torchrun
        numbers, share their verifiers."""
        import ray
        from ray.exceptions import RayError

        node = os.environ.get("TORCHELASTIC_RUN_ID") or uuid.uuid4().hex
        address, count = self._settings.ray, self._settings.workers
        try:
            if address != "auto":  # Ray itself would try for minutes.
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address, namespace=f"cascade-{node}", log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise CascadeError(
                f"verification.ray: no cluster at {address} ({' '.join(str(error).split())[:200]}); "
                "`ray start` makes this machine part of one"
            ) from None
        if count > (processors := int(ray.cluster_resources().get("CPU", 0))):
            raise CascadeError(f"verification.workers: {count}, but the cluster at {address} has {processors} CPUs")
        made = ray.remote(_Verifier)
        self._verifiers = [
            made.options(
                name=f"verifier-{number}",
                get_if_exists=True,
                num_cpus=1,
                scheduling_strategy="SPREAD",
                max_restarts=-1,
                max_task_retries=RETRIES,
                max_concurrency=self._at_once,
            ).remote(self._asked)
            for number in range(count)
        ]
        self._under_way = [0] * count
