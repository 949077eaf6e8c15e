"""The recipe's sections on where nodes run. They are not inputs of any node: its results do not depend on them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cascade.utils.config import Count, Section

LOCAL_POOL = "local"
"""The pool of the machine where the flow runs."""


class Verification(Section):
    """Verifiers on the machines of a Ray cluster, instead of in the threads of the node."""

    ray: str
    """Its address, HOST:PORT, or `auto` for the cluster of this machine."""
    workers: Count
    """Concurrent verifiers, each on one CPU of the cluster."""


class Workers(Section):
    """The processes of curation; its results do not depend on them."""

    ray: str | None = None
    """Processes of a Ray cluster instead of this machine: its address, HOST:PORT, or `auto` for the cluster of this
    machine. Its machines must see the project's directory under the same path."""
    processes: Count | None = None
    """One on each core of the machine or the cluster by default."""


class Placement(Section):
    """Where a node runs, and how its processes are started there."""

    pool: str = LOCAL_POOL
    """Prefect's work pool whose worker starts the node; `local` is the machine where the flow runs."""
    launcher: Literal["local", "torchrun", "slurm", "kubernetes"] = "local"
    """What the pool's worker does: run the node itself, start one process a GPU there (torchrun), or have a cluster
    do so on `machines`."""
    machines: Count = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of each machine. A training node has one process for each, at least one."""
    gpu_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of each GPU, in GiB. With it, a node that needs more fails before it starts."""
    image: str | None = None
    """The container: of Slurm's pyxis plugin, or Kubernetes'."""
    options: tuple[str, ...] = ()
    """Slurm: sbatch's further options, such as --partition=gpu and --time=24:00:00."""
    manifest: str | None = None
    """Kubernetes: file of the Job to start from, which has the project's volume; see flows/kubernetes.yaml."""

    @model_validator(mode="after")
    def _of_the_launcher(self) -> "Placement":
        cluster = self.launcher in ("slurm", "kubernetes")
        if self.machines > 1 and not cluster:
            raise ValueError(f"machines: launcher {self.launcher} has one; slurm and kubernetes can have more")
        if self.launcher == "torchrun" and self.gpus < 2:
            raise ValueError(f"gpus: launcher torchrun starts a process on each, and there are {self.gpus}; say local")
        if self.image is not None and not cluster:
            raise ValueError(f"image: launcher {self.launcher} starts no container; take it out")
        if self.options and self.launcher != "slurm":
            raise ValueError(f"options: they are sbatch's, and the launcher is {self.launcher}; take them out")
        if (self.manifest is None) == (self.launcher == "kubernetes"):
            raise ValueError("manifest: launcher kubernetes needs it, and no other does")
        if self.launcher == "kubernetes" and self.image is None:
            raise ValueError("image: launcher kubernetes needs it")
        return self
