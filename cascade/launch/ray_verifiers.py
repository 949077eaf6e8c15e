"""Verification on the machines of a Ray cluster: the judging threads of training, evaluation and curation call remote
verifiers.

Rows and responses are sent to the verifiers, verdicts come back; policy, tokenizer and the state of an episode stay in
the node's process. Every machine of the cluster needs Cascade in the same version, and the sandbox where code is
judged; JUDGE_API_KEY, where judges need one, must be set in the environment of `ray start`. Ray has no authentication:
its ports must be on a network that only the cluster's machines reach.
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
"""Timeout of a verdict, in seconds; after it the verdict counts as lost. Verifiers have shorter time limits."""

RETRIES = 2
"""Retries of a verification on another worker when its machine or process was lost."""


def spread(settings: Verification, judge_settings: Judges, threads: int) -> None:
    """Make the `threads` judging threads of this process use the cluster. The first verification connects to it.

    Raises CascadeError where Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise CascadeError("verification.ray: Ray is not installed; pip install -e '.[ray]'") from None
    judge_elsewhere(_Cluster(settings, judge_settings, threads))


class _Verifier:
    """An actor of the cluster that verifies, with the recipe's `judge_settings`."""

    def __init__(self, judge_settings: Judges):
        judges.use(judge_settings)

    def judge(
        self, name: str, row: Row, responses: Sequence[Response], together: bool
    ) -> tuple[list[Verdict], judges.Usage]:
        environment = environments.get(name)
        if together:
            verdicts = judge_together(environment, row, responses)
        else:
            verdicts = [judge(environment, row, response) for response in responses]
        return verdicts, judges.take_usage()


class _Cluster:
    """The verifiers; each call goes to one with the fewest calls in progress."""

    def __init__(self, settings: Verification, judge_settings: Judges, threads: int):
        self._settings = settings
        self._judge_settings = judge_settings
        self._at_once = -(-threads // settings.workers)
        self._lock = threading.Lock()
        self._verifiers: list[Any] = []
        self._in_progress: list[int] = []

    def __call__(self, name: str, row: Row, responses: Sequence[Response], together: bool) -> list[Verdict]:
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        with self._lock:
            if not self._verifiers:
                self._join()
            index = min(range(len(self._verifiers)), key=lambda i: self._in_progress[i])
            self._in_progress[index] += 1
        try:
            call = self._verifiers[index].judge.remote(name, row, list(responses), together)
            verdicts, usage = ray.get(call, timeout=PATIENCE)
        except GetTimeoutError:
            return [Verdict(None, "verifier_lost", reason=f"no verdict in {PATIENCE:.0f} s")] * len(responses)
        except RayError as error:
            message = " ".join(str(error).split())[:300]
            return [Verdict(None, "verifier_lost", reason=message)] * len(responses)
        finally:
            with self._lock:
                self._in_progress[index] -= 1
        judges.report_usage(usage)
        return verdicts

    def _join(self) -> None:
        """Connect, and start the verifiers. The processes of one torchrun job share them. Raises CascadeError where
        there is no cluster or it is too small."""
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
        actor_class = ray.remote(_Verifier)
        self._verifiers = [
            actor_class.options(
                name=f"verifier-{number}",
                get_if_exists=True,
                num_cpus=1,
                scheduling_strategy="SPREAD",
                max_restarts=-1,
                max_task_retries=RETRIES,
                max_concurrency=self._at_once,
            ).remote(self._judge_settings)
            for number in range(count)
        ]
        self._in_progress = [0] * count
