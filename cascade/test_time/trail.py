"""The trail of a search: every response and judgement is a row of trail.jsonl as soon as it exists.

A search that was killed and is run again takes from it what is there. Its manifest holds what results depend on; with
other inputs the trail is not continued.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError
from cascade.utils.files import read_json, room_for, write_json

STOP = "STOP"
"""A file of this name in the trail's directory ends the search at the next response."""


class Trail:
    def __init__(self, directory: Path, manifest: dict[str, Any]):
        """Open the trail in `directory`, or begin it. Raises CascadeError where another one lies there."""
        self.directory = directory
        self.path = directory / "trail.jsonl"
        self._clock = directory / "clock.json"
        directory.mkdir(parents=True, exist_ok=True)
        _check_manifest(directory / "manifest.json", manifest)
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        if self.path.exists():
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):  # a kill cut the last row
                os.truncate(self.path, content.rfind(b"\n") + 1)
            for line in content.split(b"\n")[:-1]:
                row = json.loads(line)
                self._rows[row["problem"], row["key"]] = row
        self.resumed = len(self._rows)
        self._earlier_seconds = read_json(self._clock)["seconds"] if self._clock.exists() else 0.0
        self._began = time.monotonic()

    def get(self, problem: str, key: str) -> dict[str, Any] | None:
        return self._rows.get((problem, key))

    def add(self, row: dict[str, Any]) -> None:
        """A row with its `problem` and `key`; one that is there already stays as it is."""
        identity = row["problem"], row["key"]
        if identity in self._rows:
            return
        with room_for(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._rows[identity] = row

    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows.values())

    def seconds(self) -> float:
        """Time spent on this trail, by this process and by those before."""
        return self._earlier_seconds + time.monotonic() - self._began

    def save_clock(self) -> None:
        write_json(self._clock, {"seconds": round(self.seconds(), 3)})

    def is_stopped(self) -> bool:
        return (self.directory / STOP).exists()


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, manifest)
        return
    earlier = read_json(path)
    now = json.loads(json.dumps(manifest))
    if changed := [key for key in sorted({*earlier, *now}) if earlier.get(key) != now.get(key)]:
        raise CascadeError(
            f"{path.parent}: a search with other inputs was interrupted there ({', '.join(changed)}); restore them to "
            "go on with it, or remove the directory"
        )
