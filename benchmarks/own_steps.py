"""Our RL steps of the checkout that this runs in, one for each line read: `benchmarks.rl_step --before` starts it."""

import json
import sys
import time
import warnings
from pathlib import Path

import torch


def main() -> None:
    from benchmarks.cpu_time import cpu_seconds
    from benchmarks.rl_step import OwnStep, made_up_texts

    model, count, micro_batch_tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    step = OwnStep(Path(model), made_up_texts(), count, micro_batch_tokens)
    sample, spent = step.sampler.sample, [0.0]

    def measured(*arguments, **settings):  # type: ignore[no-untyped-def]
        before = cpu_seconds()
        found = sample(*arguments, **settings)
        spent[0] = cpu_seconds() - before
        return found

    step.sampler.sample = measured  # type: ignore[method-assign]
    for number, _ in enumerate(sys.stdin):
        before = cpu_seconds(), time.perf_counter()
        sampling, training = step(number)
        cpu = cpu_seconds() - before[0]
        print(json.dumps([sampling, training, spent[0], cpu - spent[0]]), flush=True)
    if hasattr(step.sampler, "close"):
        step.sampler.close()


if __name__ == "__main__":
    main()
