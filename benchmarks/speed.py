"""results/benchmarks/speed.json: each benchmark of speed writes its own keys there, and keeps the others'."""

import json
import os
import platform
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "speed.json"


def write(figures: dict[str, Any]) -> None:
    """Merge the figures into the file, each ratio with the machine that it was measured on."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    machines = found.pop("machines", {}) | dict.fromkeys(figures, machine())
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(found | figures | {"machines": machines}, indent=2, sort_keys=True) + "\n")
    print(f"written: {', '.join(figures)} in {FILE}")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{len(os.sched_getaffinity(0))} cores, {model}, Linux {platform.release()}"
