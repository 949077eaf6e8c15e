"""How long `make setup` takes against plain pip: `python -m benchmarks.setup [--turns N]`.

Both install into an environment of their own, with caches that are empty at first, in turns: `make setup`, which also
makes Prefect's tables, and `pip install --editable .` with the same constraints. Prints wall and CPU time and what
takes the space; the median ratio of wall times goes to results/benchmarks/speed.json. Needs the package index, and 5
GB.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import speed

HERE = Path(__file__).resolve().parents[1]
LARGEST = 12


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--turns", type=int, default=1)
    options = arguments.parse_args()
    ratios = []
    for turn in range(options.turns):
        with tempfile.TemporaryDirectory() as place:
            ours, ours_cpu = timed(Path(place), ["make", "setup", f"VENV={place}/venv", f"PYTHON={sys.executable}"])
            sizes = largest(Path(place) / "venv")
        with tempfile.TemporaryDirectory() as place:
            pip = [f"{place}/venv/bin/python", "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
            made, made_cpu = timed(Path(place), [sys.executable, "-m", "venv", f"{place}/venv"])
            plain, plain_cpu = timed(Path(place), [*pip, "--editable", "."])
        plain, plain_cpu = plain + made, plain_cpu + made_cpu
        ratios.append(ours / plain)
        print(f"turn {turn + 1}: make setup {ours:.0f} s, {ours_cpu:.0f} of CPU", end="; ")
        print(f"pip {plain:.0f} s, {plain_cpu:.0f} of CPU", flush=True)
    print(f"{speed.machine()}: ratio {median(ratios):.2f}")
    print("\n".join(f"{size:>7.0f} MB  {name}" for name, size in sizes))
    speed.write({"setup": round(median(ratios), 2)})


def timed(place: Path, command: list[str]) -> tuple[float, float]:
    """Wall time and CPU time."""
    caches = {"PIP_CACHE_DIR": f"{place}/pip", "UV_CACHE_DIR": f"{place}/uv", "PREFECT_HOME": f"{place}/prefect"}
    before, began = spent(), time.monotonic()
    subprocess.run(command, cwd=HERE, env=os.environ | caches, check=True)
    return time.monotonic() - began, spent() - before


def spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def largest(venv: Path) -> list[tuple[str, float]]:
    """Megabytes of the largest packages, and of all."""
    [packages] = venv.glob("lib/python*/site-packages")
    found = [
        (path.name, sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()) / 1e6)
        for path in packages.iterdir()
        if path.is_dir()
    ]
    found.sort(key=lambda item: -item[1])
    return [*found[:LARGEST], ("all", sum(size for _, size in found))]


if __name__ == "__main__":
    main()
