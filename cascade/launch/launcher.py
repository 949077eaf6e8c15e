"""Start the processes of a node by the launcher of its entry in `pools`: local, torchrun, Slurm or Kubernetes.

`cascade node NAME` stays the command of the DVC stage. Where the node runs in other processes, this one starts them,
prints their output, exits with their status, and cancels them when it is stopped.
"""

import os

from cascade.launch.job import MARK, Job
from cascade.layout import Layout
from cascade.recipe import load
from cascade.utils.orphans import kill_with_parent


def launched(verb: str, name: str, layout: Layout) -> bool:
    """Run `cascade VERB NAME` by the node's launcher; False where it is to run in this process.

    Raises CascadeError where a launcher's command is missing or fails, and SystemExit with the exit status of a job
    that failed.
    """
    if MARK in os.environ:
        # torchrun starts each process in a new session: when it is killed, they would go on running.
        kill_with_parent(int(os.environ[MARK]))
        return False
    recipe = load(layout.params)
    place = recipe.place(name)
    # Evaluations and decisions are made by one process.
    job = Job(["-m", "cascade", verb, name], place, layout, together=verb == "node" and name in recipe.training)
    if place.launcher == "local" or (place.launcher == "torchrun" and not job.together):
        return False
    jobs = [job]
    if verb == "node" and name in recipe.checks:
        # It may sample for long, while all processes of the distillation would wait.
        jobs.insert(0, Job(["-m", "cascade", "check", name], place, layout, together=False))
    for each in jobs:
        if code := _run(each):
            raise SystemExit(code)
    return True


def _run(job: Job) -> int:
    if job.place.launcher == "slurm":
        from cascade.launch import slurm

        return slurm.run(job)
    if job.place.launcher == "kubernetes":
        from cascade.launch import kubernetes

        return kubernetes.run(job)
    from cascade.launch import torchrun

    return torchrun.run(job.program, job.processes)
