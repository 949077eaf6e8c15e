"""What every training node needs around its loop: inputs, resuming, logging, and publishing a verified checkpoint.

Torch is imported only where something is trained: a node that publishes its parent's checkpoint does not need it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cascade
from cascade.errors import CascadeError, CheckpointError
from cascade.layout import Layout
from cascade.recipe import (
    PLACEMENT,
    Comparison,
    OffPolicyNode,
    OnPolicyNode,
    QADNode,
    Quantization,
    QuantizeNode,
    Recipe,
    SFTNode,
)
from cascade.recipe.library import checkpoint_of
from cascade.tracking import Journal
from cascade.tracking.curves import write_curves
from cascade.tracking.journal import write_table
from cascade.training.samples import table_row
from cascade.utils import distributed
from cascade.utils.files import (
    fingerprint,
    hash_directory,
    hash_file,
    link_directory,
    publish_directory,
    read_jsonl,
    room_for,
    write_atomic,
    write_json,
    write_jsonl,
)
from cascade.utils.progress import say
from cascade.utils.seeds import derive_seed

if TYPE_CHECKING:
    from cascade.policy.base import Policy, Sequence
    from cascade.training.resume_state import State

MAX_RELOAD_GAP = 0.05
"""Largest mean log-probability difference, in nats, between the trained model and its reloaded checkpoint. Not zero,
because a model trained in float32 may be stored in bfloat16."""


RULES = {"reads_round", *Comparison.model_fields}
"""The keys of a repair beyond those of a distillation."""

LATER = {
    "start",
    "merge_scale",
    "held_out",
    "gradient_shares",
}
"""Keys that are not among the inputs where they have their default, so that states saved before there were such keys
are resumed."""


class NodeRun:
    """One run of one training node, from its inputs to its published checkpoint.

    Every process calls every method; only the main process writes, except that with a sharded policy each process
    saves its part of the state and of the checkpoint.

    `data` are the files that the node trains on; `extra_inputs` are further inputs, by their hashes. State and samples
    are in the node's work directory; the checkpoint and the results are published when they are complete.
    """

    def __init__(self, recipe: Recipe, name: str, layout: Layout, data: list[Path], extra_inputs: dict[str, Any]):
        self.name = name
        node = recipe.node(name)
        assert isinstance(node, SFTNode | OffPolicyNode | OnPolicyNode | QuantizeNode | QADNode)
        self.node = node
        self.parent = checkpoint_of(recipe, layout, node.init)
        self.work = layout.work(name)
        self.journal = Journal(layout.journal(name), writes=distributed.is_main())
        self._layout = layout
        self._seed = recipe.seed
        self._data = data
        self._data_hashes = distributed.broadcast_from_main(lambda: {path.name: hash_file(path) for path in data})
        # These keys do not change the checkpoint: the place in the pipeline, how often the node saves, where it samples
        # and keeps its teachers. A repair's rules only choose its teachers, which are inputs themselves.
        excluded = dict.fromkeys({"round", "checkpoint_every", "teacher_memory", *RULES}, True)
        defaults = {key for key, field in type(node).model_fields.items() if getattr(node, key) == field.default}
        excluded |= dict.fromkeys(LATER & defaults, True)
        unset = {"keep_gathered"} if node.parallel.keep_gathered is None else set()
        self._optimizer = None if isinstance(node, QuantizeNode) else node.optimizer
        section = node.model_dump(mode="json", exclude=excluded | {"rollout": PLACEMENT, "parallel": unset})
        self.inputs: dict[str, Any] = {
            "recipe section": fingerprint(section),
            "seed and threads": [recipe.seed, recipe.threads],
            "parent": distributed.broadcast_from_main(lambda: hash_directory(self.parent)),
            "data": fingerprint(self._data_hashes),
            "engine": [cascade.__version__, version("torch"), version("transformers")],
            **({"processes": distributed.size()} if distributed.size() > 1 else {}),
            **recipe.judges.inputs,
            **extra_inputs,
        }
        self._state_path = self.work / "state.safetensors"
        self._samples_path = self.work / "samples.jsonl"
        self._threads = recipe.threads

    def set_up_torch(self) -> None:
        """Set the recipe's number of threads and deterministic algorithms. Call before the first tensor is created."""
        import torch

        torch.set_num_threads(self._threads)
        use_deterministic_algorithms()

    def load_policy(self, checkpoint: Path | None = None, quantization: Quantization | None = None) -> Policy:
        """The parent's checkpoint, or another one, to be trained as the node says; with fake-quantised weights where
        `quantization` says how."""
        from cascade.policy import make_policy

        return make_policy(
            self.node.engine,
            checkpoint or self.parent,
            self._optimizer,
            update_router=getattr(self.node, "update_router", False),
            parallel=self.node.parallel,
            checkpoint_dtype=self.node.checkpoint_dtype,
            lora=self.node.lora,
            seed=derive_seed(self._seed, self.name, "lora"),
            quantization=quantization,
        )

    def resume(self, policy: Policy) -> State:
        """Resume from the saved state where its inputs are the same; else start from step 0."""
        from cascade.training.resume_state import State, load_state

        state, reason = load_state(self._state_path, self.inputs, policy.sharded)
        if reason:
            say(f"{self.name}: starting from step 0: {reason}")
        if state is None:
            state = State(0, {}, {})
        else:
            policy.load_training_state(state.tensors)
            say(f"{self.name}: resuming after step {state.step}")
        self.open_journal(state.step)
        return state

    def earlier_metrics(self) -> list[dict[str, float]]:
        """The metrics of each step before the one at which the node was resumed."""
        return distributed.broadcast_from_main(
            lambda: [entry["values"] for entry in self.journal.entries() if entry["kind"] == "metrics"]
        )

    def open_journal(self, step: int) -> None:
        """Truncate the journal and the samples to before `step`, and log parameters, inputs and data sets."""
        self.journal.rewind(step)
        if distributed.is_main():
            write_jsonl(self._samples_path, [row for row in self._samples() if row["step"] < step])
        self.journal.params(self.node.model_dump(mode="json"))
        self.journal.tags(
            {
                "parent": self.node.init,
                "parent_hash": self.inputs["parent"],
                "data_hash": self.inputs["data"],
                "inputs_hash": fingerprint(self.inputs),
                **{f"teacher_hash/{domain}": content for domain, content in self.inputs.get("teachers", {}).items()},
            }
        )
        for path in self._data:
            self.journal.dataset(f"training/{path.stem}", path, self._data_hashes[path.name], "training")

    def save(self, policy: Policy, step: int, progress: dict[str, Any]) -> None:
        """Save the state to resume from after `step` steps."""
        from cascade.training.resume_state import State, save_state

        if distributed.is_main() or policy.sharded:
            state = State(step, progress, policy.training_state())
            save_state(self._state_path, state, self.inputs, policy.sharded)
        distributed.barrier()

    def add_samples(self, rows: list[dict]) -> None:
        """Add sample rollouts, each row with its `step`. The tracker shows them while the node runs."""
        if distributed.is_main():
            write_jsonl(self._samples_path, [*self._samples(), *rows])
            self._log_samples(self._samples(), self.work)

    def finish(
        self,
        policy: Policy,
        probe: list[Sequence] | None = None,
        max_gap: float = MAX_RELOAD_GAP,
        measure: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the checkpoint, reload and verify it, publish it with its results, delete the state. It is verified on
        the sequences `probe`, by default one of the vocabulary's first tokens. `measure` is called with what was
        written, and may write metrics."""
        directory = self.work / "checkpoint"
        if distributed.is_main():
            shutil.rmtree(directory, ignore_errors=True)
        if distributed.is_main() or policy.sharded:
            with room_for(directory):
                policy.save(directory)
        distributed.barrier()
        self._check_reload(policy, directory, probe, max_gap)
        if measure is not None:
            measure(directory)
        if distributed.is_main():
            self._publish(directory)
        distributed.barrier()

    def publish_parent(self) -> None:
        """Publish the parent's checkpoint as the node's own: the same files, without training."""
        self.open_journal(0)
        if not distributed.is_main():
            return
        directory = self.work / "checkpoint"
        shutil.rmtree(directory, ignore_errors=True)
        link_directory(self.parent, directory)
        self._publish(directory)

    def _publish(self, directory: Path) -> None:
        target = self._layout.checkpoint(self.name)
        publish_directory(directory, target)
        self._write_results(hash_directory(target))
        shutil.rmtree(self.work)

    def _log_samples(self, samples: list[dict], folder: Path) -> None:
        write_table(folder / "rollouts.json", [table_row(row) for row in samples])
        self.journal.table(folder / "rollouts.json", "samples")

    def _samples(self) -> list[dict]:
        return list(read_jsonl(self._samples_path)) if self._samples_path.exists() else []

    def _check_reload(self, policy: Policy, directory: Path, probe: list[Sequence] | None, max_gap: float) -> None:
        from cascade.policy import make_policy
        from cascade.policy.base import Sequence

        count = min(16, len(policy.tokenizer))
        probe = probe or [Sequence(list(range(count)), [False] + [True] * (count - 1))]
        loaded = make_policy(self.node.engine, directory, None, parallel=self.node.parallel)
        gap = (loaded.score(probe).log_probs - policy.score(probe).log_probs).abs().mean().item()
        if not gap <= max_gap:
            raise CheckpointError(
                f"{directory}: the checkpoint loads, but its log-probabilities are {gap:.3g} nats off "
                "those of the model it was written from; it is not published, run the node again"
            )

    def _write_results(self, checkpoint_hash: str) -> None:
        results = self._layout.training(self.name)
        by_step: dict[int, dict[str, float]] = {}
        for entry in self.journal.entries():
            if entry["kind"] == "metrics":
                by_step.setdefault(entry["step"], {}).update(entry["values"])
        steps = list(by_step.items())
        write_atomic(results / "steps.csv", _csv(steps))
        if isinstance(self.node, OnPolicyNode):
            write_curves(results, steps, list(self.node.mix))
            # Written even where it is empty, in place of an earlier run's file.
            write_jsonl(results / "samples.jsonl", self._samples())
        seconds = sum(values["time/step_seconds"] for _, values in steps)
        tokens = sum(values["train/tokens"] for _, values in steps)
        write_json(results / "metrics.json", {"steps": len(steps), **_summary(steps)})
        write_json(
            results / "manifest.json",
            {
                "node": self.name,
                "parent": self.node.init,
                "inputs": self.inputs,
                "checkpoint": checkpoint_hash,
                "seconds": round(seconds, 1),
                "tokens": int(tokens),
            },
        )
        if samples := self._samples():
            self._log_samples(samples, results)
        else:
            (results / "rollouts.json").unlink(missing_ok=True)
        for file in ("steps.csv", "manifest.json"):
            self.journal.artifact(results / file, "training")
        self.journal.tags({"checkpoint_hash": checkpoint_hash})


def require_files(paths: list[Path], remedy: str) -> list[Path]:
    """The paths. Raises CascadeError naming the first that is missing, followed by `remedy`."""
    for path in paths:
        if not path.exists():
            raise CascadeError(f"{path}: no such file; {remedy}")
    return paths


def _csv(steps: list[tuple[int, dict[str, float]]]) -> str:
    """One row for each step; a metric that a step does not have is an empty cell."""
    names = sorted({name for _, values in steps for name in values})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *names])
    writer.writerows([step, *(json.dumps(values[n]) if n in values else "" for n in names)] for step, values in steps)
    return text.getvalue()


def _summary(steps: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Every metric's mean over the last tenth of the steps, at least one."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for _, values in steps[-max(1, len(steps) // 10) :]:
        for name, value in values.items():
            by_name[name].append(value)
    return {name: sum(values) / len(values) for name, values in sorted(by_name.items())}


def use_deterministic_algorithms() -> None:
    """As nodes train. Call before the first tensor is created."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA is deterministic only with this.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
