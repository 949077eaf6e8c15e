"""Solve nodes: what they write, that they resume to the byte, refuse another trail, and end at a stop file."""

import json
import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest
import yaml

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from cascade.report.page import build_report
from cascade.report.table import result_table
from cascade.test_time.node import solve
from cascade.test_time.trail import STOP, Trail
from cascade.tracking import Journal
from cascade.utils.files import read_json, read_jsonl
from tests.test_time.project import SOLVE, content, make_project

NODES = tuple(SOLVE)


class Killed(BaseException):
    """As if by SIGKILL: nothing is cleaned up by who would catch an Exception."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Layout]:
    recipe, layout = make_project(tmp_path_factory.mktemp("solve"))
    for name in NODES:
        solve(recipe, name, layout)
    return recipe, layout


def copied(layout: Layout, folder: Path) -> Layout:
    """The project without what its solve nodes made."""
    shutil.copytree(layout.root, folder, symlinks=True, ignore=shutil.ignore_patterns("solutions", ".cascade"))
    return Layout(folder)


def files_of(layout: Layout, name: str) -> list[bytes]:
    return [(layout.solution(name) / file).read_bytes() for file in ("trail.jsonl", "answers.jsonl", "curve.csv")]


@pytest.mark.parametrize("name", NODES)
def test_what_a_node_writes(built: tuple[Recipe, Layout], name: str) -> None:
    recipe, layout = built
    node, out = recipe.solve[name], layout.solution(name)
    summary, answers = read_json(out / "summary.json"), list(read_jsonl(out / "answers.jsonl"))
    rows = list(read_jsonl(out / "trail.jsonl"))
    assert summary["problems"] == len(answers) == (3 if node.benchmark == "proofs" else 2)
    assert {row["problem"] for row in rows} == {row["id"] for row in answers}
    assert summary["score"] == pytest.approx(sum(row["score"] for row in answers) / len(answers), abs=1e-4)
    assert read_json(layout.root / "results" / "scores" / f"{name}.json") == {node.benchmark: summary["score"]}
    searched = [row for row in rows if "tokens" in row and row["kind"] != "grade" and row["round"] > 0]
    assert summary["spent"]["generations"] == len(searched) == sum(row["generations"] for row in answers)
    assert summary["spent"]["tokens"] == sum(row["tokens"] for row in searched)
    assert all(row["generations"] <= summary["budget"] for row in answers)
    methods = {point["method"] for point in summary["curve"]}
    assert methods == {"strategy", *summary["plain"]}
    assert "pass@k" in methods
    assert (out / "curve.csv").read_text().startswith("budget,method,score,ci_low,ci_high\n")
    entries = Journal(layout.journal(name)).entries()
    metrics = [entry for entry in entries if entry["kind"] == "metrics"]
    assert metrics[-1]["values"]["solve/score"] == summary["score"]
    assert metrics[-1]["step"] == summary["budget"]
    assert not layout.work(name).exists()


def test_submissions_keep_to_their_budget(built: tuple[Recipe, Layout]) -> None:
    rows = list(read_jsonl(built[1].solution("competition_search") / "trail.jsonl"))
    for problem in {row["problem"] for row in rows}:
        assert sum(row["kind"] == "submit" and row["problem"] == problem for row in rows) <= 2


def test_every_answer_in_words_was_checked_but_no_search_was_told(built: tuple[Recipe, Layout]) -> None:
    rows = list(read_jsonl(built[1].solution("proofs_search") / "trail.jsonl"))
    keys = {(row["problem"], row["key"]) for row in rows}
    answers = [row for row in rows if row["kind"] in ("write", "refine")]
    assert answers
    assert all((row["problem"], f"{row['key']}/check") in keys for row in answers)


@pytest.mark.parametrize("name", NODES)
def test_killed_twenty_times_it_makes_the_same_files(
    built: tuple[Recipe, Layout], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, layout = built
    expected = files_of(layout, name)
    project, add, rng = copied(layout, tmp_path / "project"), Trail.add, random.Random(0)
    rows = expected[0].count(b"\n")
    left = [0]

    def dying(trail: Trail, row: dict) -> None:
        known = len(trail.rows())
        add(trail, row)
        left[0] -= len(trail.rows()) - known
        if left[0] < 0:
            with open(trail.path, "a") as file:  # a row that the kill cut
                file.write('{"problem": "x", "ke')
            raise Killed

    monkeypatch.setattr(Trail, "add", dying)
    kills = 0
    while kills < 20:
        left[0] = rng.randrange(max(1, rows // 12))
        try:
            solve(recipe, name, project)
        except Killed:
            kills += 1
        else:
            assert files_of(project, name) == expected
            shutil.rmtree(project.solution(name))
    left[0] = 10**9
    solve(recipe, name, project)
    assert files_of(project, name) == expected


def solve_in(folder: Path, name: str) -> None:
    layout = Layout(folder)
    solve(load(layout.params), name, layout)


@pytest.mark.parametrize("name", NODES)
def test_killed_at_random_moments_it_makes_the_same_files(
    built: tuple[Recipe, Layout], name: str, tmp_path: Path
) -> None:
    """By SIGKILL, as benchmarks.kill_resume does; there the processes import for themselves."""
    expected, project, draw = files_of(built[1], name), copied(built[1], tmp_path / "project"), random.Random(name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cascade.test_time.node", "cascade.policy.hf", "tests.test_time.test_node"])

    def ended(moment: float | None) -> bool:
        """Whether it ended by itself."""
        process = context.Process(target=solve_in, args=(project.root, name))
        process.start()
        process.join(moment)
        if process.exitcode is None:
            process.kill()
            process.join()
            return False
        assert process.exitcode == 0
        assert files_of(project, name) == expected
        shutil.rmtree(project.solution(name))
        return True

    assert ended(None)  # what is imported late is imported now, or the first length would be too long
    began = time.monotonic()
    assert ended(None)
    length, kills = time.monotonic() - began, 0
    while kills < 5:
        kills += not ended(draw.uniform(0, length))
    assert ended(None)


def test_a_trail_of_other_inputs_is_refused(
    built: tuple[Recipe, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = copied(built[1], tmp_path / "project")
    add = Trail.add

    def dying(trail: Trail, row: dict) -> None:
        add(trail, row)
        raise Killed

    monkeypatch.setattr(Trail, "add", dying)
    with pytest.raises(Killed):
        solve(built[0], "proofs_search", layout)
    monkeypatch.setattr(Trail, "add", add)
    for changed, key in (
        ({"seed": 1}, "seed"),
        ({"solve": {**SOLVE, "proofs_search": {**SOLVE["proofs_search"], "budget": {"generations": 11}}}}, "section"),
    ):
        layout.params.write_text(yaml.safe_dump(content(**changed), sort_keys=False))
        with pytest.raises(CascadeError, match=rf"a search with other inputs was interrupted there \({key}\)"):
            solve(load(layout.params), "proofs_search", layout)


def test_a_stop_file_ends_the_search_and_it_goes_on_without_it(
    built: tuple[Recipe, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, layout = built[0], copied(built[1], tmp_path / "project")
    add = Trail.add

    def stopping(trail: Trail, row: dict) -> None:
        add(trail, row)
        if len(trail.rows()) == 12:
            (trail.directory / STOP).touch()

    with monkeypatch.context() as patch:
        patch.setattr(Trail, "add", stopping)
        summary = solve(recipe, "proofs_search", layout)
    assert summary["stopped"] == "the stop file is there"
    assert summary["ended"] == {"stopped": 3}
    assert "plain" not in summary
    (layout.work("proofs_search") / STOP).unlink()
    solve(recipe, "proofs_search", layout)
    assert files_of(layout, "proofs_search")[1:] == files_of(built[1], "proofs_search")[1:]


def test_the_budget_of_seconds_ends_the_search(
    built: tuple[Recipe, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = copied(built[1], tmp_path / "project")
    node = {**SOLVE["proofs_search"], "budget": {"generations": 12, "seconds": 100.0}, "plain": False}
    layout.params.write_text(yaml.safe_dump(content(solve={"proofs_search": node}), sort_keys=False))
    monkeypatch.setattr(Trail, "seconds", lambda trail: 5.0 * len(trail.rows()))
    summary = solve(load(layout.params), "proofs_search", layout)
    assert summary["stopped"] == "its 100 seconds are spent"
    assert summary["spent"]["generations"] <= 20


def test_the_report_shows_it(built: tuple[Recipe, Layout], tmp_path: Path) -> None:
    recipe, layout = built
    page = build_report(recipe, layout, tmp_path).read_text()
    assert '<h2 id="test-time">' in page
    for name in NODES:
        assert f'<h3 id="{name}">' in page
        assert (tmp_path / "figures" / f"budget_{name}.png").exists()
    assert "The verifier was right in" in page or "verifications" not in json.dumps(page)
    assert "No node has been evaluated yet." in result_table(recipe, layout)
