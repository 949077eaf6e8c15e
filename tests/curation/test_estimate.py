"""The dry run: estimates against what curation then does."""

import gzip
import random
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascade.curation import build
from cascade.curation.estimate import as_lines, estimate
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal

from .conftest import chat_row, write_jsonl

ROWS = [chat_row(f"What is {n} and {n * n} in words?", f"It is number {n % 97}." if n % 4 else "") for n in range(2000)]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_a_sample_tells_what_the_whole_gives(layout: Layout, make_recipe: Callable[..., Recipe], kind: str):
    path = layout.root / f"rows.{kind}"
    write_jsonl(layout.root / "plain", ROWS)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress((layout.root / "plain").read_bytes()))
    else:
        (layout.root / "plain").rename(path)
    recipe = make_recipe({"rows": {"path": path.name, "domain": "chat", "sft": -1}})
    [found] = estimate(recipe, layout, 200)
    assert not (layout.root / "data").exists()
    report = build(recipe, layout, Journal(layout.root / "journal.jsonl"))
    assert found.rows == pytest.approx(2000, rel=0.1)
    assert found.rows_kept == pytest.approx(report["sft"]["kept"], rel=0.1)
    assert found.tokens_kept == pytest.approx(report["packing"]["tokens"], rel=0.1)
    assert found.reasons["empty"] == found.sampled / 4
    lines = as_lines(recipe, [found], 2)
    assert "empty 25.0%" in lines[1]
    assert lines[2].startswith("time: about")


WORDS = [
    a + b for a in ("ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu") for b in ("rn", "st", "lk", "mp", "t")
]


def math_row_of(n: int) -> dict:
    """Every other row differs from its kind by a number alone, the rest have words of their own."""
    words = " ".join(random.Random(n).choices(WORDS, k=25)) if n % 2 else "of sheep in the field behind the old mill"
    return {"question": f"What is the number {n} {words}?", "answer": f"It is {n}.\n#### {n}"}


@pytest.mark.parametrize(("sample", "tolerance"), [(400, 0.0), (200, 0.1)])
def test_what_the_benchmark_takes_and_what_is_like_it_is_not_kept(
    layout: Layout, make_recipe: Callable[..., Recipe], sample: int, tolerance: float
):
    write_jsonl(layout.root / "rows.jsonl", [math_row_of(n) for n in range(400)])
    source = {"path": "rows.jsonl", "domain": "math", "environment": "math", "sft": -1, "rl": -1, "benchmark": 40}
    recipe = make_recipe({"rows": source})
    found = {e.use: e for e in estimate(recipe, layout, sample)}
    report = build(recipe, layout, Journal(layout.root / "journal.jsonl"))
    for use in ("benchmark", "rl", "sft"):
        assert found[use].rows_kept == pytest.approx(report[use]["kept"], rel=tolerance)
    # Of 200 rows with words of their own, all but those that are drawn.
    assert 150 < report["rl"]["kept"] < 200
    assert "held_out" not in found["rl"].reasons


def test_of_a_number_of_rows_no_more_are_read_than_are_needed(layout: Layout, make_recipe: Callable[..., Recipe]):
    write_jsonl(layout.root / "rows.jsonl", ROWS)
    source = {"path": "rows.jsonl", "domain": "chat", "sft": 300}
    [found] = estimate(make_recipe({"rows": source}), layout, 400)
    assert (found.rows_kept, found.rows_read) == (300, 400)


def test_generated_rows_are_estimated_too(layout: Layout, make_recipe: Callable[..., Recipe]):
    recipe = make_recipe({"sums": {"generator": "math", "domain": "math", "sft": 20, "rl": 30, "benchmark": 10}})
    found = estimate(recipe, layout, 50)
    assert [(e.use, e.rows_kept) for e in found] == [("benchmark", 10), ("rl", 30), ("sft", 20)]


def test_an_empty_source_is_named(layout: Layout, make_recipe: Callable[..., Recipe]):
    (layout.root / "rows.jsonl").write_text("\n")
    with pytest.raises(CascadeError, match=r"curation.sources.rows: no row in it"):
        estimate(make_recipe({"rows": {"path": "rows.jsonl", "domain": "chat", "sft": -1}}), layout, 10)
