"""The processes of a node on one machine, by torchrun. Called by the launcher `torchrun` on the node's pool, and on
each machine of a Slurm or Kubernetes job: python -m cascade.launch.torchrun … -- -m cascade node NAME"""

import logging
import os
import sys

import click

from cascade.launch.job import MARK
from cascade.utils.forked import ADDRESS
from cascade.utils.progress import say


def run(program: list[str], processes: int, *, machines: int = 1, machine: int = 0, meeting: str = "") -> int:
    """Run `program` in `processes` Python processes here, on machine number `machine` of `machines`; `meeting`
    (HOST:PORT) is the address of the first. Returns 0, or the exit status of the process that failed first, as a shell
    gives it (128 + the signal that ended it).

    Ranks follow the numbers of the machines, so that a restarted node has the same data on the same rank.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ[MARK] = str(os.getpid())
    os.environ.pop(ADDRESS, None)  # torchrun must start these processes, not the fork server.
    # Each process sets its own number of threads; torchrun warns where there is none.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The failed process has printed its error.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    if machines == 1:
        rendezvous = ["--standalone", "--local-addr=127.0.0.1"]
    else:
        host, _, port = meeting.rpartition(":")
        rendezvous = [
            f"--nnodes={machines}",
            f"--node-rank={machine}",
            f"--master-addr={host}",
            f"--master-port={port}",
        ]
        rendezvous += [f"--rdzv-id={meeting}"]
    try:
        torchrun([*rendezvous, f"--nproc-per-node={processes}", "--max-restarts=0", *program])
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            say(f"process {rank} of {' '.join(program)} was ended by signal {-failure.exitcode}")
            return 128 - failure.exitcode
        return int(failure.exitcode)
    return 0


@click.command()
@click.option("--machines", type=int, required=True)
@click.option("--processes", type=int, required=True)
@click.option("--machine-from", required=True, help="Environment variable that holds this machine's number, from 0.")
@click.option("--meeting", required=True, help="HOST:PORT of the first machine.")
@click.argument("program", nargs=-1, required=True)
def main(machines: int, processes: int, machine_from: str, meeting: str, program: tuple[str, ...]) -> None:
    """Run PROGRAM in the processes of this machine."""
    machine = int(os.environ.get(machine_from, "0"))
    sys.exit(run(list(program), processes, machines=machines, machine=machine, meeting=meeting))


if __name__ == "__main__":
    main()
