"""What becomes of processes that wait for each other: waiting.py thread | peer | step | slow"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from cascade.errors import CascadeError
from cascade.utils import distributed


def elsewhere() -> None:
    time.sleep(300)


def main(what: str) -> None:
    distributed.barrier()
    if what == "thread":
        with ThreadPoolExecutor(1, "next-teacher") as thread:
            try:
                thread.submit(distributed.gather, distributed.rank()).result(timeout=20)
            except CascadeError as error:
                print(error)
        assert distributed.gather(distributed.rank()) == [0, 1]
    if what == "peer":
        if distributed.rank() == 1:
            elsewhere()
        distributed.barrier()
    if what == "step":
        distributed.SHORTEST = 2.0
        for number in range(3):
            with distributed.step():
                if (number, distributed.rank()) == (2, 1):
                    elsewhere()
                distributed.barrier()
    if what == "slow":  # Each is slower than the limit in a way that is said to be going on.
        for _ in range(4):
            time.sleep(1)
            distributed.alive()
        distributed.barrier()


if __name__ == "__main__":
    with distributed.process_group():
        main(sys.argv[1])
