"""The journal: the interface by which nodes log metrics, parameters, tags and artifacts.

Everything is written first to a local journal (JSON Lines, one file for each node), so that nothing is lost when a
process is killed or a server is down. Publishers read the journal.
"""

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.utils.files import room_for, write_atomic

EVALUATED = "evaluated_checkpoint"
"""Tag of an evaluation: the hash of the evaluated checkpoint."""


COMPARABLE = "evaluation_hash"
"""Tag of an evaluation: the hash of its inputs except the checkpoint. Scores compare where it is equal."""


class Journal:
    """Append-only record of one node's run, with one writer and any number of readers.

    Entries: {"kind": "metrics", "step": 3, "values": {...}}, {"kind": "params", ...}, {"kind": "tags", ...},
    {"kind": "artifact", "path": ..., "folder": ..., "table": ...}, {"kind": "dataset", ...}, {"kind": "model", ...},
    {"kind": "status", ...}, {"kind": "process", ...}. Each carries `time` (Unix seconds).
    """

    def __init__(self, path: Path, writes: bool = True):
        self.path = path
        self._appended = False
        self._writes = writes
        """False in all processes of a node but the main one: they write nothing."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Names are grouped by prefix: train/, rollout/, eval/<domain>/, curate/."""
        self._append("metrics", step=step, values=values)

    def params(self, values: dict[str, Any]) -> None:
        self._append("params", values=values)

    def tags(self, values: dict[str, str]) -> None:
        self._append("tags", values=values)

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file that the tracker shows with the metrics."""
        self._append("artifact", path=os.path.abspath(path), folder=folder)

    def table(self, path: Path, folder: str = "") -> None:
        """A file as `write_table` writes it, which a tracker shows as a table."""
        self._append("artifact", path=os.path.abspath(path), folder=folder, table=True)

    def dataset(self, name: str, path: Path, digest: str, context: str) -> None:
        """Data that the node read: `digest` is the hash of its content, `context` its purpose."""
        self._append("dataset", name=name, path=os.path.abspath(path), digest=digest, context=context)

    def model(self, name: str, alias: str, tags: dict[str, str]) -> None:
        """A checkpoint to be registered; `tags` are its lineage and hold its `checkpoint_hash`."""
        self._append("model", name=name, alias=alias, tags=tags)

    def status(self, value: Literal["finished", "failed"]) -> None:
        """How the node's process ended. A killed process writes none."""
        self._append("status", value=value)

    def process(self, what: str, pipeline: str, began: float) -> None:
        """A process that worked from `began`, in Unix seconds, until now, in the pipeline run of that id. Where the
        disk is full the entry is left out, so that a finished process does not fail."""
        with suppress(CascadeError):
            self._append("process", what=what, pipeline=pipeline, began=began)

    def entries(self) -> list[dict[str, Any]]:
        """Every complete entry; a last line that a kill truncated is ignored."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def rewind(self, step: int) -> None:
        """Remove the metrics of steps ≥ `step`, which a node that resumes there will log again.

        At step 0 every entry is removed.
        """
        if not self._writes:
            return
        remaining = [e for e in self.entries() if step > 0 and (e["kind"] != "metrics" or e["step"] < step)]
        write_atomic(self.path, "".join(_line(entry) for entry in remaining))

    def _append(self, kind: str, **fields: Any) -> None:
        if not self._writes:
            return
        with room_for(self.path):
            if not self._appended:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._drop_torn_line()
                self._appended = True
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line({"kind": kind, "time": time.time(), **fields}))

    def _drop_torn_line(self) -> None:
        """Remove an incomplete last line, so that the next entry starts on a new line."""
        if self.path.exists() and not (content := self.path.read_bytes()).endswith(b"\n"):
            os.truncate(self.path, content.rfind(b"\n") + 1)


def evaluation_journal(layout: Layout, node: str) -> Journal:
    """The journal of a node's evaluation, which is another process that is rerun at other times."""
    return Journal(layout.journal(f"{node}.evaluation"))


def decision_journal(layout: Layout, node: str) -> Journal:
    """The journal of a training node's decision, because the node's own journal is rewound when it resumes."""
    return Journal(layout.journal(f"{node}.decision"))


def system_journal(layout: Layout, node: str) -> Journal:
    """The journal of system metrics and running times of the node's processes. Never rewound."""
    return Journal(layout.journal(f"{node}.system"))


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of equal keys as JSON, column names once: pandas' orientation `split`, which MLflow shows as a table."""
    columns = list(rows[0]) if rows else []
    content = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
    write_atomic(path, json.dumps(content, ensure_ascii=False) + "\n")


def tags_of(entries: list[dict[str, Any]]) -> dict[str, str]:
    """All tags of a journal; a later value replaces an earlier one."""
    return {k: str(v) for entry in entries if entry["kind"] == "tags" for k, v in entry["values"].items()}


def metric_name(key: str) -> str:
    """The name of a metric, parameter or tag in MLflow, which refuses some characters, and paths that are absolute or
    lead upward: pass@1 becomes pass_at_1, dvc//disk/base and dvc/../base become dvc/disk/base and dvc/_/base."""
    parts = re.sub(r"[^\w./ :-]", "_", key.replace("@", "_at_")).split("/")
    return "/".join("_" if part == ".." else part for part in parts if part not in ("", "."))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, default=str) + "\n"
