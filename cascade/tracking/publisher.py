"""Journals replayed into MLflow, idempotently: what is already there is left alone, what is missing is added."""

import json
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cascade.layout import Layout
from cascade.recipe import PIPELINE, REPORT, Recipe, recipe_hash
from cascade.tracking import mlflow_store, provenance
from cascade.tracking.journal import (
    EVALUATED,
    Journal,
    decision_journal,
    evaluation_journal,
    metric_name,
    system_journal,
    tags_of,
)
from cascade.tracking.notes import NOTE, node_note, pipeline_note
from cascade.tracking.registry import register
from cascade.utils.files import hash_file

if TYPE_CHECKING:
    from mlflow.entities import Run

METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
DIGEST = 36
"""Characters of a dataset's hash that MLflow takes."""
SYSTEM = "cascade.published_system"
TABLES = "mlflow.loggedArtifacts"
"""The tag by which MLflow knows which files are tables."""
PUBLISHED = "cascade.published_step"
ARTIFACT = PurePosixPath("cascade.artifact")

Entries = list[dict[str, Any]]


class Publisher:
    """Publishes the nodes of one pipeline run. Any exception of MLflow passes through."""

    def __init__(self, recipe: Recipe, layout: Layout):
        self._recipe = recipe
        self._layout = layout
        self.client = mlflow_store.connect(layout)
        self._experiment = mlflow_store.experiment(self.client, layout, recipe)
        self._pipeline = mlflow_store.pipeline_run_id(layout)
        self._parent: str | None = None
        self._ended: dict[str, str] = {}

    def node(self, name: str, running: bool = False) -> str:
        """Replay all that the node, its decision and its evaluation wrote. Returns the id of the node's run.

        `running`: the node's process is at work, so the run is shown as such.
        """
        training, others = self._entries(name)
        entries = sorted([*training, *others], key=lambda entry: entry["time"])
        tags = tags_of(entries)
        identity = {**self._identity(name), mlflow_store.INPUTS: tags.get("inputs_hash", "")}
        start = entries[0]["time"] if entries else time.time()
        run = mlflow_store.find_or_create_run(
            self.client, self._layout, self._experiment, name, identity, self.parent(), start
        )
        run_id: str = run.info.run_id
        # Of a node that was resumed, steps measured twice have equal values: the first are kept. Without a hash of
        # its inputs that is not known; then MLflow alone drops what it has already.
        published = int(run.data.tags.get(PUBLISHED, -1)) if "inputs_hash" in tags else -1
        new = [e for e in training if e["kind"] == "metrics" and e["step"] > published]
        steps = [e["step"] for e in new]
        if steps:
            tags[PUBLISHED] = str(max(steps))
        tags |= {f"dvc/{path}": digest for path, digest in provenance.dvc_hashes(self._layout.root, name).items()}
        system = self._system(name, run, start)
        if system:
            tags[SYSTEM] = repr(system[-1]["time"])
        if NOTE not in run.data.tags:  # What a person wrote there stays.
            tags[NOTE] = node_note(self._recipe, name)
        try:
            self._log(run, [*new, *(e for e in others if e["kind"] == "metrics"), *system], entries, tags)
            self._artifacts(run, entries)
            for entry in [e for e in entries if e["kind"] == "model"][-1:]:
                register(self.client, run, entry["name"], entry["alias"], entry["tags"])
        except Exception as error:
            if mlflow_store.is_refusal(error):  # Or the run would seem to be at work for ever.
                self._set_status(run, entries, running)
            raise
        self._set_status(run, entries, running)
        return run_id

    def report(self) -> None:
        """Files of the report journal, to the parent run."""
        entries = Journal(self._layout.journal(REPORT)).entries()
        run = self.client.get_run(self.parent())
        self._log(run, [e for e in entries if e["kind"] == "metrics"], entries, tags_of(entries))
        self._artifacts(run, entries)

    def finish(self) -> None:
        """The pipeline run has ended: as failed where a node published here has."""
        self.client.set_terminated(self.parent(), "FAILED" if "FAILED" in self._ended.values() else "FINISHED")

    def has_journal(self, node: str, since: float = 0.0) -> bool:
        """Whether the node, its decision or its evaluation said anything since then, in Unix seconds."""
        return any(entry["time"] >= since for entries in self._entries(node) for entry in entries)

    def has_ended(self, node: str, since: float) -> bool:
        """Whether it has said since then how it ended: a process that was killed could not."""
        said = (e for entries in self._entries(node) for e in entries if e["kind"] == "status")
        return any(entry["time"] >= since for entry in said)

    def find(self, node: str) -> "Run | None":
        """The node's run as it now stands, with its metrics and tags."""
        training, _ = self._entries(node)
        identity = {**self._identity(node), mlflow_store.INPUTS: tags_of(training).get("inputs_hash", "")}
        return mlflow_store.find_run(self.client, self._experiment, identity)

    def parent(self) -> str:
        """The id of the pipeline run's own run."""
        if self._parent is None:
            identity = self._identity(PIPELINE)
            name = f"{self._recipe.name} {self._pipeline}"
            run = mlflow_store.find_or_create_run(
                self.client, self._layout, self._experiment, name, identity, None, time.time()
            )
            told = {
                "recipe": self._recipe.name,
                "recipe_hash": recipe_hash(self._layout.params) if self._layout.params.exists() else None,
                "git_revision": provenance.git_revision(self._layout.root),
                "seed": str(self._recipe.seed),
            }
            tags = {key: value for key, value in told.items() if value is not None}
            if NOTE not in run.data.tags:
                tags[NOTE] = pipeline_note(self._recipe)
            # Nodes that begin side by side, and a decision beside its own node's publishing, all come here at once.
            with mlflow_store.locked(self._layout):
                run = self.client.get_run(run.info.run_id)
                self._log(run, [], [], tags)
                if self._layout.params.exists():
                    self._artifacts(run, [{"kind": "artifact", "path": str(self._layout.params), "folder": ""}])
            self._parent = str(run.info.run_id)
        return self._parent

    def _identity(self, node: str) -> dict[str, str]:
        return {mlflow_store.RUN_ID: self._pipeline, mlflow_store.NODE: node}

    def _entries(self, node: str) -> tuple[Entries, Entries]:
        """The node's own entries; and its decision's, and its evaluation's where that is of the checkpoint the node
        now has."""
        training = Journal(self._layout.journal(node)).entries()
        evaluation = evaluation_journal(self._layout, node).entries()
        made = tags_of(training).get("checkpoint_hash")
        if training and tags_of(evaluation).get(EVALUATED) != made:
            evaluation = []
        return training, [*decision_journal(self._layout, node).entries(), *evaluation]

    def _system(self, name: str, run: "Run", start: float) -> Entries:
        """How the machine fared since `start` that is not published yet; the step is in seconds since then.

        What an earlier run of the node left is passed over: `start` is that of the first entry of this one.
        """
        published = float(run.data.tags.get(SYSTEM, start))
        return [
            {**entry, "step": int(entry["time"] - start)}
            for entry in system_journal(self._layout, name).entries()
            if entry["kind"] == "metrics" and entry["time"] > published
        ]

    def _log(self, run: "Run", metrics: Entries, entries: Entries, tags: dict[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        run_id = run.info.run_id
        flat = {metric_name(k): v for e in entries if e["kind"] == "params" for k, v in _flatten(e["values"])}
        # A parameter cannot be changed once it is there.
        params = [Param(key, str(value)) for key, value in flat.items() if key not in run.data.params]
        for start in range(0, len(params), PARAMS_PER_CALL):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
        points = [
            Metric(metric_name(key), float(value), int(entry["time"] * 1000), entry["step"])
            for entry in metrics
            for key, value in entry["values"].items()
        ]
        for start in range(0, len(points), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])
        # The step up to which metrics are published is among the tags: said only after they are.
        named = {metric_name(key): value for key, value in tags.items()}
        changed = [RunTag(key, value) for key, value in named.items() if run.data.tags.get(key) != value]
        for start in range(0, len(changed), PARAMS_PER_CALL):
            self.client.log_batch(run_id, tags=changed[start : start + PARAMS_PER_CALL])
        known = {(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs} if run.inputs else set()
        inputs = [
            DatasetInput(
                Dataset(e["name"], e["digest"][:DIGEST], "local", e["path"]),
                [
                    InputTag("mlflow.data.context", e["context"]),
                    *(
                        [InputTag("dvc", kept)]
                        if (kept := provenance.dvc_hash(self._layout.root, Path(e["path"])))
                        else []
                    ),
                ],
            )
            for e in entries
            if e["kind"] == "dataset" and (e["name"], e["digest"][:DIGEST]) not in known
        ]
        if inputs:
            self.client.log_inputs(run_id, inputs)

    def _artifacts(self, run: "Run", entries: Entries) -> None:
        """Each file once, and again only when its content has changed."""
        for entry in {(e["path"], e["folder"]): e for e in entries if e["kind"] == "artifact"}.values():
            path = Path(entry["path"])
            if not path.exists():
                continue
            digest, key = hash_file(path), metric_name((ARTIFACT / entry["folder"] / path.name).as_posix())
            if run.data.tags.get(key) != digest:
                self.client.log_artifact(run.info.run_id, str(path), entry["folder"] or None)
                self.client.set_tag(run.info.run_id, key, digest)
        tables = {(PurePosixPath(e["folder"]) / Path(e["path"]).name).as_posix() for e in entries if e.get("table")}
        shown = json.dumps([{"path": path, "type": "table"} for path in sorted(tables)])
        if tables and run.data.tags.get(TABLES) != shown:
            self.client.set_tag(run.info.run_id, TABLES, shown)

    def _set_status(self, run: "Run", entries: Entries, running: bool) -> None:
        said = [e["value"] for e in entries if e["kind"] == "status"]
        wanted = "RUNNING" if running else "FAILED" if said[-1:] == ["failed"] else "FINISHED"
        self._ended[run.data.tags[mlflow_store.NODE]] = wanted
        if run.info.status == wanted:
            return
        if wanted == "RUNNING":
            for each in (run.info.run_id, self.parent()):
                self.client.update_run(each, status=wanted)
        else:
            end = entries[-1]["time"] if entries else time.time()
            self.client.set_terminated(run.info.run_id, wanted, int(end * 1000))


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
