"""`cascade solve`: one problem in words, a file of rows, the same answers again."""

import json

import pytest
from click.testing import CliRunner

from cascade import cli
from cascade.commands.solve import read_questions
from cascade.environments.registry import get
from cascade.errors import CascadeError
from tests.test_time.project import ROOT

BASE = str(ROOT / "models" / "base")
SMALL = ["--candidates", "2", "--rounds", "2", "--max-new-tokens", "100"]
REFINE = ["--verifications", "2", "--keep", "1", "--refinements", "1"]


def run(*arguments: str, code: int = 0) -> str:
    told = CliRunner().invoke(cli.main, ["solve", *arguments])
    assert told.exit_code == code, told.output
    return told.output


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_problem_in_words(project):
    (project / "problem.txt").write_text("What is 3 + 4? Put the final answer within \\boxed{}.\n")
    told = run(BASE, "problem.txt", *SMALL, *REFINE, "-o", "trail")
    assert "── problem" in told
    assert "round 1, " in told
    assert "ended: " in told
    rows = [json.loads(line) for line in (project / "trail" / "trail.jsonl").read_text().splitlines()]
    assert {"write", "verify"} <= {row["kind"] for row in rows}
    [answer] = [json.loads(line) for line in (project / "trail" / "answers.jsonl").read_text().splitlines()]
    assert "score" not in answer  # nothing here can check it
    # Again: the same answer, and not a response more.
    before = (project / "trail" / "trail.jsonl").read_bytes()
    again = run(BASE, "problem.txt", *SMALL, *REFINE, "-o", "trail")
    assert (project / "trail" / "trail.jsonl").read_bytes() == before
    assert again[again.index("──") :] == told[told.index("──") :]
    refused = run(BASE, "problem.txt", *SMALL, *REFINE, "-o", "trail", "--seed", "1", code=1)
    assert "a search with other inputs was interrupted there (seed)" in refused


def test_a_file_of_rows_that_can_be_checked(project):
    rows = get("proofs").generate(2, 1, 1)
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = run(BASE, "rows.jsonl", *SMALL, *REFINE, "--generations", "6")
    assert told.count("── proofs-") == 2
    [directory] = (project / ".cascade" / "solve").iterdir()
    answers = [json.loads(line) for line in (directory / "answers.jsonl").read_text().splitlines()]
    assert all(row["score"] in (0.0, 1.0) for row in answers)


def test_problems_with_subtasks_are_submitted(project):
    rows = get("competition").generate(1, 1, 1)
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = run(BASE, "rows.jsonl", *SMALL, "--submissions", "1")
    assert "% of the points" in told
    refused = run(BASE, "rows.jsonl", *SMALL, "--keep", "2", code=1)
    assert "--keep: generate-select-submit has no such setting" in refused


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", " \n", "empty"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", "{", "not JSON"),
        ("a.jsonl", "{}", "no responses_create_params"),
        ("a.jsonl", '{"id": 1, "responses_create_params": {"input": "x"}}\n' * 2, "the same id"),
    ],
)
def test_files_that_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CascadeError, match=message):
        read_questions(tmp_path / name)


def test_a_missing_file_or_checkpoint_is_named(project):
    assert "no such file" in run(BASE, "nowhere.txt", code=1)
    (project / "a.txt").write_text("x")
    assert "neither a node that was built" in run("nowhere", "a.txt", code=1)
