"""Supervised fine-tuning: packed sequences, loss on assistant tokens only, one pass over shuffled epochs."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.policy.base import Objective, Sequence
from cascade.recipe import Recipe, SFTNode
from cascade.training.lr_schedule import learning_rate
from cascade.training.metrics import step_metrics
from cascade.training.node_run import NodeRun
from cascade.training.shuffle import ShuffledEpochs
from cascade.utils import distributed
from cascade.utils.progress import Progress

COLUMNS = ["input_ids", "trained", "documents"]


def run_sft(recipe: Recipe, name: str, layout: Layout) -> None:
    """Train node `name` on data/sft and publish its checkpoint.

    The step number determines the step's sequences, so resuming needs no cursor.
    """
    node = recipe.sft[name]
    files = sft_files(layout)
    run = NodeRun(recipe, name, layout, files, {})
    run.set_up_torch()
    policy = run.load_policy()
    step = run.resume(policy).step
    data = PackedSequences(files, run.work / "sequences.arrow")
    steps = step_count(node, len(data))
    order = ShuffledEpochs(len(data), recipe.seed, name, "sequences")
    progress = Progress(name, steps, step)
    while step < steps:
        began = time.perf_counter()
        batch = [data[order[position]] for position in range(step * node.batch, (step + 1) * node.batch)]
        trained = sum(sum(sequence.trained) for sequence in batch)
        rate = learning_rate(node.optimizer, step, steps)
        with distributed.step():
            report = policy.step(batch, mean_negative_log_prob(trained), rate)
        seconds = time.perf_counter() - began
        run.journal.metrics({**step_metrics(report, rate, seconds), "time/step_seconds": seconds}, step)
        progress.step(step, {"loss": f"{report.loss:.3f}", "tokens/s": f"{report.tokens / seconds:,.0f}"})
        step += 1
        if step % node.checkpoint_every == 0 or step == steps:
            run.save(policy, step, {})
    run.finish(policy)


def sft_files(layout: Layout) -> list[Path]:
    """The packed sequences' files. Raises CascadeError where there are none."""
    files = sorted(layout.sft_data.glob("*.parquet"))
    if not files:
        raise CascadeError(f"{layout.sft_data}: no Parquet files; `cascade node curate` writes them")
    return files


def step_count(node: SFTNode, sequences: int) -> int:
    """The number of optimizer steps closest to the node's epochs, at least one."""
    return max(1, round(node.epochs * sequences / node.batch))


def mean_negative_log_prob(trained: int) -> Objective:
    """-1/N Σ log π over the N trained tokens of the step."""

    def objective(log_probs: Tensor, index: Tensor) -> Tensor:
        return -log_probs.sum() / trained

    return objective


class PackedSequences:
    """Random access to the rows of the Parquet files through a memory map, so that memory does not grow with the data.

    Raises CascadeError naming the file that lacks a column.
    """

    def __init__(self, files: list[Path], mapped: Path):
        if distributed.is_main():
            self._map(files, mapped)
        distributed.barrier()
        self._table = pa.ipc.open_file(pa.memory_map(str(mapped))).read_all()

    @staticmethod
    def _map(files: list[Path], mapped: Path) -> None:
        mapped.parent.mkdir(parents=True, exist_ok=True)
        temporary = mapped.with_suffix(".tmp")
        writer: pa.RecordBatchFileWriter | None = None
        for path in files:
            file = pq.ParquetFile(path)
            missing = [column for column in COLUMNS if column not in file.schema_arrow.names]
            if missing:
                raise CascadeError(f"{path}: no column {missing[0]!r}; packed sequences have {', '.join(COLUMNS)}")
            for batch in file.iter_batches(columns=COLUMNS):
                writer = writer or pa.ipc.new_file(str(temporary), batch.schema)
                writer.write_batch(batch)
        if writer is None:
            raise CascadeError(
                f"{files[0].parent}: the Parquet files hold no packed sequences; check the curation report"
            )
        writer.close()
        os.replace(temporary, mapped)

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Sequence:
        token_ids, trained, documents = (self._table[column][index].as_py() for column in COLUMNS)
        return Sequence(token_ids, trained, tuple(documents))
