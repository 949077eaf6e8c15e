"""A node as an indexed Job on Kubernetes, by kubectl: applied, its output followed, deleted with the run.

The recipe's manifest has what depends on the cluster: namespace, volumes, tolerations. The project directory must be on
a volume that the pods and the pool's worker share. The output of the first machine is printed; where the job fails,
also the last lines of the others.
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
"""Seconds between two polls of the job."""

LABEL = "cascade-node"
PORT = 29500
"""Port of the first pod; each pod has its own network."""


def run(job: Job) -> int:
    """Apply the job, print its output, and return its exit status when it has ended. A job of the same project and node
    that an earlier run left is deleted first, with its pods."""
    stop_on_sigterm()
    objects = manifest(job)
    cluster = _Cluster(job.name, objects[0]["metadata"].get("namespace"))
    cluster.delete(wait=True)
    try:
        cluster.call("apply", "--filename=-", stdin=yaml.safe_dump_all(objects))
        say(f"Kubernetes job {job.name}")
        return _watch(cluster)
    finally:
        cluster.delete(wait=False)


def manifest(job: Job) -> list[dict[str, Any]]:
    """The Job, and for several machines the headless service by which they find each other. Raises CascadeError where
    the recipe's manifest is not a Job with one container."""
    place = job.place
    assert place.manifest is not None
    path = job.layout.root / place.manifest
    try:
        job_object: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        [container] = job_object["spec"]["template"]["spec"]["containers"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        raise CascadeError(f"{path}: not the manifest of a Job with one container; see flows/kubernetes.yaml") from None
    metadata = job_object.setdefault("metadata", {})
    metadata["name"] = job.name
    metadata.setdefault("labels", {})[LABEL] = job.name
    # No pod is replaced, because the others are in the middle of a step; the whole node is resumed instead.
    job_object["spec"] |= {
        "completionMode": "Indexed",
        "completions": job.machines,
        "parallelism": job.machines,
        "backoffLimit": 0,
    }
    template = job_object["spec"]["template"]
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
        return [job_object]
    service_metadata = {key: metadata[key] for key in ("name", "namespace", "labels") if key in metadata}
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {LABEL: job.name}}
    return [job_object, {"apiVersion": "v1", "kind": "Service", "metadata": service_metadata, "spec": service}]


class _Cluster:
    """kubectl for the objects with one label."""

    def __init__(self, name: str, namespace: str | None):
        self._selector = ["--selector", f"{LABEL}={name}"]
        self._kubectl = ["kubectl", *([f"--namespace={namespace}"] if namespace else [])]

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        return call(*self._kubectl, *arguments, stdin=stdin)

    def delete(self, *, wait: bool) -> None:
        options = ["--cascade=foreground", "--wait=true", "--timeout=50s"] if wait else ["--wait=false"]
        self.call("delete", "jobs,services", *self._selector, "--ignore-not-found", *options)

    def look(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The job (None where it was deleted) and its pods."""
        items = json.loads(self.call("get", "jobs,pods", *self._selector, "--output", "json"))["items"]
        jobs = [item for item in items if item["kind"] == "Job"]
        return (jobs[0] if jobs else None), [item for item in items if item["kind"] == "Pod"]

    def follow(self, pod: str) -> threading.Thread:
        """Print the output of a pod until it ends, in a thread."""

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
        say(self.call("logs", *self._selector, "--tail=20", "--prefix", "--max-log-requests=100").rstrip("\n"))


def _watch(cluster: _Cluster) -> int:
    log_thread: threading.Thread | None = None
    last_reason = ""
    while True:
        try:
            job, pods = cluster.look()
        except CascadeError as error:
            say(str(error))  # The cluster may be unreachable for a while; the job goes on.
            time.sleep(POLL)
            continue
        if job is None:
            say("the job was deleted")
            return INTERRUPTED
        if (reason := _waiting_reasons(pods)) != last_reason:
            say(f"waiting: {reason}") if reason else None
            last_reason = reason
        first_pod = next((pod for pod in pods if _index(pod) == 0 and _phase(pod) != "Pending"), None)
        if first_pod is not None and log_thread is None:
            log_thread = cluster.follow(first_pod["metadata"]["name"])
        ended = {c["type"] for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"}
        if ended & {"Complete", "Failed"}:
            break
        time.sleep(POLL)
    if log_thread is not None:
        log_thread.join(POLL)
    if "Complete" in ended:
        return 0
    if len(pods) > 1:
        cluster.show_ends()
    return exit_status(pods)


def exit_status(pods: list[dict[str, Any]]) -> int:
    """The exit status of the pod that failed first, because the others failed with it; `INTERRUPTED` where that pod was
    evicted or its machine was lost."""
    failed = []
    for pod in pods:
        status = pod.get("status", {})
        for container in status.get("containerStatuses", []):
            ended = container.get("state", {}).get("terminated")
            if ended and ended["exitCode"]:
                disrupted = any(c["type"] == "DisruptionTarget" for c in status.get("conditions", []))
                failed.append((ended["finishedAt"], INTERRUPTED if disrupted else int(ended["exitCode"])))
    return min(failed)[1] if failed else INTERRUPTED


def _waiting_reasons(pods: list[dict[str, Any]]) -> str:
    """The cluster's reasons why pods are not running yet."""
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
