import json
from pathlib import Path

import pyarrow.parquet as pq

from cascade.curation import store
from cascade.curation.store import RowWriter
from cascade.policy.base import Sequence

from .conftest import read_prompts, read_sequences


def prompt(number: int) -> dict:
    values = {"domain": "math", "environment": "math", "source": "made", "level": 1, "pass_rate": None}
    return {"id": str(number), **values, "row": json.dumps({"n": number})}


def write(path: Path, rows: list[dict], schema=store.PROMPTS) -> Path:
    writer = RowWriter(path, schema)
    for row in rows:
        writer.write(row)
    writer.close()
    return path


def test_prompts_come_back(tmp_path: Path):
    path = write(tmp_path / "math.parquet", [prompt(i) for i in range(3000)])
    rows = read_prompts(path)
    assert [row["row"]["n"] for row in rows] == list(range(3000))
    assert pq.ParquetFile(path).num_row_groups == 3
    assert pq.read_schema(path).names == ["id", "domain", "environment", "source", "level", "row", "pass_rate"]


def test_large_rows_make_small_groups(tmp_path: Path):
    rows = [{**prompt(i), "row": "x" * 1_000_000} for i in range(5)]
    assert pq.ParquetFile(write(tmp_path / "x.parquet", rows)).num_row_groups >= 2


def test_no_rows_make_a_readable_file(tmp_path: Path):
    assert read_prompts(write(tmp_path / "x.parquet", [])) == []


def test_sequences_come_back_in_the_order_of_the_parts(tmp_path: Path):
    for part in (1, 0):
        row = {"input_ids": [part, 5], "trained": [False, True], "documents": [1, 1]}
        write(tmp_path / f"part-{part:05d}.parquet", [row], store.SEQUENCES)
    assert read_sequences(tmp_path) == [Sequence([p, 5], [False, True], (1, 1)) for p in (0, 1)]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path):
    rows = [prompt(i) for i in range(100)]
    assert write(tmp_path / "a.parquet", rows).read_bytes() == write(tmp_path / "b.parquet", rows).read_bytes()
