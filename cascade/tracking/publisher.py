"""Idempotent replay of journals into MLflow: existing entries stay, missing ones are added."""

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
"""Characters of a dataset's hash that MLflow allows."""
SYSTEM = "cascade.published_system"
TABLES = "mlflow.loggedArtifacts"
"""The tag in which MLflow lists the files that are tables."""
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

        `running`: the node's process is still running, and so is the run.
        """
        training, other_entries = self._entries(name)
        entries = sorted([*training, *other_entries], key=lambda entry: entry["time"])
        tags = tags_of(entries)
        identity = {**self._identity(name), mlflow_store.INPUTS: tags.get("inputs_hash", "")}
        start = entries[0]["time"] if entries else time.time()
        run = mlflow_store.find_or_create_run(
            self.client, self._layout, self._experiment, name, identity, self.parent(), start
        )
        run_id: str = run.info.run_id
        # A resumed node logs equal values for repeated steps, so only new steps are sent. This is not known without a
        # hash of its inputs; then MLflow drops duplicates.
        published = int(run.data.tags.get(PUBLISHED, -1)) if "inputs_hash" in tags else -1
        new = [e for e in training if e["kind"] == "metrics" and e["step"] > published]
        steps = [e["step"] for e in new]
        if steps:
            tags[PUBLISHED] = str(max(steps))
        tags |= {f"dvc/{path}": digest for path, digest in provenance.dvc_hashes(self._layout.root, name).items()}
        system = self._system(name, run, start)
        if system:
            tags[SYSTEM] = repr(system[-1]["time"])
        if NOTE not in run.data.tags:  # A note that a user edited stays.
            tags[NOTE] = node_note(self._recipe, name)
        try:
            self._log(run, [*new, *(e for e in other_entries if e["kind"] == "metrics"), *system], entries, tags)
            self._artifacts(run, entries)
            for entry in [e for e in entries if e["kind"] == "model"][-1:]:
                register(self.client, run, entry["name"], entry["alias"], entry["tags"])
        except Exception as error:
            if mlflow_store.is_refusal(error):  # Otherwise the run would stay in status RUNNING.
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
        """End the pipeline run: as failed where a node that was published here failed."""
        self.client.set_terminated(self.parent(), "FAILED" if "FAILED" in self._ended.values() else "FINISHED")

    def has_journal(self, node: str, since: float = 0.0) -> bool:
        """Whether the journals of the node, its decision or its evaluation have an entry since then, in Unix
        seconds."""
        return any(entry["time"] >= since for entries in self._entries(node) for entry in entries)

    def has_ended(self, node: str, since: float) -> bool:
        """Whether the node has a status since then; a killed process has none."""
        statuses = (e for entries in self._entries(node) for e in entries if e["kind"] == "status")
        return any(entry["time"] >= since for entry in statuses)

    def find(self, node: str) -> "Run | None":
        """The node's current run, with its metrics and tags."""
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
            facts = {
                "recipe": self._recipe.name,
                "recipe_hash": recipe_hash(self._layout.params) if self._layout.params.exists() else None,
                "git_revision": provenance.git_revision(self._layout.root),
                "seed": str(self._recipe.seed),
            }
            tags = {key: value for key, value in facts.items() if value is not None}
            if NOTE not in run.data.tags:
                tags[NOTE] = pipeline_note(self._recipe)
            # Nodes that start in parallel, and a decision while its node is published, may come here at the same time.
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
        """The node's own entries; and those of its decision, and of its evaluation where it is of the node's current
        checkpoint."""
        training = Journal(self._layout.journal(node)).entries()
        evaluation = evaluation_journal(self._layout, node).entries()
        checkpoint = tags_of(training).get("checkpoint_hash")
        if training and tags_of(evaluation).get(EVALUATED) != checkpoint:
            evaluation = []
        return training, [*decision_journal(self._layout, node).entries(), *evaluation]

    def _system(self, name: str, run: "Run", start: float) -> Entries:
        """The system metrics since `start` that are not published yet; the step is in seconds since then.

        `start` is the time of the run's first entry, so that entries of an earlier run are skipped.
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
        # Tags come after the metrics, because one of them is the step up to which metrics are published.
        by_name = {metric_name(key): value for key, value in tags.items()}
        new_tags = [RunTag(key, value) for key, value in by_name.items() if run.data.tags.get(key) != value]
        for start in range(0, len(new_tags), PARAMS_PER_CALL):
            self.client.log_batch(run_id, tags=new_tags[start : start + PARAMS_PER_CALL])
        logged = {(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs} if run.inputs else set()
        inputs = [
            DatasetInput(
                Dataset(e["name"], e["digest"][:DIGEST], "local", e["path"]),
                [
                    InputTag("mlflow.data.context", e["context"]),
                    *(
                        [InputTag("dvc", dvc_hash)]
                        if (dvc_hash := provenance.dvc_hash(self._layout.root, Path(e["path"])))
                        else []
                    ),
                ],
            )
            for e in entries
            if e["kind"] == "dataset" and (e["name"], e["digest"][:DIGEST]) not in logged
        ]
        if inputs:
            self.client.log_inputs(run_id, inputs)

    def _artifacts(self, run: "Run", entries: Entries) -> None:
        """Upload each file once, and again only when its content has changed."""
        for entry in {(e["path"], e["folder"]): e for e in entries if e["kind"] == "artifact"}.values():
            path = Path(entry["path"])
            if not path.exists():
                continue
            digest, key = hash_file(path), metric_name((ARTIFACT / entry["folder"] / path.name).as_posix())
            if run.data.tags.get(key) != digest:
                self.client.log_artifact(run.info.run_id, str(path), entry["folder"] or None)
                self.client.set_tag(run.info.run_id, key, digest)
        tables = {(PurePosixPath(e["folder"]) / Path(e["path"]).name).as_posix() for e in entries if e.get("table")}
        listing = json.dumps([{"path": path, "type": "table"} for path in sorted(tables)])
        if tables and run.data.tags.get(TABLES) != listing:
            self.client.set_tag(run.info.run_id, TABLES, listing)

    def _set_status(self, run: "Run", entries: Entries, running: bool) -> None:
        statuses = [e["value"] for e in entries if e["kind"] == "status"]
        status = "RUNNING" if running else "FAILED" if statuses[-1:] == ["failed"] else "FINISHED"
        self._ended[run.data.tags[mlflow_store.NODE]] = status
        if run.info.status == status:
            return
        if status == "RUNNING":
            for each in (run.info.run_id, self.parent()):
                self.client.update_run(each, status=status)
        else:
            end = entries[-1]["time"] if entries else time.time()
            self.client.set_terminated(run.info.run_id, status, int(end * 1000))


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
