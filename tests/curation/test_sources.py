import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cascade import environments
from cascade.chat import Response, ToolCall
from cascade.curation import sources
from cascade.curation.rows import parse
from cascade.errors import CascadeError, RowError
from cascade.recipe import Source
from tests import hub

from .conftest import chat_row, math_row, write_jsonl

CHAT = [chat_row(f"Question {i}?", f"<think>\nt\n</think>\n{i}") for i in range(9)]


def stored(root: Path, **fields: object) -> list:
    return list(sources.stored(Source.model_validate({"domain": "d", **fields}), "name", root))


def test_jsonl_of_several_files_in_order(tmp_path: Path):
    write_jsonl(tmp_path / "b.jsonl", [{"n": 2}])
    write_jsonl(tmp_path / "a.jsonl", [{"n": 0}, {"n": 1}])
    assert stored(tmp_path, path="*.jsonl") == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert stored(tmp_path, path=str(tmp_path / "b.jsonl")) == [{"n": 2}]


def test_lines_that_are_not_json_objects_are_rejected_one_by_one(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(b'{"n": 1}\n{broken\n\n[1]\n{"s": "\xff"}\n{"n": 2}\n')
    rows = stored(tmp_path, path="x.jsonl")
    assert [row.code if isinstance(row, RowError) else "row" for row in rows] == [
        "row",
        "not_json",
        "not_json",
        "row",
        "row",
    ]
    assert "x.jsonl:2" in str(rows[1])


def test_parquet_drops_the_nulls_that_columns_fill_in(tmp_path: Path):
    rows = [{"options": [{"A": "x"}, {"B": "y"}], "answer": "A"}, {"options": [{"A": "z"}], "mode": "strict"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert stored(tmp_path, path="*.parquet") == [rows[0], {"options": [{"A": "z"}]}]


def test_missing_and_wrong_files_name_the_key(tmp_path: Path):
    (tmp_path / "x.csv").write_text("a,b")
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(CascadeError, match=r"curation.sources.name.path: no file matches y"):
        stored(tmp_path, path="y/*.jsonl")
    with pytest.raises(CascadeError, match=r"neither .jsonl nor .parquet"):
        stored(tmp_path, path="x.csv")
    with pytest.raises(CascadeError, match="not a Parquet file"):
        stored(tmp_path, path="x.parquet")


def test_generators_draw_otherwise_for_every_use():
    source = Source(generator="mcqa", domain="mcqa")
    drawn = {use: list(sources.generated(source, "mcqa", use, 1, 5, 0)) for use in ("benchmark", "rl", "sft")}
    prompts = [json.dumps(row["responses_create_params"]) for rows in drawn.values() for row in rows]
    assert len(set(prompts)) == 15
    again = list(sources.generated(source, "mcqa", "rl", 1, 5, 0))
    assert again == drawn["rl"]


BRIEF = ["math", "mcqa", "tool_calling", "structured_output", "instruction_following", "reasoning_gym"]


def generated(generator: str, use: str, brief: float, count: int = 60) -> list:
    source = Source(generator=generator, domain="d", brief=brief)
    return list(sources.generated(source, "name", use, 2, count, 0))


@pytest.mark.parametrize("generator", BRIEF)
def test_brief_demonstrations_think_less_and_answer_the_same(generator: str):
    environment = environments.get(generator)
    full, brief = generated(generator, "sft", 0), generated(generator, "sft", 1)
    shown = [(row.pop("demonstration"), other.pop("demonstration")) for row, other in zip(full, brief, strict=True)]
    assert full == brief
    for row, (careful, hurried) in zip(full, shown, strict=True):
        assert {**careful, "reasoning": ""} == {**hurried, "reasoning": ""}
        assert 0 < len(hurried["reasoning"]) <= len(careful["reasoning"])
        calls = [call["function"] for call in hurried.get("tool_calls", [])]
        answer = Response(hurried["content"], None, tuple(ToolCall(c["name"], c["arguments"]) for c in calls))
        assert environment.verify(row, answer).reward == 1
    words = [sum(len(pair[side]["reasoning"].split()) for pair in shown) for side in (0, 1)]
    assert words[1] < 0.6 * words[0]


def test_the_share_of_brief_demonstrations_is_as_asked():
    full, some = generated("mcqa", "sft", 0, 600), generated("mcqa", "sft", 0.3, 600)
    changed = sum(row != other for row, other in zip(full, some, strict=True))
    assert 0.24 < changed / 600 < 0.36
    assert generated("mcqa", "sft", 0.3, 600) == some
    assert generated("mcqa", "sft", 0.3, 900)[:600] == some


@pytest.mark.parametrize("use", ["rl", "benchmark"])
def test_only_sft_gets_brief_demonstrations(use: str):
    assert generated("mcqa", use, 1) == generated("mcqa", use, 0)


@pytest.mark.parametrize("fields", [{"generator": "mcqa", "brief": 1.5}, {"path": "rows.jsonl", "brief": 0.5}])
def test_brief_is_a_share_of_what_a_generator_makes(fields: dict):
    with pytest.raises(ValidationError, match="brief"):
        Source(domain="d", **fields)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A local dataset directory with the subsets and columns of the released data."""
    root = tmp_path / "dataset"
    write_jsonl(root / "math" / "train.jsonl", CHAT)
    mcqa = {"options": [{"A": "x"}, {"B": "y"}], "expected_answer": "A", "grading_mode": "strict_single_letter_boxed"}
    rows = [{**math_row("Which?", "A"), **mcqa}, {**math_row("Two?", "2"), "kwargs": [None, {"n": 1}, {"w": "s"}]}]
    write_jsonl(root / "multi-domain-RL" / "train.jsonl", rows)
    subsets = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in ("math", "multi-domain-RL"))
    (root / "README.md").write_text(f"---\nconfigs:\n{subsets}---\n")
    return root


def test_datasets_are_streamed_by_subset(dataset: Path):
    rows = stored(dataset.parent, dataset="dataset", subset="math")
    assert rows == CHAT
    source = Source(dataset="dataset", subset="math", domain="d")
    assert len(list(islice(sources.stored(source, "name", dataset.parent), 2))) == 2


def test_datasets_of_prompt_rows_come_back_as_they_were(dataset: Path):
    first, second = stored(dataset.parent, dataset="dataset", subset="multi-domain-RL")
    assert first["options"] == [{"A": "x"}, {"B": "y"}]
    assert first["responses_create_params"] == math_row("Which?", "A")["responses_create_params"]
    assert "kwargs" not in first
    assert second["kwargs"] == [None, {"n": 1}, {"w": "s"}]
    assert "options" not in second


def test_unknown_subset_or_split_names_the_key(dataset: Path):
    with pytest.raises(CascadeError, match=r"curation.sources.name.dataset: cannot open dataset \(subset nothing"):
        stored(dataset.parent, dataset="dataset", subset="nothing")
    with pytest.raises(CascadeError, match="split nowhere"):
        stored(dataset.parent, dataset="dataset", subset="math", split="nowhere")


def test_an_agent_picks_its_rows_from_a_mixed_file(tmp_path: Path):
    rows = [
        {"environment": "mcqa"},
        {"agent_ref": {"name": "mcqa_simple_agent"}},
        {"environment_name": "workplace_assistant"},
        {"agent_ref": "not an object"},
        {},
    ]
    write_jsonl(tmp_path / "mixed.jsonl", rows)
    assert stored(tmp_path, path="mixed.jsonl", agent="mcqa") == rows[:2]
    assert stored(tmp_path, path="mixed.jsonl", agent="workplace") == [rows[2]]


STRANGE = [
    {
        "date": "2024-01-02",
        "time": "2024-01-02T03:04:05Z",
        "number": 1,
        "mixed": 1,
        "empty": {},
        "list": [],
        "none": None,
    },
    {
        "date": "2025-12-31",
        "time": "not a time",
        "number": 2.5,
        "mixed": "x",
        "empty": {"k": None},
        "list": [1, "a", None],
    },
    {"large": 2**70, "float": 1.0, "nested": [{"x": 1}, {"y": [1.0]}], "none": 3, "true": True, "text": "007"},
    {"text": "line \u2028 and\u0085 no more", "float": 2, "mixed": {"a": 1}, "list": {"a": [[]]}, "late": "2024-01-02"},
]


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "strange" / "rows.jsonl", STRANGE)
    return tmp_path


def _typed(rows: list) -> str:
    return json.dumps(rows)  # 1 and 1.0 and true are equal in Python.


def test_a_dataset_gives_the_rows_of_its_files(strange: Path):
    by_path = stored(strange, path="strange/rows.jsonl")
    assert _typed(by_path) == _typed(STRANGE)
    assert _typed(stored(strange, dataset="strange")) == _typed(STRANGE)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.bz2", "rows.json", "array.json", "pretty.json"])
def test_json_of_every_kind_that_a_dataset_may_have(tmp_path: Path, name: str):
    if name == "array.json":
        text, rows = json.dumps(STRANGE, indent=1), STRANGE
    elif name == "pretty.json":
        text, rows = json.dumps(STRANGE[0], indent=1), STRANGE[:1]
    else:
        text, rows = "\ufeff" + "".join(json.dumps(row) + "\n" for row in STRANGE), STRANGE
    (tmp_path / "dataset").mkdir()
    with fsspec.open(str(tmp_path / "dataset" / name), "wb", compression="infer") as file:
        file.write(text.encode())
    assert _typed(stored(tmp_path, dataset="dataset")) == _typed(rows)


def test_bad_lines_of_a_dataset_are_rejected_one_by_one(tmp_path: Path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "x.jsonl").write_bytes(b'{"n": 1}\n{broken\n[1]\n{"n": "two"}\n')
    by_dataset, by_path = stored(tmp_path, dataset="dataset"), stored(tmp_path, path="dataset/x.jsonl")
    assert [str(row) for row in by_dataset] == [str(row) for row in by_path]
    assert [row.code if isinstance(row, RowError) else "row" for row in by_dataset] == ["row", "not_json"] * 1 + [
        "not_json",
        "row",
    ]


def test_columns_of_every_type_are_json(tmp_path: Path):
    table = pa.table(
        {
            "at": [datetime(2024, 1, 2, 3, 4, 5), None],
            "day": [date(2024, 1, 2), date(2025, 1, 1)],
            "clock": [time(1, 2), None],
            "long": [timedelta(seconds=1.5), None],
            "price": [Decimal("1.50"), None],
            "bytes": [b"\x00\xff", None],
            "map": pa.array([[("k", date(2024, 1, 2))], None], pa.map_(pa.string(), pa.date32())),
            "json": pa.array(['{"a": null}', "[1]"], pa.json_()),
        }
    )
    (tmp_path / "dataset").mkdir()
    pq.write_table(table, tmp_path / "dataset" / "rows.parquet")
    expected = [
        {
            "at": "2024-01-02T03:04:05",
            "day": "2024-01-02",
            "clock": "01:02:00",
            "long": 1.5,
            "price": "1.50",
            "bytes": "AP8=",
            "map": {"k": "2024-01-02"},
            "json": {"a": None},
        },
        {"day": "2025-01-01", "json": [1]},
    ]
    assert _typed(stored(tmp_path, path="dataset/rows.parquet")) == _typed(expected)
    assert _typed(stored(tmp_path, dataset="dataset")) == _typed(expected)


def test_columns_of_json_that_datasets_writes_are_what_their_text_says(tmp_path: Path):
    import datasets

    rows = [{"mixed": [1, "a", {"b": None}], "tree": {"a": [1, "x"]}}, {"mixed": ["007"], "tree": {"b": "s"}}]
    (tmp_path / "dataset").mkdir()
    datasets.Dataset.from_list(rows, on_mixed_types="use_json").to_parquet(tmp_path / "dataset" / "rows.parquet")
    assert _typed(stored(tmp_path, path="dataset/rows.parquet")) == _typed(rows)
    assert _typed(stored(tmp_path, dataset="dataset")) == _typed(rows)


def test_files_that_datasets_alone_reads_are_json_too(tmp_path: Path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "rows.csv").write_text("n,text\n1,a\n2,\n")
    assert stored(tmp_path, dataset="dataset") == [{"n": 1, "text": "a"}, {"n": 2}]
    [row] = sources._of_other_files([{"picture": object()}])
    assert isinstance(row, RowError)
    assert list(sources._of_other_files([{"day": date(2024, 1, 2), "no": None}])) == [{"day": "2024-01-02"}]


def test_a_column_of_dates_is_curated(strange: Path):
    """It ended curation in a traceback."""
    rows = [{**math_row("Two?", "2"), "date": "2024-01-02"}]
    write_jsonl(strange / "dated" / "rows.jsonl", rows)
    [raw] = stored(strange, dataset="dated")
    candidate = parse(raw, "rl", "name", "math", "math")
    assert json.loads(candidate.as_json())["date"] == "2024-01-02"


def test_a_source_has_its_rows_graded_as_nemo_gym_grades(tmp_path: Path):
    write_jsonl(tmp_path / "x.jsonl", [{"n": 1}, {"n": 2, "grading": "gym"}])
    assert stored(tmp_path, path="x.jsonl", grading="gym") == [{"n": 1, "grading": "gym"}, {"n": 2, "grading": "gym"}]
    assert stored(tmp_path, path="x.jsonl") == [{"n": 1}, {"n": 2, "grading": "gym"}]
    with pytest.raises(ValidationError, match="none of NeMo Gym's"):
        Source.model_validate({"domain": "d", "generator": "math", "grading": "gym"})
    with pytest.raises(ValidationError, match="grading"):
        Source.model_validate({"domain": "d", "path": "x.jsonl", "grading": "exact"})


def test_datasets_come_from_the_hub(tmp_path: Path):
    rows = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "2 + 2?", "answer": "#### 4"}]
    on_hub = tmp_path / "hub" / "datasets" / "org"
    for name, file in (("lines", "train.jsonl"), ("cut", "cut.jsonl")):
        (on_hub / name / "data").mkdir(parents=True)
        data_files = {"config_name": "default", "data_files": [{"split": "train", "path": f"data/{file}"}]}
        (on_hub / name / "README.md").write_text(f"---\nconfigs: {json.dumps([data_files])}\n---\n")
        write_jsonl(on_hub / name / "data" / file, rows)
    (on_hub / "table" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), on_hub / "table" / "data" / "train-00000-of-00001.parquet")
    script = """
    from pathlib import Path
    from cascade.curation import sources
    from cascade.errors import CascadeError
    from cascade.recipe import Source

    def answer(name):
        try:
            return list(sources.stored(Source(dataset=name, domain="d"), "s", Path.cwd()))
        except CascadeError as error:
            return str(error)
    """
    with hub.serve(tmp_path / "hub") as server:
        server.status, server.broken = {"org/gated": 403, "org/private": 401, "org/down": 503}, {"data/cut.jsonl"}
        names = [f"org/{name}" for name in ("lines", "table", "missing", "gated", "private", "down", "cut")]
        found = hub.run(script, names, server, tmp_path / "home")
    assert found["org/lines"] == found["org/table"] == rows
    for name, cause in (
        ("missing", "Not Found"),
        ("gated", "gated"),
        ("private", "cannot be accessed"),
        ("down", "again"),
    ):
        assert found[f"org/{name}"].startswith(f"curation.sources.s.dataset: cannot open org/{name} (")
        assert cause in found[f"org/{name}"]
    # Not a file that ends early: the rows that arrived are no shorter dataset.
    assert found["org/cut"].startswith("curation.sources.s: reading org/cut broke off (peer closed connection")
    assert not any("\n" in text for text in found.values() if isinstance(text, str))
