"""Sources in shards: the same data/ whatever their size, the processes and the interruptions."""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascade.curation import build, jobs, output, pipeline, sources
from cascade.environments.synthetic.vocabulary import CATEGORIES
from cascade.errors import RowError
from cascade.launch.process_pool import ProcessPool
from cascade.launch.ray_jobs import in_cluster
from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe, Source
from cascade.tracking import Journal
from cascade.utils.files import hash_directory

from .conftest import chat_row, math_row, read_prompts, write_jsonl

WORDS = list(CATEGORIES["animal"])[:14]


def rows_with_copies(count: int, seed: int) -> list[dict]:
    """A third of them copies of an earlier row, exactly or but for a word."""
    rng = random.Random(seed)
    rows: list[dict] = []
    for _ in range(count):
        words = rng.choices(WORDS, k=30)
        if rows and rng.random() < 0.33:
            words = rng.choice(rows)["messages"][0]["content"].split(" ")
            words[0] = rng.choice([words[0], rng.choice(WORDS)])
        rows.append(chat_row(" ".join(words), f"It is the {words[1]}."))
    return rows


@pytest.fixture
def recipe(layout: Layout, make_recipe: Callable[..., Recipe]) -> Recipe:
    write_jsonl(layout.root / "a.jsonl", rows_with_copies(120, 1))
    write_jsonl(layout.root / "b.jsonl", rows_with_copies(90, 2) + rows_with_copies(60, 1))
    write_jsonl(layout.root / "prompts.jsonl", [math_row(f"{' '.join(WORDS[:n])} {n}?", str(n)) for n in range(1, 14)])
    return make_recipe(
        {
            "a": {"path": "a.jsonl", "domain": "chat", "sft": 40},
            "b": {"path": "b.jsonl", "domain": "chat", "sft": -1},
            "prompts": {"path": "prompts.jsonl", "domain": "math", "rl": 6, "benchmark": 3},
            "sums": {"generator": "math", "domain": "sums", "sft": 10, "rl": 10, "benchmark": 5},
        }
    )


def built(recipe: Recipe, layout: Layout, run: pipeline.Run | None = None) -> str:
    build(recipe, layout, Journal(layout.root / "journal.jsonl"), run)
    return hash_directory(layout.root / "data")


def split_small(monkeypatch: pytest.MonkeyPatch, shard_bytes: int) -> None:
    monkeypatch.setattr(sources, "SHARD_BYTES", shard_bytes)
    monkeypatch.setattr(pipeline, "KEYS_A_JOB", 64)
    for name in ("SMALL_BYTES", "SMALL_ROWS", "SMALL_JOBS"):
        monkeypatch.setattr(pipeline, name, 0)


def test_the_size_of_the_shards_changes_nothing(layout: Layout, recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    whole = built(recipe, layout)
    for size in (1500, 6000):
        split_small(monkeypatch, size)
        assert built(recipe, layout) == whole


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_change_nothing(
    layout: Layout, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, processes: int
):
    write_jsonl(layout.root / "a.jsonl", rows_with_copies(100, 1))
    recipe = make_recipe({"a": {"path": "a.jsonl", "domain": "chat", "sft": -1}})
    whole = built(recipe, layout)
    split_small(monkeypatch, 8000)
    begin = partial(jobs.work, recipe, layout.root, layout.work(CURATE), 1)
    with ProcessPool(processes, begin) as pool:  # One for the pieces, the duplicates and the packed files.
        assert built(recipe, layout, pool.run) == whole


def test_two_nodes_of_a_ray_cluster_change_nothing(
    layout: Layout, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    write_jsonl(layout.root / "a.jsonl", rows_with_copies(100, 1))
    recipe = make_recipe({"a": {"path": "a.jsonl", "domain": "chat", "sft": -1}})
    whole = built(recipe, layout)
    monkeypatch.setattr(sources, "SHARD_BYTES", 8000)
    monkeypatch.setattr(pipeline, "SMALL_BYTES", 0)
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        begin = partial(jobs.work, recipe, layout.root, layout.work(CURATE), 1)
        assert built(recipe, layout, partial(in_cluster, cluster.address, 2, begin)) == whole
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_an_interrupted_run_goes_on_and_does_no_piece_twice(
    layout: Layout, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    whole = built(recipe, layout)
    split_small(monkeypatch, 3000)
    done: list[str] = []
    left = 3

    def run(some: Sequence[str]) -> Iterator[tuple[str, str]]:
        nonlocal left
        worker = jobs.Worker(recipe, layout.root, layout.work(CURATE), 1)
        make = jobs.make_piece

        def counted(piece, *arguments):
            done.append(piece.folder)
            make(piece, *arguments)

        for job in some:
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(jobs, "make_piece", counted)
                yield job, worker(job)

    for _ in range(10):
        left = 4 + len(done)
        with pytest.raises(KeyboardInterrupt):
            built(recipe, layout, run)
    left = 1 << 30
    assert built(recipe, layout, run) == whole
    assert len(done) == len(set(done)) > 12


def test_other_inputs_begin_anew(layout: Layout, recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    def run(some: Sequence[str]) -> Iterator[tuple[str, str]]:
        worker = jobs.Worker(recipe, layout.root, layout.work(CURATE), 1)
        yield some[0], worker(some[0])
        raise KeyboardInterrupt

    split_small(monkeypatch, 3000)
    with pytest.raises(KeyboardInterrupt):
        built(recipe, layout, run)
    write_jsonl(
        layout.root / "prompts.jsonl", [math_row(f"{' '.join(WORDS[n : n + 4])} {n}?", str(n)) for n in range(9)]
    )
    write_jsonl(layout.root / "a.jsonl", rows_with_copies(50, 9))
    changed = built(recipe, layout)
    assert built(recipe, layout) == changed


def test_as_many_rows_are_kept_as_reading_one_by_one_would_keep(
    layout: Layout, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    """Copies only: their text decides. The second source has copies of rows that the first did not come to draw."""
    rng = random.Random(3)
    numbers = {name: [rng.randrange(60) for _ in range(80)] for name in ("one", "two", "three")}
    for name, drawn in numbers.items():
        write_jsonl(layout.root / f"{name}.jsonl", [math_row(f"How much is {n} and {n}?", str(2 * n)) for n in drawn])
    quotas = {"one": 20, "two": 15, "three": -1}
    made = {name: {"path": f"{name}.jsonl", "domain": name, "rl": quota} for name, quota in quotas.items()}
    expected, met = {}, set()
    for name, quota in quotas.items():
        expected[name] = []
        for number in numbers[name]:
            if len(expected[name]) == quota:
                break
            if number not in met:
                expected[name].append(number)
            met.add(number)
    for size in (1 << 20, 900):
        split_small(monkeypatch, size)
        build(make_recipe(made), layout, Journal(layout.root / "journal.jsonl"))
        for name, kept in expected.items():
            rows = read_prompts(layout.prompts(name))
            assert [int(row["row"]["expected_answer"]) // 2 for row in rows] == kept


def read_all(root: Path, **fields: object) -> list:
    source = Source.model_validate({"domain": "d", **fields})
    return list(sources.stored(source, "name", root))


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_every_line_is_read_once_and_errors_name_the_line_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
):
    lines = [json.dumps({"n": n}) if n % 5 else "{broken" for n in range(20)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sources, "SHARD_BYTES", size)
    found = read_all(tmp_path, path="x.jsonl")
    assert [row["n"] for row in found if isinstance(row, dict)] == [n for n in range(20) if n % 5]
    errors = [str(row) for row in found if isinstance(row, RowError)]
    assert [error.split(": ")[0] for error in errors] == [f"x.jsonl:{n + 1}" for n in range(0, 20, 5)]


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz"])
def test_compressed_files_are_read(tmp_path: Path, suffix: str):
    import bz2
    import lzma

    text = "".join(json.dumps({"n": n, "text": "ä" * n}) + "\n" for n in range(300)).encode()
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": pa.Codec("zstd").compress}
    content = compress[suffix](text)
    (tmp_path / f"x.jsonl.{suffix}").write_bytes(content.to_pybytes() if suffix == "zst" else content)
    assert [row["n"] for row in read_all(tmp_path, path=f"x.jsonl.{suffix}")] == list(range(300))


def test_two_zstd_frames_in_one_file(tmp_path: Path):
    frames = [pa.Codec("zstd").compress(json.dumps({"n": n}).encode() + b"\n").to_pybytes() for n in range(2)]
    (tmp_path / "x.jsonl.zst").write_bytes(b"".join(frames))
    assert read_all(tmp_path, path="x.jsonl.zst") == [{"n": 0}, {"n": 1}]


def test_of_a_file_that_ends_too_early_the_rows_before_are_read(tmp_path: Path):
    rng = random.Random(0)
    lines = [json.dumps({"n": n, "noise": rng.random()}) for n in range(5000)]
    content = gzip.compress("\n".join(lines).encode())
    (tmp_path / "x.jsonl.gz").write_bytes(content[: len(content) // 2])
    found = read_all(tmp_path, path="x.jsonl.gz")
    rows = [row["n"] for row in found if isinstance(row, dict)]
    assert rows == list(range(len(rows)))
    assert 1000 < len(rows) < 4000
    [error] = [row for row in found if isinstance(row, RowError)]
    assert str(error).startswith(f"x.jsonl.gz:{len(rows) + 1}: ")


def test_parquet_is_split_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"n": n, "nested": [{"a": {"b": [n]}}]} for n in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=10)
    monkeypatch.setattr(sources, "SHARD_BYTES", 1)
    source = Source.model_validate({"domain": "d", "path": "x.parquet"})
    assert len(sources.shards(source, "name", tmp_path)) == 10
    assert read_all(tmp_path, path="x.parquet") == rows


def test_rejected_rows_are_all_counted_and_the_first_of_each_reason_kept(
    layout: Layout, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(output, "REJECTS", 3)
    rows = [chat_row(f"Word {WORDS[n % 14]} and {n}?", "" if n % 2 else f"{n} it is.") for n in range(20)]
    write_jsonl(layout.root / "rows.jsonl", rows)
    recipe = make_recipe({"rows": {"path": "rows.jsonl", "domain": "chat", "sft": -1}})
    report = build(recipe, layout, Journal(layout.root / "journal.jsonl"))
    kept = pq.read_table(layout.root / "data" / "rejects").to_pylist()
    assert report["sft"]["domains"]["chat"]["rejected"] == {"empty": 10}
    assert [json.loads(row["row"])["messages"][0]["content"] for row in kept] == [
        rows[n]["messages"][0]["content"] for n in (1, 3, 5)
    ]
    assert "| empty | 10 | rows: an empty assistant message |" in (layout.root / "data" / "report.md").read_text()
