"""What every training node has around its loop: inputs, resuming, logging, and a finish that can be trusted.

Torch is imported where something is trained: a node that passes a checkpoint on does without its seconds.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cascade
from cascade.errors import CascadeError, CheckpointError
from cascade.layout import Layout
from cascade.recipe import PLACEMENT, Comparison, OnPolicyNode, Recipe, SFTNode
from cascade.recipe.library import checkpoint_of
from cascade.tracking import Journal
from cascade.tracking.curves import write_curves
from cascade.tracking.journal import write_table
from cascade.training.samples import shown
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

if TYPE_CHECKING:
    from cascade.policy.base import Policy
    from cascade.training.resume_state import State

MAX_RELOAD_GAP = 0.05
"""Mean log-probability difference, in nats, between the trained model and what was written of it. Not zero,
because a model trained in float32 may be stored in bfloat16."""


RULES = {"reads_round", *Comparison.model_fields}
"""What a repair's section says beyond a distillation's."""


class NodeRun:
    """One run of one training node, from its inputs to its published checkpoint.

    Of several processes the first alone writes; all of them call every method, and each keeps its part of the state.

    `data` are the files that the node trains on; `others` names further inputs by their hashes. All that is
    written before the end lies in the node's work directory: its state, its samples. The checkpoint and the
    results appear when they are finished.
    """

    def __init__(self, recipe: Recipe, name: str, layout: Layout, data: list[Path], others: dict[str, Any]):
        self.name = name
        node = recipe.node(name)
        assert isinstance(node, SFTNode | OnPolicyNode)
        self.node = node
        self.parent = checkpoint_of(recipe, layout, node.init)
        self.work = layout.work(name)
        self.journal = Journal(layout.journal(name), writes=distributed.is_main())
        self._layout = layout
        self._data = data
        self._data_hashes = distributed.broadcast_from_main(lambda: {path.name: hash_file(path) for path in data})
        # Its place in the pipeline, how often it saves and where it samples and keeps teachers change nothing in what
        # a node makes; nor does by what rules a repair chose its teachers, which are inputs themselves.
        apart = dict.fromkeys({"round", "checkpoint_every", "teacher_memory", *RULES}, True)
        unsaid = {"keep_gathered"} if node.parallel.keep_gathered is None else set()
        section = node.model_dump(mode="json", exclude=apart | {"rollout": PLACEMENT, "parallel": unsaid})
        self.inputs: dict[str, Any] = {
            "recipe section": fingerprint(section),
            "seed and threads": [recipe.seed, recipe.threads],
            "parent": distributed.broadcast_from_main(lambda: hash_directory(self.parent)),
            "data": fingerprint(self._data_hashes),
            "engine": [cascade.__version__, version("torch"), version("transformers")],
            **({"processes": distributed.size()} if distributed.size() > 1 else {}),
            **recipe.judges.inputs,
            **others,
        }
        self._state_path = self.work / "state.safetensors"
        self._samples_path = self.work / "samples.jsonl"
        self._threads = recipe.threads

    def set_up_torch(self) -> None:
        """As many threads as the recipe says, and the same bits every time. Before the first tensor."""
        import torch

        torch.set_num_threads(self._threads)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # What CUDA needs to be deterministic.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def resume(self, policy: Policy) -> State:
        """Continue from the saved state where it was made from the same inputs; else start from step 0."""
        from cascade.training.resume_state import State, load_state

        state, reason = load_state(self._state_path, self.inputs, policy.sharded)
        if reason:
            say(f"{self.name}: starting anew: {reason}")
        if state is None:
            state = State(0, {}, {})
        else:
            policy.load_training_state(state.tensors)
            say(f"{self.name}: resuming after step {state.step}")
        self._open_journal(state.step)
        return state

    def _open_journal(self, step: int) -> None:
        """Continue the journal and the samples at `step`, and say what the node is made from."""
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
        """Save what resuming after `step` steps needs."""
        from cascade.training.resume_state import State, save_state

        if distributed.is_main() or policy.sharded:
            state = State(step, progress, policy.training_state())
            save_state(self._state_path, state, self.inputs, policy.sharded)
        distributed.barrier()

    def add_samples(self, rows: list[dict]) -> None:
        """Rollouts to be read by people; each row has its `step`. The tracker shows them while the node runs."""
        if distributed.is_main():
            write_jsonl(self._samples_path, [*self._samples(), *rows])
            self._show(self._samples(), self.work)

    def finish(self, policy: Policy) -> None:
        """Write the checkpoint, load it back, publish it with its results, forget the state."""
        finished = self.work / "checkpoint"
        if distributed.is_main():
            shutil.rmtree(finished, ignore_errors=True)
        if distributed.is_main() or policy.sharded:
            with room_for(finished):
                policy.save(finished)
        distributed.barrier()
        self._prove_loads(policy, finished)
        if distributed.is_main():
            self._publish(finished)
        distributed.barrier()

    def pass_on(self) -> None:
        """Publish the parent's checkpoint as the node's own: the same files, with nothing trained."""
        self._open_journal(0)
        if not distributed.is_main():
            return
        finished = self.work / "checkpoint"
        shutil.rmtree(finished, ignore_errors=True)
        link_directory(self.parent, finished)
        self._publish(finished)

    def _publish(self, finished: Path) -> None:
        target = self._layout.checkpoint(self.name)
        publish_directory(finished, target)
        self._write_results(hash_directory(target))
        shutil.rmtree(self.work)

    def _show(self, samples: list[dict], folder: Path) -> None:
        write_table(folder / "rollouts.json", [shown(row) for row in samples])
        self.journal.table(folder / "rollouts.json", "samples")

    def _samples(self) -> list[dict]:
        return list(read_jsonl(self._samples_path)) if self._samples_path.exists() else []

    def _prove_loads(self, policy: Policy, directory: Path) -> None:
        from cascade.policy import make_policy
        from cascade.policy.base import Sequence

        count = min(16, len(policy.tokenizer))
        probe = [Sequence(list(range(count)), [False] + [True] * (count - 1))]
        loaded = make_policy(self.node.engine, directory, None, parallel=self.node.parallel)
        gap = (loaded.score(probe).log_probs - policy.score(probe).log_probs).abs().mean().item()
        if not gap <= MAX_RELOAD_GAP:
            raise CheckpointError(
                f"{directory}: the checkpoint loads, but its log-probabilities are {gap:.3g} nats off"
            )

    def _write_results(self, checkpoint_hash: str) -> None:
        results = self._layout.training(self.name)
        steps = [(e["step"], e["values"]) for e in self.journal.entries() if e["kind"] == "metrics"]
        write_atomic(results / "steps.csv", _csv(steps))
        if isinstance(self.node, OnPolicyNode):
            write_curves(results, steps, list(self.node.mix))
            # Empty where nothing was sampled: what an earlier run left must not pass for this one's.
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
            self._show(samples, results)
        else:
            (results / "rollouts.json").unlink(missing_ok=True)
        for file in ("steps.csv", "manifest.json"):
            self.journal.artifact(results / file, "training")
        self.journal.tags({"checkpoint_hash": checkpoint_hash})


def require_files(paths: list[Path], remedy: str) -> list[Path]:
    """Raises CascadeError naming the first that is missing, or the lack of any."""
    for path in paths:
        if not path.exists():
            raise CascadeError(f"{path}: no such file; {remedy}")
    return paths


def _csv(steps: list[tuple[int, dict[str, float]]]) -> str:
    """One line a step; a step that did not measure something has an empty cell there."""
    names = sorted({name for _, values in steps for name in values})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *names])
    writer.writerows([step, *(json.dumps(values[n]) if n in values else "" for n in names)] for step, values in steps)
    return text.getvalue()


def _summary(steps: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Every metric's mean over the last tenth of the steps, at least one."""
    found: dict[str, list[float]] = defaultdict(list)
    for _, values in steps[-max(1, len(steps) // 10) :]:
        for name, value in values.items():
            found[name].append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
