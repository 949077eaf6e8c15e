"""A node as an indexed Job on Kubernetes, by kubectl: applied, its output followed, deleted with the run.

The recipe's manifest says what is the cluster's own: namespace, volumes, tolerations. The project directory must be
on a volume that the pods and the pool's worker share. What the pods print is that of the first machine; of the others
the end is shown where the job fails.
"""

import json
import os
import subprocess
import threading
import time
from typing import Any

import yaml

from cascade.errors import CascadeError
from cascade.launch.job import INTERRUPTED, Job, call, stop_on_sigterm
from cascade.utils.progress import say

POLL = 5.0
"""Seconds between two looks at the job."""

LABEL = "cascade-node"
PORT = 29500
"""Where the first pod is met: pods have networks of their own."""


def run(job: Job) -> int:
    """Apply the job, print what it prints, and return its exit status when it has ended. A job of the same project
    and node that an earlier run left behind is deleted first, pods included."""
    stop_on_sigterm()
    wanted = manifest(job)
    cluster = _Cluster(job.name, wanted[0]["metadata"].get("namespace"))
    cluster.delete(wait=True)
    try:
        cluster.call("apply", "--filename=-", given=yaml.safe_dump_all(wanted))
        say(f"Kubernetes job {job.name}")
        return _watch(cluster)
    finally:
        cluster.delete(wait=False)


def manifest(job: Job) -> list[dict[str, Any]]:
    """The Job, and where it has several machines the service by which they find each other. Raises CascadeError where
    the recipe's manifest is not a Job with one container."""
    place = job.place
    assert place.manifest is not None
    path = job.layout.root / place.manifest
    try:
        wanted: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        [container] = wanted["spec"]["template"]["spec"]["containers"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        raise CascadeError(f"{path}: not the manifest of a Job with one container; see flows/kubernetes.yaml") from None
    metadata = wanted.setdefault("metadata", {})
    metadata["name"] = job.name
    metadata.setdefault("labels", {})[LABEL] = job.name
    # No pod is replaced: the others would wait for it with half a step behind them. The node resumes as a whole.
    wanted["spec"] |= {
        "completionMode": "Indexed",
        "completions": job.machines,
        "parallelism": job.machines,
        "backoffLimit": 0,
    }
    template = wanted["spec"]["template"]
    template.setdefault("metadata", {}).setdefault("labels", {})[LABEL] = job.name
    template["spec"] |= {"restartPolicy": "Never", "subdomain": job.name}
    meeting = f"{job.name}-0.{job.name}:{PORT}"
    container["image"] = place.image
    container["command"] = job.workers("python", "JOB_COMPLETION_INDEX", meeting)
    if "CASCADE_RUN_ID" in os.environ:  # The run that the node's measurements belong to.
        container.setdefault("env", []).append({"name": "CASCADE_RUN_ID", "value": os.environ["CASCADE_RUN_ID"]})
    if place.gpus:
        container.setdefault("resources", {}).setdefault("limits", {})["nvidia.com/gpu"] = place.gpus
    if job.machines == 1:
        return [wanted]
    named = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {LABEL: job.name}}
    return [wanted, {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": service}]


class _Cluster:
    """kubectl, for what bears one label."""

    def __init__(self, name: str, namespace: str | None):
        self._selected = ["--selector", f"{LABEL}={name}"]
        self._kubectl = ["kubectl", *([f"--namespace={namespace}"] if namespace else [])]

    def call(self, *arguments: str, given: str | None = None) -> str:
        return call(*self._kubectl, *arguments, given=given)

    def delete(self, *, wait: bool) -> None:
        how = ["--cascade=foreground", "--wait=true", "--timeout=50s"] if wait else ["--wait=false"]
        self.call("delete", "jobs,services", *self._selected, "--ignore-not-found", *how)

    def look(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The job, None where it is gone, and its pods."""
        found = json.loads(self.call("get", "jobs,pods", *self._selected, "--output", "json"))["items"]
        jobs = [item for item in found if item["kind"] == "Job"]
        return (jobs[0] if jobs else None), [item for item in found if item["kind"] == "Pod"]

    def follow(self, pod: str) -> threading.Thread:
        """Print what a pod prints until it ends."""

        def follow() -> None:
            with subprocess.Popen(
                [*self._kubectl, "logs", "--follow", pod], stdout=subprocess.PIPE, text=True, errors="replace"
            ) as logs:
                assert logs.stdout is not None
                for line in logs.stdout:
                    say(line.rstrip("\n"))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        return thread

    def show_ends(self) -> None:
        say(self.call("logs", *self._selected, "--tail=20", "--prefix", "--max-log-requests=100").rstrip("\n"))


def _watch(cluster: _Cluster) -> int:
    following: threading.Thread | None = None
    told = ""
    while True:
        try:
            job, pods = cluster.look()
        except CascadeError as error:
            say(str(error))  # The cluster may be out of reach for a while; the job goes on.
            time.sleep(POLL)
            continue
        if job is None:
            say("the job was deleted")
            return INTERRUPTED
        if (waits := _waits_for(pods)) != told:
            say(f"waiting: {waits}") if waits else None
            told = waits
        first = next((pod for pod in pods if _index(pod) == 0 and _phase(pod) != "Pending"), None)
        if first is not None and following is None:
            following = cluster.follow(first["metadata"]["name"])
        ended = {c["type"] for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"}
        if ended & {"Complete", "Failed"}:
            break
        time.sleep(POLL)
    if following is not None:
        following.join(POLL)
    if "Complete" in ended:
        return 0
    if len(pods) > 1:
        cluster.show_ends()
    return exit_status(pods)


def exit_status(pods: list[dict[str, Any]]) -> int:
    """Of a failed job: that of the pod that failed first, for the others failed because of it. A pod that was evicted,
    or whose machine is gone, ended from outside."""
    failed = []
    for pod in pods:
        status = pod.get("status", {})
        for container in status.get("containerStatuses", []):
            ended = container.get("state", {}).get("terminated")
            if ended and ended["exitCode"]:
                disrupted = any(c["type"] == "DisruptionTarget" for c in status.get("conditions", []))
                failed.append((ended["finishedAt"], INTERRUPTED if disrupted else int(ended["exitCode"])))
    return min(failed)[1] if failed else INTERRUPTED


def _waits_for(pods: list[dict[str, Any]]) -> str:
    """Why pods are not running yet, in the cluster's words."""
    reasons = []
    for pod in pods:
        if _phase(pod) == "Pending":
            status = pod["status"]
            states = [c.get("state", {}).get("waiting", {}) for c in status.get("containerStatuses", [])]
            reasons += [state["reason"] for state in states if "reason" in state]
            reasons += [c["message"] for c in status.get("conditions", []) if c["status"] == "False" and "message" in c]
    return "; ".join(dict.fromkeys(reasons))


def _phase(pod: dict[str, Any]) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _index(pod: dict[str, Any]) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
