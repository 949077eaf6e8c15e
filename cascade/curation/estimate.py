"""What a curation will take, from a sample of each source: rows kept, tokens, hours, disk, memory. Nothing is written.

The sample is read from shards all over the source. Duplicates are found only among the rows of a sample, and rows are
compared only with the benchmark prompts of samples: of sources that a sample does not cover, rather fewer rows will be
kept than are estimated.
"""

import io
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cascade.curation import sources
from cascade.curation.dedupe import BANDS, HASHES, Deduplicator
from cascade.curation.pieces import batches, rank
from cascade.curation.rows import USES, Candidate, Use, message_text
from cascade.curation.sources import Raw, Shard
from cascade.curation.steps import HeldOut, Steps, load_tokenizer
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Mixture, Recipe, Source

SHARDS = 8
"""Shards of a source from which the sample is read."""
HEAD = 1 << 22
"""Bytes, decompressed, from which the length of a row is taken."""
INDEX_BYTES = 8 * BANDS + 4 * BANDS + HASHES + 8 + 4 + 4 + 23
"""Of a row on disk: keys and their rows, MinHash values, exact key, the arrays of the piece."""
PARENT_BYTES = 40
"""Of a row in the memory of the first process, beside PROCESS_GIB."""
PROCESS_GIB = 0.8
"""Memory of a process (results/benchmarks/curation.json)."""


@dataclass
class Estimate:
    use: Use
    source: str
    rows: int
    """That will be read."""
    wanted: int
    """As in the recipe; -1: all."""
    held_out: int = 0
    """Of `rows`, those that the source's own benchmark takes."""
    sampled: int = 0
    """Without those that the benchmark takes."""
    kept: int = 0
    tokens: int = 0
    characters: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Of the rows that are read, those that are kept."""
        if not self.sampled:
            return 0.0
        return self.kept / self.sampled * (1 - self.held_out / self.rows)

    @property
    def rows_kept(self) -> int:
        kept = round(self.rows * self.share)
        return kept if self.wanted < 0 else min(self.wanted, kept)

    @property
    def rows_read(self) -> int:
        """A benchmark of a stored source is drawn from all rows."""
        if self.wanted < 0 or self.use == "benchmark" or not self.share:
            return self.rows
        return min(self.rows, round(self.wanted / self.share))

    @property
    def tokens_kept(self) -> int:
        return round(self.rows_kept * self.tokens / self.kept) if self.kept else 0


def estimate(recipe: Recipe, layout: Layout, rows: int) -> list[Estimate]:
    """Of each use and source, from about `rows` rows. Raises CascadeError for a source that cannot be read."""
    base = layout.root / recipe.base
    tokenizer = load_tokenizer(base)
    held_out = HeldOut({name: set() for name in recipe.curation.sources})
    found = []
    for use in USES:  # Benchmarks first: the others are compared with them.
        used = [
            (name, source)
            for name, source in recipe.curation.sources.items()
            if getattr(source, use) and (use != "held_out" or source.generator is not None)
        ]
        if not used:
            continue
        steps = Steps(recipe.curation, base, use, held_out, 1, tokenizer)
        for name, source in used:
            result, kept = _of_source(recipe, layout.root, use, name, source, steps, rows)
            if use == "benchmark":
                drawn = _drawn(result, kept, source, recipe.seed)
                held_out.ids[name].update(row.id for row in drawn)
                held_out.prompts.extend((row.id, _question(row)) for row in drawn)
            elif source.generator is None and source.benchmark > 0:
                _leave_out(result, source.benchmark + source.held_out, len(held_out.ids[name]))
            found.append(result)
    return found


def as_lines(recipe: Recipe, estimates: list[Estimate], workers: int) -> list[str]:
    """The table, and what all of it takes with so many processes."""
    lines = [f"{'use':10} {'source':24} {'rows read':>12} {'rows kept':>12} {'tokens':>16}  commonest rejections"]
    for e in estimates:
        reasons = ", ".join(f"{code} {count / max(1, e.sampled):.1%}" for code, count in e.reasons.most_common(3))
        lines.append(
            f"{e.use:10} {e.source:24} {e.rows_read:>12,} {e.rows_kept:>12,} {e.tokens_kept:>16,}  {reasons or '-'}"
        )
    seconds = sum(e.seconds / max(1, e.sampled) * e.rows_read for e in estimates)
    read = sum(e.rows_read for e in estimates)
    text = sum(e.characters / max(1, e.sampled) * e.rows_read for e in estimates)
    tokens = sum(e.tokens_kept for e in estimates if e.use == "sft")
    # A third of the text is left of it with zstd; 32 bits a token and one for the mask.
    disk = text / 3 + tokens * 4.125 + read * INDEX_BYTES
    lines += [
        f"time: about {_duration(seconds / workers)} with {workers} processes ({_duration(seconds)} of one core)",
        f"disk: about {disk / 1e9:.1f} GB while it runs, {tokens * 2 / 1e9:.1f} GB of packed sequences after it",
        f"memory: about {PROCESS_GIB * (workers + 1) + read * PARENT_BYTES / (1 << 30):.1f} GiB in all",
    ]
    if recipe.curation.mixture != Mixture():
        lines.append("before the mixture's caps, weights and epochs")
    return lines


def _of_source(
    recipe: Recipe, root: Path, use: Use, name: str, source: Source, steps: Steps, rows: int
) -> tuple[Estimate, list[Candidate]]:
    """The estimate and the rows of the sample that are kept."""
    count = getattr(source, use)
    if source.generator is not None:
        result = Estimate(use, name, 4 * count, count)
        level = max(source.levels, key=lambda level: source.levels[level])
        parts = [sources.generated(source, name, use, level, min(rows, count), recipe.seed)]
    else:
        shards = sources.shards(source, name, root)
        chosen = [shards[at * len(shards) // min(SHARDS, len(shards))] for at in range(min(SHARDS, len(shards)))]
        result = Estimate(use, name, _rows_of(shards), count)
        parts = [islice(sources.read(shard, source, name, root), -(-rows // len(chosen))) for shard in chosen]
    duplicates = Deduplicator(recipe.curation.near_duplicate)
    kept = [row for part in parts for row in _sample(result, part, name, source, steps, duplicates)]
    if not result.sampled:
        raise CascadeError(f"curation.sources.{name}: no row in it")
    if not result.rows:  # Its size cannot be told without reading all of it.
        result.rows = result.sampled
    return result, kept


def _drawn(result: Estimate, kept: list[Candidate], source: Source, seed: int) -> list[Candidate]:
    """The rows of a benchmark's sample with which the other uses are compared: those of the benchmark where the sample
    is the whole source, else as many of it, but half of them at most."""
    if source.generator is not None or source.benchmark < 0:
        return kept
    count = source.benchmark + source.held_out
    if result.sampled < result.rows:
        count = min(count, len(kept) // 2)
    return sorted(kept, key=lambda row: rank(seed, row.id))[:count]


def _leave_out(result: Estimate, count: int, sampled: int) -> None:
    """Do not count what the source's own benchmark takes: `count` rows, `sampled` of them in the sample."""
    result.held_out = min(count, result.rows)
    sampled = min(sampled, result.reasons["held_out"])
    result.sampled -= sampled
    result.reasons["held_out"] -= sampled
    result.reasons += Counter()  # Drops what is zero.


def _question(row: Candidate) -> str:
    return "\n".join(message_text(message) for message in row.messages if message["role"] == "user")


def _sample(
    result: Estimate, raws: Iterator[Raw], name: str, source: Source, steps: Steps, duplicates: Deduplicator
) -> Iterator[Candidate]:
    """Yields the rows that are kept."""
    began = time.process_time()
    for batch in batches(raws):
        judged, reached, _ = steps.run(batch, name, source)
        candidates = [judged[at].candidate for at in reached]
        known = [c for c in candidates if c is not None]
        copies = duplicates.check([c.text for c in known], [c.tools_text for c in known])
        duplicate = {at: error for at, error in zip(reached, copies, strict=True) if error is not None}
        for at, row in enumerate(judged):
            result.sampled += 1
            result.characters += len(row.content)
            error = duplicate.get(at) or row.error
            if error is not None:
                result.reasons[error.code] += 1
            elif row.candidate is not None:
                result.kept += 1
                result.tokens += sum(len(e.token_ids) for e in row.candidate.examples) or row.candidate.tokens
                yield row.candidate
    result.seconds += time.process_time() - began


def _rows_of(shards: list[Shard]) -> int:
    """Rows of a source: those that Parquet files state, and by their size those of the others; 0 where the source has
    no files."""
    total = 0.0
    length: float | None = None
    for file in dict.fromkeys(shard.file for shard in shards if shard.file):
        filesystem, path = fsspec.core.url_to_fs(file)
        if ".parquet" in file:
            with filesystem.open(path, "rb") as opened:
                total += pq.ParquetFile(opened).metadata.num_rows
            continue
        length = length or _row_length(file)
        total += filesystem.size(path) / length
    return round(total)


def _row_length(file: str) -> float:
    """Bytes of a row in the file, compressed as it is, from its beginning."""
    with fsspec.open(file, "rb") as opened:
        codec = sources.codec_of(file)
        stream = opened if codec in (None, "xz") else pa.CompressedInputStream(pa.PythonFile(opened, "r"), codec)
        head = bytes(stream.read(HEAD))
        consumed = len(head) if codec is None else opened.tell()
        if codec is not None and len(head) < HEAD:
            consumed = opened.seek(0, io.SEEK_END)
    return consumed / max(1, head.count(b"\n"))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
