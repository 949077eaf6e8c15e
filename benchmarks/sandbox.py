"""Executions a second: `python -m benchmarks.sandbox`. Trivial programs, so the price of the sandbox itself.

`python` starts a Python program in the sandbox; `bare` starts the same without it; `/bin/true` leaves Python out;
`verdict` judges a correct function on six tests, as the code environment does.
"""

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from cascade import environments
from cascade.chat import Response
from cascade.sandbox import PYTHON, execute, require

SOURCE = "print(sum(range(10)))"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3.0, help="how long each is measured")
    cores = len(os.sched_getaffinity(0))
    arguments.add_argument("--threads", type=int, default=cores, help="callers at a time")
    options = arguments.parse_args()
    require()
    environment = environments.get("code")
    row = next(environment.generate(1, 0, 1))
    program = row["demonstration"]["content"]
    numbers = count()

    def judge() -> None:
        # Of equal programs the environment executes one.
        verdict = environment.verify(row, Response(program.replace("\n```", f"  # {next(numbers)}\n```")))
        assert verdict.reward == 1.0, verdict

    actions: dict[str, Callable[[], object]] = {
        "python": lambda: execute([*PYTHON, "-c", SOURCE], {}),
        "bare": lambda: subprocess.run([*PYTHON, "-c", SOURCE], capture_output=True, check=True),
        "/bin/true": lambda: execute(["/bin/true"], {}),
        "verdict": judge,
    }
    print(f"{options.threads} callers on {cores} cores, {platform.machine()}, Linux {platform.release()}")
    print(f"{'':>10} {'a second':>9} {'a second and core':>18}")
    for name, action in actions.items():
        speed = rate(action, options.threads, options.seconds)
        print(f"{name:>10} {speed:>9.1f} {speed / min(cores, options.threads):>18.1f}")


def rate(action: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls a second over all threads."""
    action()
    began = time.monotonic()

    def repeat(_: int) -> int:
        calls = 0
        while time.monotonic() - began < seconds:
            action()
            calls += 1
        return calls

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(repeat, range(threads)))
    return done / (time.monotonic() - began)


if __name__ == "__main__":
    main()
