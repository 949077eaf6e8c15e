"""Curation of generated conversations: `python -m benchmarks.curation`. Writes results/benchmarks/curation.json.

Rows have the columns of nvidia/Nemotron-Cascade-2-SFT-Data: about 300 words, 5 % exact and 5 % near duplicates; and
long ones with tools. Speeds are rows and MB a core-second: CPU seconds of the processes from the first row to the last
file, without imports. This tree, the revision before it and datatrove with the same steps take turns; medians are
compared.

`--before` is a git revision or the directory of an unpacked tree. `--peer-python` is the Python of an environment with
datatrove, tokenizers, orjson, spacy. What is left out is null in the file. `--memory` adds runs of so many rows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.curation import rows
from benchmarks.curation.planted import Pair, Planter
from cascade.curation.decontaminate import Decontaminator, Text
from cascade.curation.dedupe import Deduplicator
from cascade.curation.text import normalise, words
from cascade.recipe import Decontamination
from cascade.utils.files import write_json

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BEFORE = "6df6be7"
"""The revision before curation in shards."""
NEMOTRON_ROWS = 15_900_000
THREADS = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "RAYON", "POLARS")},
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=20_000)
    arguments.add_argument("--long-rows", type=int, default=20, help="of --long-words words")
    arguments.add_argument("--long-words", type=int, default=60_000)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--before", default=BEFORE, help="revision, directory, or none")
    arguments.add_argument("--peer-python", help="Python with datatrove; without it there is no peer")
    arguments.add_argument("--memory", type=int, nargs="*", default=[100_000], help="numbers of rows")
    arguments.add_argument("--workers", type=int, default=2, help="of the runs for memory")
    arguments.add_argument("--pairs", type=int, default=10_000)
    arguments.add_argument("--base", type=Path, default=ROOT / "models" / "base", help="directory of the tokenizer")
    arguments.add_argument("--out", type=Path, default=Path("results/benchmarks/curation.json"))
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="curation-") as folder:
        bench = Bench(Path(folder), options)
        result = {"machine": machine(), "rows": options.rows, **bench.speed(), **bench.memory(), **bench.quality()}
    write_json(options.out, result)
    summary = ("over_before", "two_workers", "over_peer", "peak_gib", "precision", "recall")
    print(json.dumps({name: result[name] for name in summary}, indent=2))


class Bench:
    def __init__(self, folder: Path, options: argparse.Namespace):
        self._folder = folder
        self._options = options
        self._before = self._tree(options.before)

    def speed(self) -> dict[str, Any]:
        short, long = self._folder / "short", self._folder / "long"
        sizes = {
            "short": rows.write(short / "rows", self._options.rows),
            "long": rows.write(long / "rows", self._options.long_rows, self._options.long_words),
        }
        counts = {"short": self._options.rows, "long": self._options.long_rows}
        taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(self._options.repeats):
            for shape, folder in (("short", short), ("long", long)):
                tokens = 8192 if shape == "short" else 1 << 18
                taken[f"now, {shape}"].append(self._now(folder, tokens, 1))
                if self._before is not None:
                    taken[f"before, {shape}"].append(self._old(folder, tokens))
                if self._options.peer_python and shape == "short":
                    taken[f"datatrove, {shape}"].append(self._peer(folder))
            taken["now, short, 2 workers"].append(self._now(short, 8192, 2))
        speeds = {}
        for name, runs in taken.items():
            shape = name.split(", ")[1]
            cpu, wall = (statistics.median(run[key] for run in runs) for key in ("cpu", "wall"))
            speeds[name] = {
                "cpu_seconds": round(cpu, 2),
                "wall_seconds": round(wall, 2),
                "rows_per_core_second": round(counts[shape] / cpu, 2),
                "mb_per_core_second": round(sizes[shape] / cpu / 1e6, 3),
            }

        def ratio(other: str, one: str, key: str = "cpu_seconds") -> float | None:
            return round(speeds[other][key] / speeds[one][key], 2) if {other, one} <= speeds.keys() else None

        return {
            "over_before": ratio("before, short", "now, short"),
            "over_before_long": ratio("before, long", "now, long"),
            "two_workers": ratio("now, short", "now, short, 2 workers", "wall_seconds"),
            "two_workers_cpu": ratio("now, short", "now, short, 2 workers"),
            "over_peer": ratio("datatrove, short", "now, short"),
            "speeds": speeds,
        }

    def memory(self) -> dict[str, Any]:
        peaks: dict[str, float] = {}
        estimate: dict[str, Any] = {}
        for count in self._options.memory:
            folder = self._folder / f"rows-{count}"
            size = rows.write(folder / "rows", count)
            run = self._now(folder, 8192, self._options.workers)
            peaks[str(count)] = round(run["peak_gib"], 3)
            estimate = extrapolated(count, size, run)
            for path in (folder / "rows").iterdir():
                path.unlink()
        return {"peak_gib": peaks, "for_16m_rows": estimate}

    def quality(self) -> dict[str, Any]:
        pairs = Planter().pairs(self._options.pairs)
        found = found_here(pairs)
        result = {**scores(pairs, found), "by_kind": by_kind(pairs, found)}
        if self._options.peer_python:
            peer = self._peer_found(pairs)
            result["peer"] = {**scores(pairs, peer), "by_kind": by_kind(pairs, peer)}
        return result

    def _now(self, folder: Path, tokens: int, workers: int) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "build_now.py"), folder, self._options.base, tokens, workers]
        return child(command, {"PYTHONPATH": str(ROOT)})

    def _old(self, folder: Path, tokens: int) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "build_before.py"), folder, self._options.base, tokens]
        return child(command, {"PYTHONPATH": str(self._before)})

    def _peer(self, folder: Path) -> dict[str, Any]:
        template = self._options.base / "chat_template.jinja"
        tokenizer = self._options.base / "tokenizer.json"
        return child([self._options.peer_python, str(HERE / "peer_datatrove.py"), folder, tokenizer, template], {})

    def _peer_found(self, pairs: Sequence[Pair]) -> list[bool]:
        folder = self._folder / "pairs"
        folder.mkdir()
        texts = [pair.first for pair in pairs] + [pair.second for pair in pairs]
        (folder / "pairs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        dropped = set(self._peer(folder)["dropped"])
        # Which of two is dropped is its own affair.
        return [at in dropped or at + len(pairs) in dropped for at in range(len(pairs))]

    def _tree(self, before: str) -> Path | None:
        if before == "none":
            return None
        if Path(before).is_dir():
            return Path(before)
        target = self._folder / "before"
        target.mkdir()
        archive = subprocess.run(["git", "-C", ROOT, "archive", before, "cascade"], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "x", "-C", target], input=archive.stdout, check=True)
        return target


def found_here(pairs: Sequence[Pair]) -> list[bool]:
    """Whether the second text of each pair is dropped: as a duplicate of the first, or, where it has the first inside a
    longer text, as contaminated by it."""
    inside = [pair for pair in pairs if pair.kind == "copy inside a longer text"]
    others = [pair for pair in pairs if pair.kind != "copy inside a longer text"]
    search = Deduplicator(0.9)
    search.check([pair.first for pair in others])
    duplicates = iter(search.check([pair.second for pair in others]))
    overlap = Decontaminator(Decontamination(), [(str(n), pair.first) for n, pair in enumerate(inside)])
    texts = [Text(words(normalise(pair.second)), (normalise(pair.second),)) for pair in inside]
    contaminated = iter(overlap.check(texts))
    found = [next(contaminated if pair.kind == "copy inside a longer text" else duplicates) for pair in pairs]
    return [error is not None for error in found]


def scores(pairs: Sequence[Pair], found: Sequence[bool]) -> dict[str, float]:
    right = sum(pair.same for pair, is_found in zip(pairs, found, strict=True) if is_found)
    return {
        "precision": round(right / max(1, sum(found)), 4),
        "recall": round(right / max(1, sum(pair.same for pair in pairs)), 4),
    }


def by_kind(pairs: Sequence[Pair], found: Sequence[bool]) -> dict[str, Any]:
    """Of each kind: whether it is to be found, and the share that was."""
    groups: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for pair, is_found in zip(pairs, found, strict=True):
        groups[pair.kind, pair.same].append(is_found)
    return {kind: {"same": same, "found": round(sum(f) / len(f), 4)} for (kind, same), f in groups.items()}


def extrapolated(count: int, size: int, run: dict[str, Any]) -> dict[str, Any]:
    """Of NEMOTRON_ROWS rows like these: what the parent does alone is not divided by the cores."""
    times = NEMOTRON_ROWS / count
    alone, shared = run["parent_cpu"] * times / 3600, (run["cpu"] - run["parent_cpu"]) * times / 3600
    return {
        "rows": NEMOTRON_ROWS,
        "input_gb": round(size * times / 1e9, 1),
        "working_disk_gb": round(run["disk"] * times / 1e9, 1),
        "hours": {str(cores): round(alone + shared / cores, 2) for cores in (2, 64, 512)},
        "hours_of_the_parent_alone": round(alone, 2),
    }


def child(command: Sequence[Any], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **THREADS, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
