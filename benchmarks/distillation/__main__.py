"""What distillation wins back, variant by variant, beside RL and off-policy controls at equal compute.

    python -m benchmarks.distillation.start --start .cascade/distillation/start      # once: the start and its teachers
    python -m benchmarks.distillation --start .cascade/distillation/start --jobs 2

Every variant (variants.py) trains from one start that has lost something, with three seeds, each run in a process of
one thread on the CPU, and is evaluated on 240 held-out prompts × 4 rollouts a domain, on fewer rollouts on the way.
Killed or ended by --limit-seconds, it goes on when it is called again. --out: the figures of all evaluations so far
(--parts), and a Markdown table of the same name; with --limit-seconds 0 nothing else is done.
"""

import argparse
import multiprocessing
import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from pathlib import Path

from benchmarks.distillation import jobs, table
from benchmarks.distillation.jobs import Place, Run
from benchmarks.distillation.variants import VARIANTS
from cascade.utils.files import write_atomic, write_json

ONE_THREAD = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of the processes."""

Work = tuple[Run, int | None]
"""A run to train; or, with a step, a checkpoint of it to evaluate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, default=Path(".cascade/distillation/start"))
    parser.add_argument("--work", type=Path, default=Path(".cascade/distillation/work"))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/distillation.json"))
    parser.add_argument("--parts", type=Path, help="one file for each evaluation; by default in --work")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    deadline = time.monotonic() + options.limit_seconds
    place = Place(options.start.resolve(), options.work.resolve(), (options.parts or options.work / "parts").resolve())
    os.environ.update(ONE_THREAD)
    runs = table.runs_of(options.variants, options.seeds, place)
    failed: dict[str, str] = {}
    left = work_off(place, runs, options.jobs, deadline, failed)
    if any(jobs.missing(place, run, 0) for run in table.runs_of([], [], place)):
        print(f"the start or a teacher is still to be evaluated; {left} jobs left: call it again")
        return
    summary = table.summarise(place)
    summary["about"]["failed"] = failed
    write_json(options.out, summary)
    write_atomic(options.out.with_suffix(".md"), table.as_markdown(summary))
    print(table.as_markdown(summary))
    print(f"{left} jobs left" if left else "finished")


def work_off(place: Place, runs: list[Run], processes: int, deadline: float, failed: dict[str, str]) -> int:
    """Do what is missing, evaluations first; at the deadline, end the processes. Returns the number of jobs left, and
    adds runs that failed, with their errors, to `failed`."""
    waiting = {run: steps for run in runs if (steps := [s for s in run.steps() if jobs.missing(place, run, s)])}
    to_train = [run for run in waiting if not _trained(place, run)]
    to_evaluate: list[Work] = [(run, step) for run in waiting if run not in to_train for step in waiting[run][::-1]]
    running: dict[Future[None], Work] = {}
    if time.monotonic() >= deadline:
        return len(to_train) + sum(map(len, waiting.values()))
    done, total = 0, len(to_train) + sum(map(len, waiting.values()))
    # Spawned: torch's threads do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        while to_train or to_evaluate or running:
            while len(running) < processes and (to_evaluate or to_train):
                work = to_evaluate.pop(0) if to_evaluate else (to_train.pop(0), None)
                running[pool.submit(jobs.do, place, *work)] = work
            left = max(0.0, deadline - time.monotonic())
            finished, _ = wait(running, timeout=min(left, threading.TIMEOUT_MAX), return_when=FIRST_COMPLETED)
            if not finished:
                for process in multiprocessing.active_children():
                    process.terminate()
                return len(to_train) + len(to_evaluate) + len(running)
            for future in finished:
                run, step = running.pop(future)
                done += 1
                try:
                    future.result()
                except BrokenExecutor:
                    raise
                except Exception as error:  # One variant's end is a result, not the end of all.
                    print(f"{done}/{total} {run.name} failed: {error!r}", flush=True)
                    failed[run.name] = repr(error)
                    continue
                print(f"{done}/{total} {run.name}{'' if step is None else f' step {step}'}", flush=True)
                if step is None:
                    to_evaluate += [(run, s) for s in waiting[run][::-1]]
    return 0


def _trained(place: Place, run: Run) -> bool:
    return all(jobs.checkpoint_at(place, run, step).exists() for step in run.steps())


if __name__ == "__main__":
    main()
