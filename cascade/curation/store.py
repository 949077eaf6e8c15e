"""Curated data on disk: Parquet with explicit schemas, written in batches."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PROMPTS = pa.schema(
    [
        ("id", pa.string()),
        ("domain", pa.string()),
        ("environment", pa.string()),
        ("source", pa.string()),
        ("level", pa.int32()),
        ("row", pa.string()),
        ("pass_rate", pa.float32()),
    ]
)
"""`row` is the Gym row as JSON; `pass_rate` that of the recipe's reference checkpoint, null where there is none."""

SEQUENCES = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("trained", pa.list_(pa.bool_())), ("documents", pa.list_(pa.int32()))]
)

REJECTS = pa.schema([(name, pa.string()) for name in ("use", "step", "reason", "message", "source", "domain", "row")])

GROUP_ROWS = 1024
GROUP_SIZE = 1 << 21
"""Characters or tokens of a row group, whichever limit comes first."""


class RowWriter:
    """Writes rows in row groups of bounded size. The same rows give the same bytes."""

    def __init__(self, path: Path, schema: pa.Schema):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._size += sum(len(value) for value in row.values() if hasattr(value, "__len__"))
        if len(self._rows) >= GROUP_ROWS or self._size >= GROUP_SIZE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._size = [], 0


def writable(text: str) -> str:
    """Text with lone surrogates escaped, so that Parquet can store it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
