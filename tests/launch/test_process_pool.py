import json
import os

import pytest

from cascade.errors import CascadeError
from cascade.evaluation import benchmark
from cascade.launch.process_pool import in_processes
from cascade.layout import Layout
from cascade.recipe import Recipe
from tests.evaluation.project import recipe_with_gate
from tests.launch.pool_jobs import working
from tests.training.miniature import make_checkpoint, prompt_rows, write_rows


def test_two_workers_work_at_the_same_time_and_one_is_this_process(tmp_path):
    found = dict(in_processes(2, working, [f"meet {tmp_path}", f"meet {tmp_path}/", "say three"]))
    assert {said for said, _ in found.values()} == {"2", "three"}
    assert os.getpid() not in {process for _, process in found.values()}
    assert dict(in_processes(1, working, ["say a", "say b"])) == {f"say {x}": (x, os.getpid()) for x in "ab"}
    assert dict(in_processes(2, working, [])) == {}


def test_what_a_job_raises_is_raised_and_a_killed_worker_is_named():
    with pytest.raises(CascadeError, match=r"^the third word$"):
        list(in_processes(2, working, ["say a", "fail the third word"]))
    with pytest.raises(CascadeError, match=r"^die now: its process ended with status -9; run it again$"):
        list(in_processes(2, working, ["say a", "die now"]))


def test_an_error_of_the_code_is_seen_with_its_traceback(capfd):
    with pytest.raises(CascadeError, match=r"^break it: its process ended with status 1; run it again$"):
        list(in_processes(2, working, ["say a", "break it"]))
    assert "BrokenPipeError: it" in capfd.readouterr().err


def test_workers_leave_in_their_own_way_once_all_is_done(tmp_path, monkeypatch):
    monkeypatch.setenv("LANES_FAREWELL", str(tmp_path))
    found = dict(in_processes(2, working, ["say a", "say b", "say c"]))
    assert {int(path.name) for path in tmp_path.iterdir()} >= {process for _, process in found.values()}


def test_where_others_are_asked_one_process_asks(monkeypatch):
    monkeypatch.setattr(benchmark, "has_gpu", lambda: False)
    recipe = recipe_with_gate().model_copy(update={"threads": 2})
    assert benchmark.worker_count(recipe, "sft") == 2
    asking = Recipe.model_validate(
        recipe.model_dump() | {"judges": {"preference": {"url": "http://127.0.0.1:1/v1", "model": "m"}}}
    )
    verified = Recipe.model_validate(recipe.model_dump() | {"verification": {"ray": "auto", "workers": 4}})
    assert [benchmark.worker_count(each, "sft") for each in (asking, verified)] == [1, 1]


def test_no_worker_outlives_the_iteration():
    workers = in_processes(2, working, ["say a", "say b", "say c", "say d"])
    (_, (_, process)) = next(workers)
    os.kill(process, 0)
    workers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_an_evaluation_in_worker_processes_finds_what_one_thread_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "has_gpu", lambda: False)
    layout = Layout(tmp_path)
    make_checkpoint(layout.checkpoint("sft"), 1)
    for domain in ("one", "two"):
        rows = [dict(row, environment="mcqa") for row in prompt_rows(domain, 5)]
        for row in rows:
            question = {"options": [{"A": "x"}, {"B": "y"}], "expected_answer": "A"}
            row["row"] = json.dumps(json.loads(row["row"]) | question)
        write_rows(layout.benchmark(domain), rows)
    recipe = recipe_with_gate()
    benchmark.evaluate(recipe, "sft", layout)
    beside = recipe.model_copy(update={"threads": 2})
    benchmark.evaluate(beside, "sft", layout, layout.checkpoint("sft"), tmp_path / "beside")
    for file in ("rollouts.parquet", "prompts.csv", "summary.json"):
        assert (layout.evaluation("sft") / file).read_bytes() == (tmp_path / "beside" / file).read_bytes()
