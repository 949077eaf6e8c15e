"""How the processes of a node are started: here, by torchrun, by Slurm or on Kubernetes, as its entry in `pools` says.

`cascade node NAME` stays the command of the DVC stage. Where the recipe wants the node elsewhere, that process starts
it there, passes on what it prints, ends as it ends, and takes it down when it is itself told to stop.
"""

import os

from cascade.launch.job import MARK, Job
from cascade.layout import Layout
from cascade.recipe import load
from cascade.utils.orphans import kill_with_parent


def launched(verb: str, name: str, layout: Layout) -> bool:
    """Have `cascade VERB NAME` run where the recipe wants it; False where that is this very process.

    Raises CascadeError where a launcher's command is missing or refuses, and SystemExit with the exit status of what
    failed elsewhere.
    """
    if MARK in os.environ:
        # torchrun gives each process a session of its own: killed itself, it would leave them running.
        kill_with_parent(int(os.environ[MARK]))
        return False
    recipe = load(layout.params)
    place = recipe.place(name)
    # Evaluations and decisions are made by one process.
    job = Job(["-m", "cascade", verb, name], place, layout, together=verb == "node" and name in recipe.training)
    if place.launcher == "local" or (place.launcher == "torchrun" and not job.together):
        return False
    if code := _run(job):
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
