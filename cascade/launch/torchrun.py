"""The processes of a node on one machine, by torchrun. Called by the launcher `torchrun` where the node's pool is, and
on each machine of a Slurm or Kubernetes job: python -m cascade.launch.torchrun … -- -m cascade node NAME"""

import logging
import os
import sys

import click

from cascade.launch.fork_server import ADDRESS
from cascade.launch.job import MARK
from cascade.utils.progress import say


def run(program: list[str], processes: int, *, machines: int = 1, machine: int = 0, meeting: str = "") -> int:
    """Have Python run `program` in `processes` processes here, on machine number `machine` of `machines`; the first of
    these is reached at `meeting` (HOST:PORT). Returns 0, or the exit status of the process that failed first, as a
    shell would (128 + the signal that ended it).

    The numbers of machines give the ranks, so that a node started anew has the same rank on the same data.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ[MARK] = str(os.getpid())
    os.environ.pop(ADDRESS, None)  # They are to be torchrun's processes, not a server's.
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Each process sets its own; torchrun warns where nobody has.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # A process has said what was wrong.
    if machines == 1:
        where = ["--standalone", "--local-addr=127.0.0.1"]
    else:
        host, _, port = meeting.rpartition(":")
        where = [f"--nnodes={machines}", f"--node-rank={machine}", f"--master-addr={host}", f"--master-port={port}"]
        where += [f"--rdzv-id={meeting}"]
    try:
        torchrun([*where, f"--nproc-per-node={processes}", "--max-restarts=0", *program])
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
    """Have Python run PROGRAM in the processes of this machine."""
    machine = int(os.environ.get(machine_from, "0"))
    sys.exit(run(list(program), processes, machines=machines, machine=machine, meeting=meeting))


if __name__ == "__main__":
    main()
