"""What curation writes, by itself: no source, no step."""

import pyarrow.parquet as pq
import pytest

from cascade.chat import Conversation
from cascade.curation.output import Output
from cascade.curation.rows import USES, Candidate
from cascade.errors import RowError

from .conftest import read_prompts, read_sequences


def prompt(use: str, text: str, domain: str = "math") -> Candidate:
    messages = [{"role": "user", "content": text}]
    return Candidate(use, "made", domain, 1, messages, None, gym={"question": text}, environment=domain)


def demonstration(tokens: list[int]) -> Candidate:
    row = Candidate("sft", "made", "math", 1, [{"role": "user", "content": str(tokens)}], None)
    row.examples = [Conversation(tokens, [False] + [True] * (len(tokens) - 1))]
    return row


@pytest.fixture
def output(tmp_path):
    """One whose tally has seen rows drawn, as the pipeline sees to."""
    made = Output(tmp_path, seed=0, sequence_length=8)
    for use in USES:
        for domain in ("math", "tool_calling"):
            for _ in range(5):
                made.tally.draw(use, "made", domain)
        made.tally.enter(use, "form")
    return made


def test_rows_lie_by_use_and_domain(output, tmp_path):
    output.keep(prompt("rl", "1 + 1"))
    output.keep(prompt("rl", "Call it.", "tool_calling"))
    output.keep(prompt("benchmark", "2 + 2"))
    output.keep(demonstration([1, 2, 3]))
    output.finish()
    assert [row["row"]["question"] for row in read_prompts(tmp_path / "rl" / "math.parquet")] == ["1 + 1"]
    assert [row["row"]["question"] for row in read_prompts(tmp_path / "benchmarks" / "math.parquet")] == ["2 + 2"]
    assert (tmp_path / "rl" / "tool_calling.parquet").exists()
    assert len(read_sequences(tmp_path / "sft")) == 1


def test_conversations_are_packed_whole_and_none_is_lost(output, tmp_path):
    for first in range(1, 6):
        output.keep(demonstration([10 * first, 10 * first + 1, 10 * first + 2]))
    packed = output.finish()["packing"]
    sequences = read_sequences(tmp_path / "sft")
    assert sorted(token for sequence in sequences for token in sequence.token_ids) == sorted(
        10 * first + offset for first in range(1, 6) for offset in range(3)
    )
    assert all(len(sequence.token_ids) <= 8 for sequence in sequences)
    assert packed["tokens"] == 15
    assert packed["sequences"] == len(sequences) == 3


def test_a_rejected_row_is_counted_and_kept_with_its_reason(output, tmp_path):
    output.reject("rl", "form", RowError("empty", "an empty user message"), "made", "math", '{"broken": "\ud800"}')
    report = output.finish()
    (row,) = pq.read_table(output.rejects / "part-00000.parquet").to_pylist()
    assert (row["reason"], row["step"], row["row"]) == ("empty", "form", '{"broken": "\\ud800"}')
    assert report["rl"]["steps"]["form"] == {"in": 10, "out": 9, "rejected": {"empty": 1}}
    assert report["rl"]["domains"]["math"]["rejected"] == {"empty": 1}
