#!/usr/bin/env bash
# PyTorch 2.13.0: torch.compile with one TORCHINDUCTOR_CACHE_DIR, as a shared home directory gives it to all machines, first where
# vectors have 512 bits, then where they have 256 (here by ATEN_CPU_CAPABILITY, which both its kernels and the compiler heed).
# Expected: the second process finds no entry, since the code in the cache steps by 16 floats, and compiles anew.
# Seen: it finds the entry, and of every 16 results the last eight are wrong; nothing is said. With a cache of its own the result is
# right.
# Needs a processor with AVX-512, and a C++ compiler.
set -euo pipefail
grep -q avx512f /proc/cpuinfo || { echo "needs a processor with AVX-512" >&2; exit 1; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" numpy
cat > clip.py <<'PY'
import sys

import torch
from torch._dynamo.utils import counters


def clip(x):
    return torch.where(x.abs() > 1, 6.0, x.abs())


x = torch.linspace(-2, 2, 64 * 32).reshape(64, 32)
wrong = torch.compile(clip)(x) != clip(x)
columns = wrong.any(0).nonzero().flatten().tolist()
width = torch.backends.cpu.get_cpu_capability()
hit = counters["inductor"]["fxgraph_cache_hit"]
print(
    f"torch {torch.__version__}, {width}, {'found' if hit else 'not found'} in the cache:",
    f"{int(wrong.sum())} of {x.numel()} results wrong, in columns {columns}",
)
if (bool(columns), bool(hit)) != (sys.argv[1] == "wrong",) * 2:
    sys.exit("changed: results are expected to be " + sys.argv[1] + ", and of the cache where they are wrong alone")
PY
compiled() {
    ATEN_CPU_CAPABILITY=$1 TORCHINDUCTOR_CACHE_DIR=$PWD/$2 venv/bin/python clip.py "$3" 2> log || {
        tail -n 3 log >&2
        exit 1
    }
}
compiled avx512 shared right
compiled avx2 shared wrong
compiled avx2 own right
