"""What is decided about rows by themselves, a batch at a time: a pure function of the rows and of the benchmarks.

    read → form → answers → held out → (duplicates) → benchmarks → length

Duplicates are a question of all rows: here the rows get their fingerprints, the selection decides.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from cascade.curation import filters
from cascade.curation.decontaminate import Decontaminator, Text
from cascade.curation.dedupe import Fingerprints, fingerprints
from cascade.curation.rows import Candidate, Use, parse
from cascade.curation.sources import Raw
from cascade.curation.text import Hashes, read_words
from cascade.errors import CascadeError, RowError
from cascade.recipe import Curation, Source

DUPLICATES = "duplicates"
STEPS: dict[Use, tuple[str, ...]] = {
    "benchmark": ("read", "form", "answers", DUPLICATES, "length"),
    "rl": ("read", "form", "answers", "held out", DUPLICATES, "benchmarks", "length"),
    "sft": ("read", "form", "answers", "held out", DUPLICATES, "benchmarks", "length"),
    "held_out": ("read", "form", "answers", "held out", DUPLICATES, "benchmarks", "training", "length"),
}
"""The steps of each use, in order: the first that rejects a row counts."""

Check = Callable[[Sequence[Candidate]], list[RowError | None]]


@dataclass(frozen=True)
class HeldOut:
    """The benchmarks and what else is held out: by source the ids of their rows, and id and text (user messages) of
    each; and the training prompts of the sources that generate held-out prompts after them."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    prompts: list[tuple[str, str]] = field(default_factory=list)
    trained: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


class Judged(NamedTuple):
    """A row after the steps: `error` of step number `step`, or None. `candidate` is None where it could not be read."""

    raw: Raw
    candidate: Candidate | None
    step: int
    error: RowError | None

    @property
    def content(self) -> dict[str, Any] | str:
        """The row as it is kept, or the text of what could not be read."""
        if self.candidate is not None:
            return self.candidate.content
        return "" if isinstance(self.raw, RowError) else json.dumps(self.raw, ensure_ascii=False, default=str)


class Steps:
    """The steps of one use."""

    def __init__(
        self,
        curation: Curation,
        base: Path,
        use: Use,
        held_out: HeldOut,
        threads: int,
        tokenizer: PreTrainedTokenizerBase,
    ):
        """`tokenizer` is that of `base`."""
        self._curation = curation
        self._use = use
        self._held_out = held_out
        self._trained: dict[str, Decontaminator] = {}
        self.names = STEPS[use]
        before: dict[str, Check] = {
            "form": filters.check_form,
            "answers": partial(filters.check_answers, threads=threads),
        }
        after: dict[str, Check] = {}
        if use != "benchmark":
            before["held out"] = self._check_held_out
            self._overlap = Decontaminator(curation.decontamination, held_out.prompts)
        after["length"] = filters.LengthFilter(tokenizer, curation.max_tokens, base).check
        self._before, self._after = before, after

    def run(self, raws: Sequence[Raw], name: str, source: Source) -> tuple[list[Judged], list[int], Fingerprints]:
        """Every row of a batch; which of them reached the step of duplicates, and the fingerprints of those."""
        rows = [self._read(raw, name, source) for raw in raws]
        for step, check in self._before.items():
            self._apply(step, check, rows)
        reached = [at for at, row in enumerate(rows) if row.error is None]
        candidates = [candidate for row in rows if row.error is None and (candidate := row.candidate) is not None]
        texts = [row.text for row in candidates]
        found, quantities = read_words(texts)
        tools = [row.tools_text for row in candidates]
        prints = fingerprints(self._curation.near_duplicate, texts, found, quantities, tools)
        if self._use != "benchmark" and (self._overlap.prompts or self._use == "held_out"):
            by_id = {id(row): text for row, text in zip(candidates, found.parts(), strict=True)}
            generated = source.generator is not None
            self._apply("benchmarks", partial(self._check_overlap, self._overlap, by_id, generated), rows)
            if self._use == "held_out":
                self._apply("training", partial(self._check_training, name, by_id, generated), rows)
        for step, check in self._after.items():
            self._apply(step, check, rows)
        return rows, reached, prints

    def _read(self, raw: Raw, name: str, source: Source) -> Judged:
        try:
            if isinstance(raw, RowError):
                raise raw
            environment = source.environment or source.generator
            return Judged(raw, parse(raw, self._use, name, source.domain, environment), 0, None)
        except RowError as error:
            return Judged(raw, None, 0, error)

    def _apply(self, step: str, check: Check, rows: list[Judged]) -> None:
        left = [(at, row) for at, row in enumerate(rows) if row.error is None]
        number = self.names.index(step)
        candidates = [row.candidate for _, row in left if row.candidate is not None]
        for (at, row), error in zip(left, check(candidates), strict=True):
            if error is not None:
                rows[at] = Judged(row.raw, row.candidate, number, error)

    def _check_held_out(self, rows: Sequence[Candidate]) -> list[RowError | None]:
        """Reject prompts that are in the benchmark of the same source."""
        return [
            RowError("held_out", "in the benchmark of its own source")
            if row.id in self._held_out.ids.get(row.source, ())
            else None
            for row in rows
        ]

    def _check_training(
        self, name: str, found: dict[int, Hashes], generated: bool, rows: Sequence[Candidate]
    ) -> list[RowError | None]:
        """Reject prompts that overlap a training prompt of the same source. Reasons are those of training rows that
        overlap a benchmark."""
        if name not in self._trained:
            self._trained[name] = Decontaminator(self._curation.decontamination, self._held_out.trained.get(name, []))
        known = {prompt for prompt, _ in self._held_out.trained.get(name, [])}
        exact = RowError("in_training", "a training prompt of its own source")
        errors = self._check_overlap(self._trained[name], found, generated, rows)
        return [exact if row.id in known else error for row, error in zip(rows, errors, strict=True)]

    @staticmethod
    def _check_overlap(
        overlap: Decontaminator, found: dict[int, Hashes], generated: bool, rows: Sequence[Candidate]
    ) -> list[RowError | None]:
        return overlap.check([Text(found[id(row)], row.questions, generated) for row in rows])


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """Raises CascadeError where there is none."""
    from transformers import AutoTokenizer  # It imports torch, which takes seconds; worker processes do without.

    if not (base / "tokenizer_config.json").exists():
        raise CascadeError(f"{base}: no tokenizer there; the recipe's `base` must be a checkpoint directory")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
    return tokenizer
