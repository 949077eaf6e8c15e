"""What becomes of processes that wait for each other: waiting.py thread | peer | step | slow"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from cascade import world
from cascade.errors import CascadeError


def elsewhere() -> None:
    time.sleep(300)


def main(what: str) -> None:
    world.barrier()
    if what == "thread":
        with ThreadPoolExecutor(1, "next-teacher") as thread:
            try:
                thread.submit(world.gather, world.rank()).result(timeout=20)
            except CascadeError as error:
                print(error)
        assert world.gather(world.rank()) == [0, 1]
    if what == "peer":
        if world.rank() == 1:
            elsewhere()
        world.barrier()
    if what == "step":
        world.SHORTEST = 2.0
        for number in range(3):
            with world.step():
                if (number, world.rank()) == (2, 1):
                    elsewhere()
                world.barrier()
    if what == "slow":  # Each is slower than the limit in a way that is said to be going on.
        for _ in range(4):
            time.sleep(1)
            world.alive()
        world.barrier()


if __name__ == "__main__":
    with world.joined():
        main(sys.argv[1])
