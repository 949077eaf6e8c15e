"""The jobs of curation that any process can do: each reads files and writes one, which appears whole.

A job is a line of JSON, so that it can be sent to a process of another machine that shares the project's directory.
"""

import gc
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from cascade.curation import dedupe, packing, sources
from cascade.curation.dedupe import Numbers, Signatures
from cascade.curation.pieces import MadePiece, Piece, PieceWriter, batches
from cascade.curation.rows import Use
from cascade.curation.steps import HeldOut, Steps
from cascade.recipe import Recipe
from cascade.utils.files import read_json, write_atomic, write_json

HELD_OUT = "held-out.json"
TOKENIZER = "tokenizer.pickle"


class Worker:
    """Does the jobs of one curation. `folder` is its working directory, where the tokenizer is (`write_tokenizer`): to
    unpickle it needs no torch, which takes seconds to import."""

    def __init__(self, recipe: Recipe, root: Path, folder: Path, threads: int):
        self._recipe = recipe
        self._root = root
        self._folder = folder
        self._threads = threads
        self._steps: dict[Use, Steps] = {}

    def __call__(self, job: str) -> str:
        """Do a job; its result says where it is."""
        task = json.loads(job)
        kind = task.pop("job")
        return {"piece": self._piece, "pairs": self._pairs, "part": self._part}[kind](task)

    def warm_up(self, use: Use) -> None:
        """Load what the pieces of a use need before the first."""
        self._steps_of(use)

    def _piece(self, task: dict[str, Any]) -> str:
        piece = Piece.of_job(task)
        folder = self._folder / piece.folder
        if not MadePiece.is_made(folder):
            make_piece(piece, self._recipe, self._root, folder, self._steps_of(piece.use))
        return str(folder)

    def _steps_of(self, use: Use) -> Steps:
        if use not in self._steps:
            held_out = HeldOut() if use == "benchmark" else read_held_out(self._folder)
            base = self._root / self._recipe.base
            tokenizer = pickle.loads((self._folder / TOKENIZER).read_bytes())
            # Of one use at a time: each has an index of all that is held out.
            self._steps = {use: Steps(self._recipe.curation, base, use, held_out, self._threads, tokenizer)}
        return self._steps[use]

    def _pairs(self, task: dict[str, Any]) -> str:
        out = self._folder / task["out"]
        if not out.is_file():
            folders = (self._folder / task["pieces"]).read_text().split("\n")
            made = [MadePiece(self._folder / folder) for folder in folders]
            search = PairSearch(made, self._recipe.curation.near_duplicate)
            _save_whole(out, search.run(task["low"], task["high"]))
        return str(out)

    def _part(self, task: dict[str, Any]) -> str:
        out = self._folder / task["out"]
        if not out.is_file():
            packing.write_part(self._folder / task["plan"], self._folder, out)
        return str(out)


@contextmanager
def work(recipe: Recipe, root: Path, folder: Path, threads: int) -> Iterator[Worker]:
    """What a worker process enters."""
    # One thread a process: there is a process for each core.
    for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with without_collecting():
        yield Worker(recipe, root, folder, threads)


@contextmanager
def without_collecting() -> Iterator[None]:
    """Leave what is in memory now to itself: to look through the objects of the libraries again and again for garbage
    takes a tenth of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def make_piece(piece: Piece, recipe: Recipe, root: Path, folder: Path, steps: Steps) -> None:
    """Read the rows of a piece, run them through the steps, write what came of it."""
    source = recipe.curation.sources[piece.source]
    if piece.level is not None:
        assert piece.limit is not None
        raws = sources.generated(source, piece.source, piece.use, piece.level, piece.limit, recipe.seed)
    else:
        assert piece.shard is not None
        raws = sources.read(piece.shard, source, piece.source, root)
    for _ in range(piece.skip):
        next(raws, None)
    writer = PieceWriter(folder, recipe.seed, counts_new=piece.wanted is not None)
    exhausted = True
    # No more rows at once than are still wanted: what is drawn beyond them is drawn in vain.
    left = piece.wanted
    while left is None or left > 0:
        batch = next(batches(raws, left), None)
        if batch is None:
            break
        writer.add(*steps.run(batch, piece.source, source))
        left = None if piece.wanted is None else piece.wanted - writer.new
    else:
        exhausted = False
    writer.finish(exhausted)


class PairSearch:
    """Pairs of equal and similar rows with keys in a range. Rows are numbered over the pieces in order: those that
    reached the step of duplicates."""

    def __init__(self, pieces: list[MadePiece], threshold: float):
        self._pieces = pieces
        self._threshold = threshold
        self._bases = np.cumsum([0, *(len(piece.array("slots", mapped=True)) for piece in pieces)])

    def run(self, low: int, high: int) -> dict[str, NDArray[Any]]:
        """Keys from `low` up to `high`, in 2^56."""
        copies, first = dedupe.find_equal(*self._entries("exact", low, high))
        pairs = dedupe.find_pairs(*self._entries("near", low, high), self._signatures, self._threshold)
        similar = {"later": pairs.later, "earlier": pairs.earlier, "similarity": pairs.similarity}
        return {"copies": copies, "first": first, **similar}

    def _entries(self, name: str, low: int, high: int) -> tuple[dedupe.Hashes, Numbers]:
        keys, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        bounds = np.array([low, min(high << 56, (1 << 64) - 1) if high < 256 else (1 << 64) - 1], np.uint64)
        bounds[0] = np.uint64(low << 56)
        for piece, base in zip(self._pieces, self._bases, strict=False):
            found = piece.array(f"{name}-keys", mapped=True)
            begin, end = np.searchsorted(found, bounds)
            if high >= 256:
                end = len(found)
            keys.append(found[begin:end])
            rows.append(piece.array(f"{name}-slots", mapped=True)[begin:end] + base)
        return np.concatenate(keys), np.concatenate(rows)

    def _signatures(self, rows: Numbers) -> Signatures:
        result = np.empty((len(rows), dedupe.HASHES), np.uint8)
        owners = np.searchsorted(self._bases, rows, "right") - 1
        for owner in np.unique(owners):
            at = owners == owner
            result[at] = self._pieces[owner].array("signatures", mapped=True)[rows[at] - self._bases[owner]]
        return result


def read_held_out(folder: Path) -> HeldOut:
    content = read_json(folder / HELD_OUT)
    ids = {source: set(values) for source, values in content["ids"].items()}
    trained = {source: [(name, text) for name, text in rows] for source, rows in content["trained"].items()}
    return HeldOut(ids, [(name, text) for name, text in content["prompts"]], trained)


def write_held_out(folder: Path, held_out: HeldOut) -> None:
    ids = {source: sorted(values) for source, values in held_out.ids.items()}
    write_json(folder / HELD_OUT, {"ids": ids, "prompts": held_out.prompts, "trained": held_out.trained})


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    write_atomic(folder / TOKENIZER, pickle.dumps(tokenizer))


def _save_whole(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)
