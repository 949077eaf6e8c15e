# kubectl
"""kubectl and a cluster of this machine, as far as a launcher sees them: an indexed Job's pods are processes; one that
fails takes the job and the other pods with it; deleting the job ends them by SIGTERM, then SIGKILL."""

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

STATE = Path(os.environ["FAKE_CLUSTER"])


def save(name: str, value: object) -> None:
    aside = STATE / f"{name}.{os.getpid()}"
    aside.write_text(json.dumps(value))
    aside.rename(STATE / f"{name}.json")


def read(name: str) -> dict | None:
    path = STATE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def apply(arguments: list[str]) -> int:
    wanted = {item["kind"]: item for item in yaml.safe_load_all(sys.stdin)}
    save("applied", wanted)
    job = wanted["Job"]
    save("job", job)
    print(f"job.batch/{job['metadata']['name']} created")
    sys.stdout.flush()
    if os.fork():
        return 0
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    [container] = job["spec"]["template"]["spec"]["containers"]
    name = job["metadata"]["name"]
    command = [sys.executable if word == "python" else word for word in container["command"]]
    command = [word.replace(f"{name}-0.{name}:29500", "127.0.0.1:29571") for word in command]
    environment = {**os.environ, **{variable["name"]: variable["value"] for variable in container.get("env", [])}}
    pods = []
    for index in range(job["spec"]["completions"]):
        with open(STATE / f"{name}-{index}-abcde.log", "wb") as log:
            pods.append(
                subprocess.Popen(
                    command,
                    env={**environment, "JOB_COMPLETION_INDEX": str(index)},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
    ended: dict[int, dict] = {}
    while len(ended) < len(pods):
        for index, pod in enumerate(pods):
            if pod.poll() is not None and index not in ended:
                code = 128 - pod.returncode if pod.returncode < 0 else pod.returncode
                ended[index] = {"exitCode": code, "finishedAt": datetime.datetime.now().isoformat()}
        save("pods", [state(job, index, ended.get(index)) for index in range(len(pods))])
        if read("job") is None or any(end["exitCode"] for end in ended.values()):
            for pod in pods:
                if pod.poll() is None:
                    os.killpg(pod.pid, signal.SIGTERM)
            until = time.monotonic() + 1.5  # terminationGracePeriodSeconds
            while time.monotonic() < until and any(pod.poll() is None for pod in pods):
                time.sleep(0.05)
            for pod in pods:
                if pod.poll() is None:
                    os.killpg(pod.pid, signal.SIGKILL)
                    pod.wait()
        time.sleep(0.05)
    if read("job") is not None:
        failed = any(end["exitCode"] for end in ended.values())
        save("job", {**job, "status": {"conditions": [{"type": "Failed" if failed else "Complete", "status": "True"}]}})
    else:
        (STATE / "pods.json").unlink()
    return 0


def state(job: dict, index: int, ended: dict | None) -> dict:
    container = {"state": {"terminated": ended} if ended else {"running": {}}}
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{job['metadata']['name']}-{index}-abcde",
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "status": {"phase": "Running" if not ended else "Failed", "containerStatuses": [container], "conditions": []},
    }


def get(arguments: list[str]) -> int:
    job, pods = read("job"), read("pods") or []
    print(json.dumps({"kind": "List", "items": [*([job] if job else []), *pods]}))
    return 0


def delete(arguments: list[str]) -> int:
    (STATE / "job.json").unlink(missing_ok=True)
    while "--wait=true" in arguments and any("running" in c["state"] for c in containers()):
        time.sleep(0.05)
    return 0


def containers() -> list[dict]:
    return [container for pod in read("pods") or [] for container in pod["status"]["containerStatuses"]]


def logs(arguments: list[str]) -> int:
    if "--follow" not in arguments:
        for path in sorted(STATE.glob("*.log")):
            print("\n".join(f"[{path.stem}] {line}" for line in path.read_text().splitlines()))
        return 0
    path = STATE / f"{arguments[-1]}.log"
    shown = 0
    while True:
        running = any("running" in c["state"] for c in containers())
        text = path.read_text()
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if not running:
            return 0
        time.sleep(0.05)


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if not word.startswith("--namespace=")]
    sys.exit(globals()[given[0]](given[1:]))
