"""The output of curation: prompts by use and domain, packed SFT sequences, rejected rows, and counts."""

from pathlib import Path
from random import Random
from typing import Any

from cascade.curation import packing, report, store
from cascade.curation.rows import USES, Candidate, Use
from cascade.errors import RowError
from cascade.utils.progress import say
from cascade.utils.seeds import derive_seed

PART_TOKENS = 1 << 26
"""Largest number of tokens in one file of packed sequences."""

FOLDERS: dict[Use, str] = {"benchmark": "benchmarks", "rl": "rl", "sft": "sft", "held_out": "held_out"}


class Output:
    """Writes files under `folder` in the layout of data/: benchmarks/, rl/, sft/, held_out/ and rejects/."""

    def __init__(self, folder: Path, seed: int, sequence_length: int):
        self.tally = report.Tally()
        self.rejects = folder / "rejects"
        self._folder = folder
        self._seed = seed
        self._sequence_length = sequence_length
        self._writers: dict[Path, store.RowWriter] = {}
        self._rejects = store.RowWriter(self.rejects / "part-00000.parquet", store.REJECTS)
        self._spool = packing.Spool(folder / "spool.arrow")
        for use in USES:
            (folder / FOLDERS[use]).mkdir(parents=True, exist_ok=True)

    def keep(self, row: Candidate) -> None:
        """Write a row that passed every step: a prompt to its domain's file, a conversation to the packing spool."""
        self.tally.keep(row)
        if row.use == "sft":
            for example in row.examples:
                self._spool.add(example)
            return
        path = self._folder / FOLDERS[row.use] / f"{row.domain}.parquet"
        if path not in self._writers:
            self._writers[path] = store.RowWriter(path, store.PROMPTS)
        values = {name: getattr(row, name) for name in ("id", "domain", "environment", "source", "level", "pass_rate")}
        self._writers[path].write({**values, "row": row.as_json()})

    def reject(self, use: Use, step: str, error: RowError, source: str, domain: str, content: str) -> None:
        """Count a rejected row and write it with the reason."""
        self.tally.reject(use, step, error.code, source, domain)
        values = {"use": use, "step": step, "reason": error.code, "message": str(error), "source": source}
        values |= {"domain": domain, "row": content}
        self._rejects.write({key: _writable(value) for key, value in values.items()})

    def finish(self) -> dict[str, Any]:
        """Pack the conversations and close every file. Returns the report."""
        for writer in (*self._writers.values(), self._rejects):
            writer.close()
        self._pack()
        return self.tally.report(self._sequence_length)

    def _pack(self) -> None:
        rng = Random(derive_seed(self._seed, "curate", "packing"))
        writer, part, tokens = None, 0, 0
        for sequence in packing.pack(self._spool.pieces(rng), self._sequence_length, rng):
            if writer is None or tokens >= PART_TOKENS:
                if writer is not None:
                    writer.close()
                writer = store.RowWriter(self._folder / "sft" / f"part-{part:05d}.parquet", store.SEQUENCES)
                part, tokens = part + 1, 0
            tokens += len(sequence.token_ids)
            values = {"input_ids": sequence.token_ids, "trained": sequence.trained}
            writer.write({**values, "documents": list(sequence.documents)})
            self.tally.pack(len(sequence.token_ids), sum(sequence.trained), len(sequence.documents))
        if writer is not None:
            writer.close()
        say(f"curate  sft  {self.tally.packed['sequences']} sequences packed")


def _writable(text: str) -> str:
    """Text with lone surrogates escaped, so that Parquet can store it."""
    return text.encode("utf-8", "backslashreplace").decode()
