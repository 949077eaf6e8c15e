"""The curate node: from the recipe's sources to data/.

For each use (benchmarks, RL prompts, SFT conversations, then further held-out prompts) the sources are read in pieces,
each by itself and in any process (`jobs`): the rows of a shard run through the steps that need no other row (`steps`).
Then pairs of duplicates are searched in ranges of their keys, and what is kept is decided in the order of the sources
(`selection`). Where a source has not given as many rows as the recipe asks for, more of its pieces are read.

Finished pieces stay in the working directory until the node is built: a run that was interrupted reads them again.
Their content, and so data/, does not depend on the number of processes.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade import chat
from cascade.curation import dedupe, report, sources
from cascade.curation.jobs import Worker, without_collecting, write_held_out, write_tokenizer
from cascade.curation.mixture import apply_mixture
from cascade.curation.output import Output
from cascade.curation.pieces import FORMAT, MadePiece, Piece
from cascade.curation.record import record
from cascade.curation.rows import USES, Use, message_text
from cascade.curation.selection import Judge, Segment, Share, draw_lowest, select
from cascade.curation.steps import STEPS, HeldOut, load_tokenizer
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import CURATE, Mixture, Recipe
from cascade.tracking import Journal
from cascade.utils.files import fingerprint, publish_directory, read_json, write_atomic, write_json
from cascade.utils.progress import say

SURPLUS = 4
"""Largest number of rows to generate, as a multiple of the number that the recipe asks for."""
PROGRESS_SECONDS = 5
PRODUCTS = ("benchmarks", "rl", "sft", "held_out", "rejects")
SMALL_BYTES = 1 << 27
SMALL_ROWS = 20_000
SMALL_JOBS = 2
"""Files of so few bytes, so few generated rows, and so few other jobs are done in this process: starting others would
take longer."""
KEYS_A_JOB = 1 << 19
"""Keys of duplicates that are searched at once: about 100 bytes each while they are sorted and compared."""

Run = Callable[[Sequence[str]], Iterable[tuple[str, str]]]
"""Does jobs (`cascade.curation.jobs`) in any order and process; yields each with its result."""


def build(recipe: Recipe, layout: Layout, journal: Journal, run: Run | None = None) -> dict[str, Any]:
    """Write data/sft, rl, benchmarks, held_out, rejects, report.json and report.md; return the report.

    `run` does large jobs; without it they are done in this process. Files are written to a temporary directory and
    moved when all are complete, report.json last.

    Raises CascadeError for a source that cannot be read or whose rows are all rejected.
    """
    work = layout.work(CURATE)
    curation = Pipeline(recipe, layout, work, run)
    curation_report = curation.run()
    final = layout.sft_data.parent
    (final / "report.json").unlink(missing_ok=True)
    for name in PRODUCTS:
        publish_directory(work / name, final / name)
    shutil.rmtree(work)
    write_atomic(final / "report.md", report.as_markdown(curation_report, curation.samples))
    write_json(final / "report.json", curation_report)
    record(recipe, layout, journal, curation_report)
    return curation_report


class Pipeline:
    """Runs the recipe's sources through the steps of each use, into an Output under `folder`."""

    def __init__(self, recipe: Recipe, layout: Layout, folder: Path, run: Run | None = None):
        self._recipe = recipe
        self._root = layout.root
        self._folder = folder
        self._tokenizer = load_tokenizer(layout.root / recipe.base)
        self._here = Worker(recipe, layout.root, folder, threads=_cores())
        self._run = run
        self._shards: dict[str, list[sources.Shard]] = {}
        # Training prompts of the sources that generate held-out prompts after them.
        trained = {name for name, source in recipe.curation.sources.items() if source.held_out and source.generator}
        self._held_out = HeldOut({name: set() for name in recipe.curation.sources}, [], {name: [] for name in trained})
        self._resume()
        write_tokenizer(folder, self._tokenizer)
        for name in PRODUCTS:
            shutil.rmtree(folder / name, ignore_errors=True)
        self._output = Output(folder, recipe.seed, recipe.curation.sequence_length)

    def run(self) -> dict[str, Any]:
        """Returns the report. Raises CascadeError for a source that cannot be read or whose rows are all rejected."""
        with without_collecting():
            for use in USES:
                self._use(use)
                write_held_out(self._folder, self._held_out)
            self._pack()
            return self._output.finish()

    @property
    def samples(self) -> dict[tuple[str, str], dict[str, None]]:
        """Messages of rejected rows, as `Tally.samples`."""
        return self._output.tally.samples

    def _resume(self) -> None:
        """Keep the finished pieces of an interrupted run with the same inputs, and drop all others."""
        files = {
            name: [
                [str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sources.files(source, self._root)
            ]
            for name, source in self._recipe.curation.sources.items()
        }
        base = self._root / self._recipe.base
        tokenizer = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(base.glob("*token*"))]
        settings = self._recipe.curation.model_dump(mode="json")
        made_from = {"settings": settings, "seed": self._recipe.seed, "files": files, "base": tokenizer}
        inputs = fingerprint({**made_from, "format": FORMAT})
        known = self._folder / "inputs.json"
        if not known.is_file() or read_json(known) != inputs:
            shutil.rmtree(self._folder, ignore_errors=True)
            write_json(known, inputs)
        elif done := len(list(self._folder.glob("pieces/*/*/piece.json"))):
            say(f"curate  goes on: {done} pieces are done")

    def _use(self, use: Use) -> None:
        segments = list(self._segments(use))
        if not segments:
            return
        steps = [*STEPS[use]]
        judge = self._difficulty() if use == "rl" and self._recipe.curation.difficulty is not None else None
        steps += ["difficulty"] * (judge is not None) + ["draw"] * any(s.draw is not None for s in segments)
        steps += ["mixture"] * (use == "sft" and self._recipe.curation.mixture != Mixture())
        for step in steps:
            self._output.tally.enter(use, step)
        while pieces := [piece for segment in segments for piece in self._next_pieces(use, segment)]:
            self._make(use, pieces, segments)
            select(segments, self._duplicates(use, segments), judge)
        self._write(use, segments)

    def _segments(self, use: Use) -> Iterator[Segment]:
        for name, source in self._recipe.curation.sources.items():
            count = getattr(source, use)
            # Of a stored source, these are drawn with the benchmark.
            if not count or (use == "held_out" and source.generator is None):
                continue
            self._output.tally.want(use, name, count)
            if source.generator is not None:
                for level, quota in _quotas(source.levels, count).items():
                    if quota:
                        yield Segment(name, quota, level=level, limit=SURPLUS * quota)
                continue
            if name not in self._shards:
                self._shards[name] = sources.shards(source, name, self._root)
            draws = use == "benchmark" and count > 0
            wanted = None if draws or count < 0 else count
            if draws:
                self._output.tally.want("held_out", name, source.held_out)
            draw = count + source.held_out if draws else None
            yield Segment(name, wanted, draw=draw, shards=self._shards[name])

    def _next_pieces(self, use: Use, segment: Segment) -> list[Piece]:
        """The pieces of a segment to be read next; none where it has enough, or nothing is left."""
        missing = segment.missing
        if missing == 0:
            return []
        order = list(self._recipe.curation.sources).index(segment.source)
        folder = f"pieces/{use}/{order:03d}-{segment.level if segment.level is not None else 'all'}"

        def piece(shard: int, skip: int) -> Piece:
            part = None if segment.level is not None else segment.shards[shard]
            path = f"{folder}-{shard:06d}-{skip}-{missing if missing is not None else 'all'}"
            return Piece(use, segment.source, path, segment.level, part, skip, missing, segment.limit)

        if (share := segment.interrupted()) is not None:
            shard = segment.shards.index(share.piece.shard) if share.piece.shard is not None else 0
            return [piece(shard, share.piece.skip + share.made.rows)]
        read = len({share.piece.shard for share in segment.shares})
        number = 1 if segment.level is not None else len(segment.shards)
        # A source of which few rows are wanted is read shard by shard, then by twice as many.
        until = number if missing is None else min(number, read + (1 << segment.waves))
        segment.waves += 1
        return [piece(shard, 0) for shard in range(read, until)]

    def _make(self, use: Use, pieces: list[Piece], segments: list[Segment]) -> None:
        jobs = [json.dumps({"job": "piece", **json.loads(piece.as_job())}) for piece in pieces]
        size = sum(_bytes(piece.shard) for piece in pieces)
        small = size < SMALL_BYTES and sum(piece.wanted or 0 for piece in pieces if piece.shard is None) < SMALL_ROWS
        progress = _Progress(use, len(jobs), size)
        by_job = dict(zip(jobs, pieces, strict=True))
        for job, folder in self._do(jobs, small):
            progress.done(MadePiece(Path(folder)).rows, _bytes(by_job[job].shard))
        for piece in pieces:
            segment = next(s for s in segments if (s.source, s.level) == (piece.source, piece.level))
            segment.shares.append(Share(piece, MadePiece(self._folder / piece.folder)))
            segment.ordered()

    def _duplicates(self, use: Use, segments: list[Segment]) -> dedupe.Resolver:
        """Searches the pieces' keys, in as many ranges as there are to be."""
        shares = [share for segment in segments for share in segment.shares]
        folders = "\n".join(share.piece.folder for share in shares)
        round_folder = f"pairs/{use}-{fingerprint({'pieces': folders})[:16]}"
        write_atomic(self._folder / round_folder / "pieces.txt", folders)
        keys = sum(len(share.made.array("slots", mapped=True)) for share in shares) * (1 + dedupe.BANDS)
        ranges = min(256, 1 << max(0, (keys // KEYS_A_JOB)).bit_length())
        jobs = []
        for low in range(0, 256, 256 // ranges):
            out = f"{round_folder}/{low:03d}.npz"
            task = {"low": low, "high": low + 256 // ranges, "out": out, "pieces": f"{round_folder}/pieces.txt"}
            jobs.append(json.dumps({"job": "pairs", **task}))
        found = []
        for _, path in sorted(self._do(jobs, small=len(jobs) <= SMALL_JOBS)):
            with np.load(path) as content:
                found.append({name: content[name] for name in content.files})
        whole = {name: np.concatenate([part.pop(name) for part in found]) for name in list(found[0])}
        pairs = dedupe.Pairs(whole["later"], whole["earlier"], whole["similarity"])
        return dedupe.Resolver((whole["copies"], whole["first"]), pairs)

    def _write(self, use: Use, segments: list[Segment]) -> None:
        tally = self._output.tally
        drawn: dict[str, list[tuple[Share, int]]] = {}
        further: dict[str, list[tuple[Share, int]]] = {}
        before = {id(segment): segment.kept for segment in segments}
        domains = {name: source.domain for name, source in self._recipe.curation.sources.items()}
        for segment in segments:
            if segment.draw is not None:
                count = getattr(self._recipe.curation.sources[segment.source], use)
                rows = draw_lowest(segment, segment.draw, count)
                drawn[segment.source], further[segment.source] = rows[:count], rows[count:]
        copies = apply_mixture(self._recipe.curation.mixture, domains, segments) if use == "sft" else {}
        for segment in segments:
            domain, rest = domains[segment.source], further.get(segment.source, [])
            if rest:
                self._draw_further(segment.source, domain, rest)
            if unlucky := before[id(segment)] - segment.kept - len(rest):
                step = "mixture" if use == "sft" else "draw"
                tally.reject(use, step, "not_drawn", segment.source, domain, unlucky)
        for name, source in self._recipe.curation.sources.items():
            own = [segment for segment in segments if segment.source == name]
            shares = [share for segment in own for share in segment.shares]
            for share in shares:
                tally.draw(use, name, source.domain, share.drawn)
                self._output.reject(share, source.domain)
                tally.keep(use, name, source.domain, share.made.array("lengths")[share.kept])
            if own:
                self._say_kept(use, name, own)
            if use == "sft":
                for share in shares:
                    self._output.keep_conversations(share, copies[id(share)])
                    if name in self._held_out.trained:
                        kept = share.made.content(share.kept.astype(np.uint32))
                        self._held_out.trained[name] += _questions((c["id"], c["content"]) for c in kept)
            elif own:
                rows = drawn.get(name) or [(share, int(row)) for share in shares for row in share.kept]
                written = self._output.keep_prompts(use, source.domain, rows)
                if use == "rl" and name in self._held_out.trained:
                    self._held_out.trained[name] += _questions(written)
                elif use != "rl":
                    self._hold_out(name, written)
                    self._hold_out(name, self._output.keep_prompts("held_out", source.domain, further.get(name, [])))

    def _say_kept(self, use: Use, name: str, segments: list[Segment]) -> None:
        kept = self._output.tally.kept(use, name)
        count = getattr(self._recipe.curation.sources[name], use)
        say(f"curate  {use}  {name}: {kept} rows kept" + (f" of {count} wanted" if count > 0 else ""))
        if not kept:
            self._output.close_rejects()
            raise CascadeError(
                f"curation.sources.{name}: no row is left for {use} "
                f"({self._output.tally.commonest_reason(use, name)}); the rejected rows are in {self._output.rejects}"
            )

    def _hold_out(self, name: str, rows: list[tuple[str, str]]) -> None:
        self._held_out.ids[name].update(row_id for row_id, _ in rows)
        self._held_out.prompts.extend(_questions(rows))

    def _draw_further(self, name: str, domain: str, rows: list[tuple[Share, int]]) -> None:
        """Count the rows that were drawn for `held_out` beside the benchmark."""
        tally = self._output.tally
        tally.reject("benchmark", "draw", "held_out", name, domain, len(rows))
        tally.draw("held_out", name, domain, len(rows))
        lengths = [share.made.array("lengths")[row] for share, row in rows]
        tally.keep("held_out", name, domain, np.array(lengths, np.int32))

    def _pack(self) -> None:
        parts = self._output.plan_parts(self._folder)
        jobs = [json.dumps({"job": "part", "plan": plan, "out": out}) for plan, out in parts]
        for _ in self._do(jobs, small=len(jobs) <= SMALL_JOBS):
            pass
        say(f"curate  sft  {self._output.tally.packed['sequences']} sequences packed")

    def _do(self, jobs: list[str], small: bool) -> Iterator[tuple[str, str]]:
        if small or self._run is None:
            yield from ((job, self._here(job)) for job in jobs)
        else:
            yield from self._run(jobs)

    def _difficulty(self) -> Judge:
        from cascade.curation.difficulty import make_judge

        return make_judge(self._recipe, self._root, self._folder, self._tokenizer)


def _questions(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Id and user messages of prompts, given as id and Gym row."""
    questions = []
    for row_id, content in rows:
        messages, _ = chat.prompt_of(json.loads(content))
        questions.append((row_id, "\n".join(message_text(m) for m in messages if m["role"] == "user")))
    return questions


class _Progress:
    """A line every few seconds: pieces, rows and bytes read, speed, time left."""

    def __init__(self, use: Use, pieces: int, size: int):
        self._use, self._pieces, self._size = use, pieces, size
        self._began = self._said = time.monotonic()
        self._finished = self._rows = self._read = 0

    def done(self, rows: int, size: int) -> None:
        self._finished, self._rows, self._read = self._finished + 1, self._rows + rows, self._read + size
        now = time.monotonic()
        if now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        seconds = now - self._began
        share = self._read / self._size if self._size else self._finished / self._pieces
        left = int(seconds / share - seconds) if share else 0
        say(
            f"curate  {self._use}  {self._finished}/{self._pieces}  rows {self._rows}  "
            f"{self._rows / seconds:.0f} rows/s  {self._read / seconds / 1e6:.1f} MB/s  "
            f"left {left // 60}:{left % 60:02d}"
        )


def _bytes(shard: sources.Shard | None) -> int:
    if shard is None or not shard.file or "://" in shard.file:
        return 0
    size = Path(shard.file).stat().st_size
    if shard.end is not None and not shard.file.endswith(".parquet"):
        return shard.end - shard.begin
    return size


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _quotas(levels: dict[int, float], count: int) -> dict[int, int]:
    """Number of rows per level, `count` in all (largest remainder method)."""
    exact = {level: share * count for level, share in levels.items()}
    quotas = {level: int(value) for level, value in exact.items()}
    by_remainder = sorted(exact, key=lambda level: (quotas[level] - exact[level], level))
    for level in by_remainder[: count - sum(quotas.values())]:
        quotas[level] += 1
    return quotas
