# sbatch scancel scontrol srun
"""Slurm as far as a launcher sees it: jobs of one name one after the other, states and exit statuses of jobs, SIGTERM
and then SIGKILL to all that a cancelled job has started. `srun` starts a task a node, all of them on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_CLUSTER"])


def put(number: str, key: str, value: object) -> None:
    aside = STATE / f"{number}.{key}.{os.getpid()}"
    aside.write_text(str(value))
    aside.rename(STATE / f"{number}.{key}")


def get(number: str, key: str, default: str = "") -> str:
    path = STATE / f"{number}.{key}"
    return path.read_text() if path.exists() else default


def numbers() -> list[str]:
    return sorted((path.stem for path in STATE.glob("*.name")), key=int)


def sbatch(arguments: list[str]) -> int:
    if (STATE / "down").exists():
        print("sbatch: error: Batch job submission failed: Invalid partition name specified", file=sys.stderr)
        return 1
    given = dict(word.removeprefix("--").partition("=")[::2] for word in arguments)
    number = str(len(numbers()) + 1)
    put(number, "options", "\n".join(arguments))
    put(number, "script", sys.stdin.read())
    put(number, "state", "PENDING")
    put(number, "name", given["job-name"])
    print(number)
    sys.stdout.flush()
    if os.fork():
        return 0
    os.setsid()
    for other in numbers()[:-1]:  # --dependency=singleton
        while get(other, "name") == given["job-name"] and get(other, "state") in ("PENDING", "RUNNING"):
            time.sleep(0.05)
    if get(number, "state") == "CANCELLED":
        return 0
    environment = {
        **os.environ,
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NODELIST": "here[0-1]",
        "SLURM_NNODES": given["nodes"],
    }
    with open(given["output"], "ab") as output:
        null = open(os.devnull)  # noqa: SIM115
        os.dup2(null.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        job = subprocess.Popen(["sh", str(STATE / f"{number}.script")], cwd=given["chdir"], env=environment)
    put(number, "group", os.getpid())
    put(number, "state", "RUNNING")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = job.wait()
    if get(number, "state") == "RUNNING":
        put(number, "code", f"0:{-code}" if code < 0 else f"{code}:0")
        put(number, "state", "FAILED" if code else "COMPLETED")
    return 0


def srun(arguments: list[str]) -> int:
    command = [word for word in arguments if not word.startswith("--") or word == "--"]
    start = next(i for i, word in enumerate(arguments) if not word.startswith("--"))
    command = arguments[start:]
    tasks = [
        subprocess.Popen(command, env={**os.environ, "SLURM_NODEID": str(node)})
        for node in range(int(os.environ["SLURM_NNODES"]))
    ]
    codes = [None] * len(tasks)
    while None in codes:
        codes = [task.poll() for task in tasks]
        if any(codes):  # --kill-on-bad-exit
            for task in tasks:
                task.terminate()
            codes = [task.wait() for task in tasks]
        time.sleep(0.05)
    return max(128 - code if code < 0 else code for code in codes)


def scancel(arguments: list[str]) -> int:
    given = dict(word.removeprefix("--").partition("=")[::2] for word in arguments)
    for number in numbers():
        if get(number, "name") == given["name"] and get(number, "state") in ("PENDING", "RUNNING"):
            put(number, "state", "CANCELLED")
            if group := get(number, "group"):
                os.killpg(int(group), signal.SIGTERM)
                if not os.fork():
                    time.sleep(1.5)  # KillWait
                    os.killpg(int(group), signal.SIGKILL)
    return 0


def scontrol(arguments: list[str]) -> int:
    if arguments[:2] == ["show", "hostnames"]:
        print("127.0.0.1\n127.0.0.2")
        return 0
    number = arguments[2]
    if not get(number, "state"):
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    state = get(number, "state")
    reason = "Resources" if state == "PENDING" else "None"
    print(f"JobId={number} JobName=x JobState={state} Reason={reason} ExitCode={get(number, 'code', '0:0')} Nice=0")
    return 0


if __name__ == "__main__":
    sys.exit(globals()[Path(sys.argv[0]).name](sys.argv[1:]))
