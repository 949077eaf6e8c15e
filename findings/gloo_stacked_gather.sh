#!/usr/bin/env bash
# PyTorch 2.13.0: all_gather_single over gloo into an output that stacks the inputs, [processes, n] for inputs [n]. Its
# documentation allows this form beside the concatenation [processes · n], and shows it.
# Expected: both forms give the same numbers.
# Seen: the stack is refused with "invalid tensor size"; the concatenation works. Code that runs over NCCL fails over gloo.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" numpy
cat > gather.py <<'PY'
import warnings

import torch
import torch.distributed as dist

warnings.simplefilter("ignore")
dist.init_process_group("gloo")
rank = dist.get_rank()
own = torch.tensor([10 * rank, 10 * rank + 1])
documented = "stack of" in (dist.all_gather_single.__doc__ or "")
flat = torch.zeros(4, dtype=torch.long)
dist.all_gather_single(flat, own)
try:
    stacked = torch.zeros(2, 2, dtype=torch.long)
    dist.all_gather_single(stacked, own)
    seen = f"{stacked.tolist()}"
except RuntimeError as error:
    seen = f"refused: {str(error).splitlines()[0][:120]}"
if rank == 0:
    print("torch", torch.__version__, "- the documentation names the stack:", documented)
    print("output [4]:  ", flat.tolist())
    print("output [2, 2]:", seen)
assert seen.startswith("refused"), "changed: a stack of the inputs is filled too"
dist.destroy_process_group()
PY
OMP_NUM_THREADS=1 venv/bin/python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2 gather.py
