"""The benchmark of the whole cascade on SmolLM2: its rows, and the driver that works within a time limit."""

import json
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.gpu.smollm2 import prepare, rows
from benchmarks.gpu.smollm2 import run as driver
from benchmarks.gpu.smollm2.__main__ import unpack
from cascade import environments
from cascade.chat import Response, ToolCall
from cascade.curation.rows import parse
from cascade.environments import registry
from cascade.environments.instruction_following.constraints import bind
from cascade.layout import Layout
from cascade.recipe import load

ROOT = Path(__file__).parents[2]


def reward(row: rows.Row, content: str = "", calls: tuple[ToolCall, ...] = ()) -> float | None:
    environment = registry.environment_of(row)
    environment.check_row(row)
    return environment.verify(row, Response(content, tool_calls=calls)).reward


def demonstrated(row: rows.Row) -> float | None:
    """The reward of the row's own demonstration, as curation verifies it."""
    candidate = parse(row, "sft", "source", "domain", None)
    assert candidate.answer is not None
    assert not candidate.answer.reasoning
    environment = registry.environment_of(row)
    environment.check_row(row)
    return environment.verify(row, candidate.answer).reward


def test_gsm8k_keeps_its_steps_in_the_answer() -> None:
    answer = "He has 48/2 = <<48/2=24>>24 clips.\nThat is 1,000+24 = <<1000+24=1024>>1,024.\n#### 1,024"
    [row] = rows.gsm8k([{"question": "How many? ", "answer": answer}])
    assert row["demonstration"]["content"] == "He has 48/2 = 24 clips.\nThat is 1,000+24 = 1,024.\n\\boxed{1024}"
    assert demonstrated(row) == 1
    assert reward(row, "\\boxed{1023}") == 0


MBPP = {
    "task_id": 602,
    "text": "Write a function to double.",
    "code": "def twice(x):\r\n\treturn 2 * x",
    "test_list": ["assert twice(2) == 4", "assert set(twice(x) for x in (1, 2)) == {2, 4}"],
    "test_setup_code": "",
}


def test_mbpp_by_its_split() -> None:
    [row] = rows.mbpp([MBPP, {**MBPP, "task_id": 12}], range(511, 975))
    assert demonstrated(row) == 1
    assert "assert twice(2) == 4" in row["responses_create_params"]["input"][0]["content"]
    assert reward(row, "```python\ndef twice(x):\n    return 4\n```") == 0  # the second test counts, too
    assert list(rows.mbpp([{**MBPP, "test_list": ["assert (1"]}], range(600, 700))) == []


def test_human_eval_is_judged_by_its_check() -> None:
    task = {
        "prompt": 'def one(x):\n    """One more."""\n',
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        "entry_point": "one",
    }
    [row] = rows.human_eval([task])
    assert reward(row, "```python\ndef one(x):\n    return x + 1\n```") == 1
    assert reward(row, "```python\ndef one(x):\n    return x\n```") == 0


FUNCTION = {
    "name": "area",
    "description": "Of a triangle.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float", "description": "Its base."},
            "unit": {"type": "string", "description": "Unit.", "default": "cm"},
            "points": {"type": "tuple", "items": {"type": "any"}},
        },
        "required": ["base"],
    },
}
ASKED = {"id": "a", "question": [[{"role": "user", "content": "Area for base 4.5?"}]], "function": [FUNCTION]}


def test_bfcl_calls_leave_out_what_may_be_left_out() -> None:
    [row] = rows.bfcl_calls([ASKED], [{"id": "a", "ground_truth": [{"area": {"base": [4.5], "unit": ["cm", ""]}}]}])
    [tool] = row["responses_create_params"]["tools"]
    assert tool["parameters"]["properties"]["base"] == {"type": "number", "description": "Its base."}
    assert tool["parameters"]["properties"]["points"] == {"type": "array", "items": {}}
    assert demonstrated(row) == 1
    assert reward(row, calls=(ToolCall("area", {"base": 4.5, "unit": "cm"}),)) == 0


@pytest.mark.parametrize("accepted", [{"base": [4.5, 4]}, {"unit": ["cm", "inch", ""]}])
def test_bfcl_rows_with_several_right_calls_are_left_out(accepted: dict) -> None:
    assert list(rows.bfcl_calls([ASKED], [{"id": "a", "ground_truth": [{"area": accepted}]}])) == []


def test_bfcl_nested_values_are_chosen_at_every_depth() -> None:
    truth = {"area": {"base": [{"at": [[{"x": [1], "y": ["", 2]}]], "in": ["m"]}]}}
    [(_, [(name, arguments)])] = rows._unambiguous([ASKED], [{"id": "a", "ground_truth": [truth]}])
    assert (name, arguments) == ("area", {"base": {"at": [{"x": 1}], "in": "m"}})


def test_bfcl_objects_ask_for_what_the_answer_has() -> None:
    truth = {"area": {"base": [4.5], "unit": ["cm", ""]}}
    [row] = rows.bfcl_objects([ASKED], [{"id": "a", "ground_truth": [truth]}])
    assert json.loads(row["schema_str"])["required"] == ["base"]
    assert demonstrated(row) == 1
    assert reward(row, '{"base": 4.6}') == 0
    assert list(rows.bfcl_objects([ASKED], [{"id": "a", "ground_truth": [truth, truth]}])) == []


@pytest.mark.parametrize(
    ("prompt", "completion", "question", "letter"),
    [
        ("Where?\n\n- race track\n- populated areas\n", "populated areas", "Where?", "B"),
        ("Text.\n\nQ: Who?\n\n Choices:\n\n- x\n\n- y\n\nA:\n", "x", "Text.\n\nQ: Who?", "A"),
        ("Context: c\n\nQuestion: q?\n\nWhich one of these answers best answers the question?\n\nA: n\n\nB: m\n", "B",
         "Context: c\n\nQuestion: q?", "B"),
    ],
)  # fmt: skip
def test_choices_out_of_p3(prompt: str, completion: str, question: str, letter: str) -> None:
    [row] = rows.choices([{"prompt": prompt, "completion": f"{completion}<|endoftext|>"}])
    assert row["responses_create_params"]["input"][0]["content"].startswith(f"{question}\n\nA: ")
    assert row["expected_answer"] == letter
    assert demonstrated(row) == 1
    assert reward(row, "\\boxed{C}") == 0


def test_choices_without_one_right_option_are_left_out() -> None:
    asked = {"prompt": "Where?\n- here\n- here\n", "completion": "here"}
    assert list(rows.choices([asked, {**asked, "completion": "there"}, {**asked, "prompt": "Where?"}])) == []


def test_instructions_have_released_constraints_and_mostly_answers_that_keep_them() -> None:
    task = {
        "id": "t",
        "instruction": "Name three fruits.",
        "instances": [{"input": "", "output": "Apples are red. Pears are green. Plums, in summer, are blue."}],
    }
    made = list(rows.instructions([task], 60, seed=0))
    assert made == list(rows.instructions([task], 60, seed=0))
    assert made[:5] == list(rows.instructions([task], 5, seed=0))
    kept = [demonstrated(row) for row in made]
    assert 0.6 <= sum(value or 0 for value in kept) / len(kept) <= 1
    for row in made:
        for name, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            bind(name, kwargs, gym=False)
    assert list(rows.instructions([{**task, "instruction": "x" * 1300}], 3, seed=0)) == []


def test_preferences_have_no_reasoning() -> None:
    for row in rows.preferences(6, seed=1):
        assert set(row["demonstration"]) == {"content"}
        assert environments.get("human_preference").check_row(row) is None


def test_the_recipe_names_the_files_that_are_prepared(tmp_path: Path) -> None:
    recipe = load(ROOT / "recipes" / "smollm2.yaml")
    named = {Path(str(source.path)).stem for source in recipe.curation.sources.values()}
    for folder in (
        "gsm8k/train",
        "gsm8k/test",
        "mbpp",
        "si/data/seed_tasks",
        "si/human_eval/user_oriented_instructions",
    ):
        file = tmp_path / f"{folder}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    for category in (*prepare.HELD_OUT, *prepare.TRAINED_ON):
        for file in (tmp_path / "bfcl" / "data" / sub / f"BFCL_v4_{category}.json" for sub in ("", "possible_answer")):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
    for name in prepare.P3:
        file = tmp_path / "si" / "data" / "finetuning" / "t0_train_50k" / "data_per_template" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "he" / "data").mkdir(parents=True)
    (tmp_path / "he" / "data" / "HumanEval.jsonl.gz").write_bytes(__import__("gzip").compress(b""))
    sets = prepare.data_sets(
        tmp_path / "gsm8k", tmp_path / "mbpp.jsonl", tmp_path / "si", tmp_path / "bfcl", tmp_path / "he"
    )
    assert named == set(sets)
    with pytest.raises(SystemExit, match="no such file"):
        prepare.data_sets(tmp_path / "x", tmp_path / "mbpp.jsonl", tmp_path / "si", tmp_path / "bfcl", tmp_path / "he")


def test_parts_are_joined_once(tmp_path: Path) -> None:
    parts, root = tmp_path / "parts", tmp_path / "root"
    parts.mkdir()
    root.mkdir()
    for number in range(12):  # more than ten: 10 comes after 9
        (parts / f"model.gguf.{number}").write_bytes(bytes([number]))
    (tmp_path / "data" / "smollm2").mkdir(parents=True)
    (tmp_path / "data" / "smollm2" / "a.jsonl").write_text("{}\n")
    with tarfile.open(parts / "data.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "data" / "smollm2", "data/smollm2")
    gguf = unpack(parts, root)
    assert gguf.read_bytes() == bytes(range(12))
    assert (root / "data" / "smollm2" / "a.jsonl").read_text() == "{}\n"
    gguf.write_bytes(b"kept")
    assert unpack(parts, root).read_bytes() == b"kept"


def step(root: Path, name: str, code: str, *needs: str) -> driver.Step:
    return driver.Step(name, ("-c", code), root / name, tuple(root / need for need in needs))


def names(steps: list[driver.Step]) -> list[str]:
    return [step.name for step in steps]


def test_steps_run_when_what_they_need_is_there_and_a_failure_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = "import pathlib, sys; pathlib.Path({!r}).write_text('')"
    todo = [
        step(tmp_path, "last", make.format("last"), "first", "second"),
        step(tmp_path, "first", make.format("first")),
        step(tmp_path, "second", make.format("second"), "first"),
        step(tmp_path, "broken", "raise SystemExit('why it broke')"),
        step(tmp_path, "after", make.format("after"), "broken"),
        step(tmp_path, "makes nothing", "print('but says so')"),
    ]
    calls: list[int] = []
    left = driver.run(todo, Layout(tmp_path), 2, time.monotonic() + 60, lambda: calls.append(1))
    assert names(left) == ["broken", "after", "makes nothing"]
    text = capsys.readouterr().out
    assert "why it broke" in text
    assert "but says so" in text
    assert len(calls) == 6  # after each of five, and at the end
    assert sorted(driver.seconds_of(Layout(tmp_path))) == ["broken", "first", "last", "makes nothing", "second"]
    # The next call tries again what failed.
    again = [step(tmp_path, "broken", make.format("broken")), *todo[4:5]]
    assert driver.run(again, Layout(tmp_path), 2, time.monotonic() + 60, lambda: None) == []


def test_what_runs_at_the_limit_is_stopped_and_goes_on_in_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "ENDING", 0.5)
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "state = pathlib.Path('state')\n"
        "if not state.exists():\n"
        "    state.write_text('')\n"
        "    time.sleep(600)\n"
        "pathlib.Path('slow').write_text('')\n"
    )
    layout, slow = Layout(tmp_path), step(tmp_path, "slow", code)
    assert names(driver.run([slow], layout, 1, time.monotonic() + 5, lambda: None)) == ["slow"]
    assert (tmp_path / "state").exists()
    first = driver.seconds_of(layout)["slow"]
    assert first < 5 + driver.PATIENCE  # it was told to end, and did
    assert driver.run([slow], layout, 1, time.monotonic() + 60, lambda: None) == []
    assert driver.seconds_of(layout)["slow"] >= first  # of both calls


def test_steps_of_the_recipe_wait_for_what_they_read(tmp_path: Path) -> None:
    recipe, layout = driver.open_project(ROOT / "recipes" / "smollm2.yaml", tmp_path / "work")
    steps = {step.name: step for step in driver.steps(recipe, layout, tmp_path / "m.gguf", "hermes")}
    assert list(steps)[:3] == ["import", "curate", "sft"]
    assert [name for name, step in steps.items() if step.ready] == []
    (tmp_path / "m.gguf").write_text("")
    assert [name for name, step in steps.items() if step.ready] == ["import"]

    def finish(*finished: str) -> list[str]:
        for name in finished:
            steps[name].makes.parent.mkdir(parents=True, exist_ok=True)
            steps[name].makes.write_text("")
        return [name for name, step in steps.items() if step.ready]

    assert finish("import") == ["curate"]
    assert finish("curate") == ["sft", "evaluate base"]
    branches = [name for name, node in recipe.rl.items() if node.init == "sft"]
    assert len(branches) == 7
    assert finish("sft", "evaluate base") == [*branches, "evaluate sft"]
    assert finish(*branches) == ["evaluate sft", *(f"evaluate {name}" for name in branches)]
    assert finish("evaluate sft", *(f"evaluate {name}" for name in branches[:-1])) == [f"evaluate {branches[-1]}"]
    assert finish(f"evaluate {branches[-1]}") == ["select_teachers"]
    assert finish("select_teachers") == ["mopd", "merge"]
    assert finish("mopd", "merge") == ["evaluate mopd", "evaluate merge"]
    assert finish("evaluate mopd") == ["evaluate merge"]
    assert finish("evaluate merge") == ["release"]
    assert finish("release") == []


def test_a_domain_can_be_left_out(tmp_path: Path) -> None:
    """Where programs cannot be confined, there is no code: neither its rows nor its node nor a teacher of it."""
    recipe, layout = driver.open_project(ROOT / "recipes" / "smollm2.yaml", tmp_path / "work", ["code"])
    assert "code" not in recipe.domains
    assert len(recipe.domains) == 6
    assert "code_rl" not in recipe.training
    assert "code_rl" not in recipe.teachers["select_teachers"].candidates
    assert set(recipe.distill["mopd"].mix) == set(recipe.domains)
    before = layout.params.stat().st_mtime_ns
    driver.open_project(ROOT / "recipes" / "smollm2.yaml", tmp_path / "work", ["code"])
    assert layout.params.stat().st_mtime_ns == before


def test_the_table_of_a_project_in_which_nothing_ran(tmp_path: Path) -> None:
    recipe, layout = driver.open_project(ROOT / "recipes" / "smollm2.yaml", tmp_path / "work")
    table = driver.table(recipe, layout, {"device": "cpu"}, ["sft"])
    assert (table["scores"], table["pooled_recovery"], table["left"], table["curation"]) == ({}, None, ["sft"], None)


def test_the_table_has_scores_with_intervals_training_and_recovery(tmp_path: Path) -> None:
    recipe, layout = driver.open_project(ROOT / "recipes" / "smollm2.yaml", tmp_path / "work")
    for node, score in (("sft", 0.2), ("math_rl", 0.6), ("mopd", 0.5)):
        domains = {
            domain: {
                "avg@k": score,
                "ci_low": score - 0.1,
                "ci_high": score + 0.1,
                "prompts": 9,
                "truncated": 0,
                "length": 5,
            }
            for domain in recipe.domains
        }
        path = layout.evaluation(node) / "summary.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"domains": domains, "mean": {"avg@k": score}}))
    layout.decision("select_teachers").parent.mkdir(parents=True)
    layout.decision("select_teachers").write_text(
        json.dumps({"teachers": {domain: {"node": "math_rl"} for domain in recipe.domains}})
    )
    (layout.training("math_rl")).mkdir(parents=True)
    lines = [f"{step},{step / 20},{int(step == 3)},0.5" for step in range(20)]
    (layout.training("math_rl") / "steps.csv").write_text(
        "\n".join(["step,rollout/reward,rollout/skipped_step,time/step_seconds", *lines]) + "\n"
    )
    table = driver.table(recipe, layout, {}, [])
    assert table["scores"]["mopd"]["math"] == {
        "score": 0.5, "interval": [0.4, 0.6], "prompts": 9, "truncated": 0, "tokens": 5
    }  # fmt: skip
    assert table["pooled_recovery"] == pytest.approx(0.75)
    assert table["teachers"] == {"select_teachers": dict.fromkeys(recipe.domains, "math_rl")}
    assert table["training"]["math_rl"] == {
        "rollout/reward": [0.025, 0.925], "steps": 20, "time/step_seconds": 0.5, "skipped_steps": 1.0
    }  # fmt: skip


def test_the_recipe_samples_without_thinking_everywhere() -> None:
    content = yaml.safe_load((ROOT / "recipes" / "smollm2.yaml").read_text(encoding="utf-8"))
    rollouts = [content["evaluation"], *content["rl"].values(), *content["distill"].values()]
    assert {node["rollout"]["thinking"] for node in rollouts} == {False}
