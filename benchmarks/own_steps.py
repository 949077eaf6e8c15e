"""Our RL steps of the checkout that this runs in, one for each line read, for `benchmarks.rl_step --before`. As in a
run, its processes come from a fork server."""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def main() -> None:
    from benchmarks.rl_step import OwnStep, made_up_texts

    model, count, micro_batch_tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    step = OwnStep(Path(model), made_up_texts(), count, micro_batch_tokens)
    sample, train = step.sampler.sample, step.policy.step
    found: dict[str, list[float]] = {}

    def sampling(*arguments, **settings):  # type: ignore[no-untyped-def]
        with timed(found, "sampling"):
            return sample(*arguments, **settings)

    def training(*arguments, **settings):  # type: ignore[no-untyped-def]
        with timed(found, "training"):
            return train(*arguments, **settings)

    step.sampler.sample, step.policy.step = sampling, training  # type: ignore[method-assign]
    for number, _ in enumerate(sys.stdin):
        step(number)
        print(json.dumps(found), flush=True)
    step.sampler.close()


@contextmanager
def timed(found: dict[str, list[float]], part: str) -> Iterator[None]:
    """Seconds of wall time, of CPU time, and of CPU time of the busiest thread."""
    began, before = time.perf_counter(), by_thread()
    yield
    spent = [seconds - before.get(thread, 0.0) for thread, seconds in by_thread().items()]
    found[part] = [time.perf_counter() - began, sum(spent), max(spent)]


def by_thread(process: str = "self") -> dict[str, float]:
    """CPU seconds of each thread of a process and of its living descendants."""
    seconds: dict[str, float] = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        seconds[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
        for child in (thread / "children").read_text().split():
            seconds |= by_thread(child)
    return seconds


if __name__ == "__main__":
    from cascade.launch import fork_server

    with fork_server.server({}):
        main()
