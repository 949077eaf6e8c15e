"""A node as a job of a Slurm cluster: submitted, its output followed, cancelled with the run.

The job's state is polled, because `sbatch --wait` returns 1 for every job that a signal or a time limit ended, and when
the controller restarts. All machines must see the project directory under the
same path.
"""

import getpass
import re
import shlex
import sys
import time
from pathlib import Path

from cascade.errors import CascadeError
from cascade.launch.job import INTERRUPTED, Job, call, stop_on_sigterm
from cascade.utils.progress import say

POLL = 5.0
"""Seconds between two polls of the job's state."""

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "RESIZING"}
"""States of a job that has not ended."""

OWN_EXIT_STATUS = {"COMPLETED", "FAILED", "OUT_OF_MEMORY"}
"""States in which the job's exit status says what happened. In all others (CANCELLED, TIMEOUT, PREEMPTED, NODE_FAIL, …)
the job was ended from outside, and resumes when it is submitted again."""


def run(job: Job) -> int:
    """Submit the job, print its output, and return its exit status when it has ended. A job of the same project and
    node that an earlier run left is cancelled first."""
    stop_on_sigterm()
    log = job.layout.root.resolve() / ".cascade" / "logs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    _cancel(job)
    try:
        output = call("sbatch", "--parsable", *options(job, log), stdin=script(job))
        number = output.strip().partition(";")[0]  # NUMBER or NUMBER;CLUSTER
        say(f"Slurm job {number}, its output also in {log}")
        return _watch(number, log)
    except BaseException:
        _cancel(job)
        raise


def _cancel(job: Job) -> None:
    """By name, because the number may be unknown where submitting was interrupted."""
    call("scancel", f"--name={job.name}", f"--user={getpass.getuser()}")


def options(job: Job, log: Path) -> list[str]:
    """Options of sbatch."""
    return [
        f"--job-name={job.name}",
        "--dependency=singleton",
        f"--nodes={job.machines}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={job.place.gpus}"] if job.place.gpus else []),
        f"--chdir={job.layout.root.resolve()}",
        f"--output={log}",
        "--open-mode=append",
        "--no-requeue",
        *job.place.options,
    ]


def script(job: Job) -> str:
    """The batch script: one task for each machine, which starts the processes there, with this Python or the
    container's."""
    step = ["srun", "--kill-on-bad-exit=1"]
    if job.place.image is not None:
        root = job.layout.root.resolve()
        step += [f"--container-image={job.place.image}"]
        step += [f"--container-mounts={root}:{root}", f"--container-workdir={root}"]
    python = sys.executable if job.place.image is None else "python"
    words = [*step, *job.workers(python, "SLURM_NODEID", "MEETING")]
    start = " ".join('"$MEETING"' if word == "MEETING" else shlex.quote(word) for word in words)
    return f"""#!/bin/sh
MEETING="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((20000 + SLURM_JOB_ID % 10000))"
exec {start}
"""


def _watch(number: str, log: Path) -> int:
    offset, last_news = 0, ""
    while True:
        state, code, reason = _state(number)
        if (news := f"{state}{reason}") != last_news and state in WAITING and state != "RUNNING":
            say(f"Slurm job {number}: {state.lower()}{reason}")
            last_news = news
        offset += _print_new_lines(log, offset)
        if state not in WAITING | {"UNKNOWN"}:
            break
        time.sleep(POLL)
    # Output of the last machine may arrive late on a network file system.
    time.sleep(min(POLL, 1.0))
    _print_new_lines(log, offset)
    if state in OWN_EXIT_STATUS:
        return code
    say(f"Slurm job {number}: {state.lower()}")
    return INTERRUPTED


def _state(number: str) -> tuple[str, int, str]:
    """State, exit status as a shell gives it, and the reason of waiting. UNKNOWN while the controller does not
    answer."""
    try:
        output = call("scontrol", "show", "job", number, "--oneliner")
    except CascadeError as error:
        if "Invalid job id" in str(error):
            return "FORGOTTEN", 0, ""
        say(str(error))
        return "UNKNOWN", 0, ""
    fields = dict(re.findall(r"(\w+)=(\S*)", output))
    code, _, signal = fields["ExitCode"].partition(":")
    reason = "" if fields.get("Reason", "None") == "None" else f" ({fields['Reason']})"
    return fields["JobState"], 128 + int(signal) if int(signal or 0) else int(code), reason


def _print_new_lines(log: Path, offset: int) -> int:
    """Print the complete lines after the first `offset` bytes; returns their length in bytes."""
    with open(log, "rb") as file:
        file.seek(offset)
        content = file.read()
    lines = content[: content.rfind(b"\n") + 1]
    if lines:
        say(lines.decode(errors="replace").rstrip("\n"))
    return len(lines)
