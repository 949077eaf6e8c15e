"""The curate node: from the recipe's sources to data/.

For each use (benchmarks, RL prompts, SFT conversations, then further held-out prompts) and each source, rows are read
in batches until as many as the recipe asks for are kept or the source is exhausted:

    read → form → answers → held out → duplicates → benchmarks → training → length → difficulty → written

Each step returns, for every row of a batch, the error with which the row is rejected, or None. Rejected rows are
counted and written to data/rejects. Only hashes of rows are kept in memory, not their text.
"""

import heapq
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cascade.curation import filters, report, sources
from cascade.curation.decontaminate import Decontaminator, Text
from cascade.curation.dedupe import Deduplicator
from cascade.curation.output import Output
from cascade.curation.record import record
from cascade.curation.rows import USES, Candidate, Use, parse
from cascade.errors import CascadeError, RowError
from cascade.layout import Layout
from cascade.recipe import BASE, CURATE, Recipe, Source
from cascade.tracking import Journal
from cascade.utils.files import publish_directory, write_atomic, write_json
from cascade.utils.progress import say

BATCH = 512
SURPLUS = 4
"""Largest number of rows to generate, as a multiple of the number that the recipe asks for."""
PROGRESS_SECONDS = 5

Step = Callable[[Sequence[Candidate]], list[RowError | None]]


def build(recipe: Recipe, layout: Layout, journal: Journal) -> dict[str, Any]:
    """Write data/sft, rl, benchmarks, held_out, rejects, report.json and report.md; return the report.

    Files are written to a temporary directory and moved when all are complete, report.json last.

    Raises CascadeError for a source that cannot be read or whose rows are all rejected.
    """
    temporary = layout.work(CURATE)
    shutil.rmtree(temporary, ignore_errors=True)
    curation_report = Pipeline(recipe, layout, temporary).run()
    final = layout.sft_data.parent
    (final / "report.json").unlink(missing_ok=True)
    for name in ("benchmarks", "rl", "sft", "held_out", "rejects"):
        publish_directory(temporary / name, final / name)
    shutil.rmtree(temporary)
    write_atomic(final / "report.md", report.as_markdown(curation_report))
    write_json(final / "report.json", curation_report)
    record(recipe, layout, journal, curation_report)
    return curation_report


class Pipeline:
    """Runs the recipe's sources through the steps of each use, into an Output under `folder`."""

    def __init__(self, recipe: Recipe, layout: Layout, folder: Path):
        self._recipe = recipe
        self._root = layout.root
        self._folder = folder
        base = layout.root / recipe.base
        if not (base / "tokenizer_config.json").exists():
            raise CascadeError(f"{base}: no tokenizer there; the recipe's `base` must be a checkpoint directory")
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
        self._held_out: dict[str, set[str]] = {name: set() for name in recipe.curation.sources}
        self._benchmarks: list[tuple[str, str]] = []
        # Training prompts of the sources that generate held-out prompts after them.
        self._trained: dict[str, list[tuple[str, str]]] = {
            name: [] for name, source in recipe.curation.sources.items() if source.held_out and source.generator
        }
        self._output = Output(folder, recipe.seed, recipe.curation.sequence_length)
        self._tally = self._output.tally

    def run(self) -> dict[str, Any]:
        """Returns the report. Raises CascadeError for a source that cannot be read or whose rows are all rejected."""
        for use in USES:
            steps = self._steps(use)
            for name, source in self._recipe.curation.sources.items():
                count = getattr(source, use)
                # Of a stored source, these are reserved with the benchmark.
                reserved = use == "held_out" and source.generator is None
                if count and not reserved:
                    self._source(use, name, source, count, steps)
        return self._output.finish()

    def _steps(self, use: Use) -> dict[str, Step]:
        settings = self._recipe.curation
        duplicates = Deduplicator(settings.near_duplicate, self._folder / f"duplicates-{use}")
        steps: dict[str, Step] = {
            "form": filters.check_form,
            "answers": filters.check_answers,
        }
        if use != "benchmark":
            steps["held out"] = self._check_held_out
        steps["duplicates"] = lambda rows: duplicates.check([row.text for row in rows])
        if use != "benchmark":
            overlap = Decontaminator(settings.decontamination, self._benchmarks)
            steps["benchmarks"] = lambda rows: overlap.check([self._compared(row) for row in rows])
        if use == "held_out":
            steps["training"] = self._training_overlap()
        steps["length"] = filters.LengthFilter(self._tokenizer, settings.max_tokens).check
        if use == "rl" and settings.difficulty is not None:
            steps["difficulty"] = self._difficulty()
        return steps

    def _source(self, use: Use, name: str, source: Source, count: int, steps: dict[str, Step]) -> None:
        self._tally.want(use, name, count)
        if source.generator is not None:
            for level, quota in _quotas(source.levels, count).items():
                rows = sources.generated(source, name, use, level, SURPLUS * quota, self._recipe.seed)
                self._fill(use, name, source, rows, quota, steps)
        elif use == "benchmark" and count > 0:
            self._tally.want("held_out", name, source.held_out)
            rows = sources.stored(source, name, self._root)
            self._hold_out(name, source, rows, count, steps)
        else:
            rows = sources.stored(source, name, self._root)
            self._fill(use, name, source, rows, count if count > 0 else None, steps)
        kept = self._tally.kept(use, name)
        say(f"curate  {use}  {name}: {kept} rows kept" + (f" of {count} wanted" if count > 0 else ""))
        if not kept:
            raise CascadeError(
                f"curation.sources.{name}: no row is left for {use} ({self._tally.commonest_reason(use, name)}); "
                f"the rejected rows are in {self._output.rejects}"
            )

    def _fill(
        self,
        use: Use,
        name: str,
        source: Source,
        rows: Iterator[sources.Raw],
        quota: int | None,
        steps: dict[str, Step],
    ) -> None:
        """Read rows until `quota` are kept; with None, all rows."""
        last_message = time.monotonic()
        while quota is None or quota > 0:
            if time.monotonic() - last_message > PROGRESS_SECONDS:
                last_message = time.monotonic()
                say(f"curate  {use}  {name}: {self._tally.kept(use, name)} rows so far")
            batch = list(islice(rows, BATCH if quota is None else min(BATCH, quota)))
            if not batch:
                return
            kept_rows = self._run_steps(self._parsed(use, name, source, batch), steps)
            for row in kept_rows:
                self._keep(row)
            if quota is not None:
                quota -= len(kept_rows)

    def _hold_out(
        self, name: str, source: Source, rows: Iterator[sources.Raw], count: int, steps: dict[str, Step]
    ) -> None:
        """The benchmark of a stored source: the `count` rows with the lowest hashes, whatever their order; and its
        further held-out prompts, the rows that follow.

        Prompts are hashed, so that all copies of a prompt are held out.
        """
        lowest: list[tuple[int, str, Candidate]] = []
        while batch := list(islice(rows, BATCH)):
            for row in self._run_steps(self._parsed("benchmark", name, source, batch), steps):
                rank = blake2b(f"{self._recipe.seed}:{row.id}".encode(), digest_size=8).digest()
                entry = (-int.from_bytes(rank, "big"), row.id, row)
                if len(lowest) < count + source.held_out:
                    heapq.heappush(lowest, entry)
                else:
                    heapq.heappushpop(lowest, entry)
                    self._tally.reject("benchmark", "draw", "not_drawn", name, source.domain)
        self._tally.enter("benchmark", "draw")
        for number, (_, _, row) in enumerate(sorted(lowest, reverse=True)):
            if number >= count:
                row.use = "held_out"
                self._tally.reject("benchmark", "draw", "held_out", name, source.domain)
                self._tally.draw("held_out", name, source.domain)
            self._keep(row)

    def _parsed(self, use: Use, name: str, source: Source, batch: list[sources.Raw]) -> list[Candidate]:
        self._tally.enter(use, "read")
        rows = []
        for raw in batch:
            self._tally.draw(use, name, source.domain)
            try:
                if isinstance(raw, RowError):
                    raise raw
                rows.append(parse(raw, use, name, source.domain, source.environment or source.generator))
            except RowError as error:
                content = "" if isinstance(raw, RowError) else json.dumps(raw, ensure_ascii=False, default=str)
                self._output.reject(use, "read", error, name, source.domain, content)
        return rows

    def _run_steps(self, rows: list[Candidate], steps: dict[str, Step]) -> list[Candidate]:
        for name, step in steps.items():
            for row in rows[:1]:
                self._tally.enter(row.use, name)
            remaining = []
            for row, error in zip(rows, step(rows), strict=True):
                if error is None:
                    remaining.append(row)
                else:
                    self._output.reject(row.use, name, error, row.source, row.domain, row.as_json())
            rows = remaining
        return rows

    def _keep(self, row: Candidate) -> None:
        question = (row.id, "\n".join(row.questions))
        if row.use in ("benchmark", "held_out"):
            self._held_out[row.source].add(row.id)
            self._benchmarks.append(question)
        elif row.source in self._trained:
            self._trained[row.source].append(question)
        self._output.keep(row)

    def _compared(self, row: Candidate) -> Text:
        generated = self._recipe.curation.sources[row.source].generator is not None
        return Text(row.text, row.questions, generated)

    def _check_held_out(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        """Reject prompts that are in the benchmark of the same source."""
        return [
            RowError("held_out", "in the benchmark of its own source") if row.id in self._held_out[row.source] else None
            for row in rows
        ]

    def _training_overlap(self) -> Step:
        """Reject prompts that overlap a training prompt of the same source. Reasons are those of training rows that
        overlap a benchmark."""
        settings = self._recipe.curation.decontamination
        overlap = {name: Decontaminator(settings, prompts) for name, prompts in self._trained.items()}
        known = {name: {prompt for prompt, _ in prompts} for name, prompts in self._trained.items()}

        def check(rows: Sequence[Candidate]) -> list[RowError | None]:
            if not rows:
                return []
            source = rows[0].source  # All rows of a batch are of one source.
            exact = RowError("in_training", "a training prompt of its own source")
            errors = overlap[source].check([self._compared(row) for row in rows])
            return [exact if row.id in known[source] else error for row, error in zip(rows, errors, strict=True)]

        return check

    def _difficulty(self) -> Step:
        from cascade.curation.difficulty import DifficultyFilter
        from cascade.policy import make_policy
        from cascade.rollout import make_sampler

        settings, rollout = self._recipe.curation.difficulty, self._recipe.evaluation.rollout
        assert settings is not None
        checkpoint = self._root / (self._recipe.base if settings.checkpoint == BASE else settings.checkpoint)
        policy = make_policy("hf", checkpoint, None)
        sampler = make_sampler(rollout, policy)
        threads = self._recipe.judging_threads
        return DifficultyFilter(settings, rollout, sampler, self._tokenizer, self._recipe.seed, threads).check


def _quotas(levels: dict[int, float], count: int) -> dict[int, int]:
    """Number of rows per level, `count` in all (largest remainder method)."""
    exact = {level: share * count for level, share in levels.items()}
    quotas = {level: int(value) for level, value in exact.items()}
    by_remainder = sorted(exact, key=lambda level: (quotas[level] - exact[level], level))
    for level in by_remainder[: count - sum(quotas.values())]:
        quotas[level] += 1
    return quotas
