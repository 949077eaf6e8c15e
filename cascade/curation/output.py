"""The output of curation: prompts by use and domain, packed SFT sequences, rejected rows, and counts."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.curation import packing, report, store
from cascade.curation.pieces import REJECTS
from cascade.curation.rows import USES, Use
from cascade.curation.selection import Share
from cascade.curation.steps import STEPS
from cascade.utils.seeds import derive_seed

PART_TOKENS = 1 << 24
"""Largest number of tokens in one file of packed sequences: few enough that all workers have files to write."""

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
        self._kept_rejects: Counter[tuple[str, str, str]] = Counter()
        self._shares: list[tuple[Share, NDArray[np.int64]]] = []
        for use in USES:
            (folder / FOLDERS[use]).mkdir(parents=True, exist_ok=True)

    def keep_prompts(self, use: Use, domain: str, rows: Iterable[tuple[Share, int]]) -> list[tuple[str, str]]:
        """Write prompts to their domain's file, in the order given; returns id and row of each."""
        path = self._folder / FOLDERS[use] / f"{domain}.parquet"
        written = []
        for share, content in _contents(rows):
            if path not in self._writers:
                self._writers[path] = store.RowWriter(path, store.PROMPTS)
            values = {name: content[name] for name in ("id", "environment", "level")}
            values |= {"domain": domain, "source": share.piece.source, "row": content["content"]}
            self._writers[path].write({**values, "pass_rate": share.pass_rates.get(content["row"])})
            written.append((content["id"], content["content"]))
        return written

    def keep_conversations(self, share: Share, copies: NDArray[np.int64]) -> None:
        """Conversations to be packed: the kept rows of a share, each as often as `copies` says."""
        self._shares.append((share, copies))

    def reject(self, share: Share, domain: str) -> None:
        """Count the rejected rows of a share, and write them with the reason: of a source for each use and reason the
        first REJECTS."""
        use, source = share.piece.use, share.piece.source
        steps, reasons = share.made.array("steps"), share.made.array("reasons")
        names = [*STEPS[use], "difficulty"]
        rejected: dict[int, tuple[str, str, str | None]] = {
            row: (names[steps[row]], share.made.reasons[reasons[row]], None)
            for row in np.flatnonzero(reasons[: share.drawn]).tolist()
        }
        rejected |= {row: (step, error.code, str(error)) for row, (step, error) in share.errors.items()}
        samples = []
        for row, (step, code, _) in sorted(rejected.items()):
            self.tally.reject(use, step, code, source, domain)
            self._kept_rejects[use, source, code] += 1
            if self._kept_rejects[use, source, code] <= REJECTS:
                samples.append(row)
        for content in share.made.content(np.array(samples, np.uint32)):
            step, code, message = rejected[content["row"]]
            values = {"use": use, "step": step, "reason": code, "message": message or content["message"] or ""}
            text = store.writable(values["message"])
            self.tally.sample(use, code, source, text)
            self._rejects.write(
                {**values, "message": text, "source": source, "domain": domain, "row": content["content"]}
            )

    def close_rejects(self) -> None:
        self._rejects.close()

    def close_prompts(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def plan_parts(self, root: Path) -> list[tuple[str, str]]:
        """Decide which conversations go into which sequence. Returns for each file of packed sequences the path of its
        plan and its own, relative to `root`."""
        self.close_rejects()
        lengths, pieces, examples, folders = self._conversations(root)
        rng = Random(derive_seed(self._seed, "curate", "packing"))
        parts: list[tuple[str, str]] = []
        counts, numbers = array("I"), array("I")
        tokens = 0

        def save() -> None:
            places = np.stack([pieces[numbers], examples[numbers]], axis=1).astype(np.uint32)
            parts.append(self._save(root, len(parts), folders, counts, places))

        for sequence in packing.plan(lengths, self._sequence_length, rng):
            if tokens >= PART_TOKENS:
                save()
                counts, numbers, tokens = array("I"), array("I"), 0
            if sequence:
                counts.append(len(sequence))
                numbers.extend(sequence)
                tokens += (size := int(lengths[sequence].sum()))
                self.tally.pack(size, len(sequence))
        if counts:
            save()
        return parts

    def finish(self) -> dict[str, Any]:
        """Returns the report."""
        self.close_prompts()
        return self.tally.report(self._sequence_length)

    def _save(
        self, root: Path, number: int, folders: list[str], counts: Sequence[int], places: NDArray[np.uint32]
    ) -> tuple[str, str]:
        plan = root / "plans" / f"{number:05d}.npz"
        packing.save_plan(plan, folders, counts, places)
        out = self._folder / "sft" / f"part-{number:05d}.parquet"
        return str(plan.relative_to(root)), str(out.relative_to(root))

    def _conversations(self, root: Path) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], list[str]]:
        """Of all conversations, in order: tokens, number of the piece, number of the example there; the folders of the
        pieces."""
        lengths, pieces, examples = ([np.empty(0, np.int32)] for _ in range(3))
        folders: list[str] = []
        for share, copies in self._shares:
            rows = share.made.array("example-rows")
            times = np.zeros(share.made.rows, np.int64)
            times[share.kept] = copies
            found = np.repeat(np.arange(len(rows)), times[rows])
            self.tally.packed["trained_tokens"] += int(share.made.array("example-trained")[found].sum())
            lengths.append(share.made.array("example-lengths")[found])
            pieces.append(np.full(len(found), len(folders), np.int32))
            examples.append(found.astype(np.int32))
            folders.append(str(share.made.folder.relative_to(root)))
        return np.concatenate(lengths), np.concatenate(pieces), np.concatenate(examples), folders


def _contents(rows: Iterable[tuple[Share, int]]) -> Iterable[tuple[Share, dict[str, Any]]]:
    """The content of each row, in the order given; neighbours of a share are read together."""
    groups: list[tuple[Share, list[int]]] = []
    for share, row in rows:
        if not groups or groups[-1][0] is not share:
            groups.append((share, []))
        groups[-1][1].append(row)
    several = len({id(share) for share, _ in groups}) < len(groups) or any(r != sorted(r) for _, r in groups)
    if not several:
        for share, numbers in groups:
            yield from ((share, content) for content in share.made.content(np.array(numbers, np.uint32)))
        return
    # A drawn benchmark: few rows, in the order of their ranks.
    ordered = [(share, row) for share, numbers in groups for row in numbers]
    by_share: dict[int, dict[int, dict[str, Any]]] = {}
    for share in {id(share): share for share, _ in groups}.values():
        wanted = np.array([row for other, row in ordered if other is share], np.uint32)
        by_share[id(share)] = {content["row"]: content for content in share.made.content(wanted)}
    for share, row in ordered:
        yield share, by_share[id(share)][row]
