import pytest

from benchmarks import learning
from benchmarks.revisions import Cost
from cascade.decisions.gate import gate
from cascade.decisions.history import FileHistory
from cascade.decisions.teacher_selection import select_teachers
from cascade.layout import Layout
from cascade.utils.files import read_json, write_json
from tests.evaluation.project import recipe_with_gate, share, write_evaluation

RECIPE = recipe_with_gate()
SOLVED = {  # by seed and node: prompts of 40 that are solved, in the domains `one` and `two`
    1: {"sft": (16, 30), "rl": (36, 20), "mopd": (35, 28)},
    2: {"sft": (16, 34), "rl": (32, 24), "mopd": (33, 26)},
}


def project(layout: Layout, solved: dict[str, tuple[int, int]]) -> Layout:
    write_json(layout.params, RECIPE.model_dump(mode="json"))
    scores = {node: dict(zip(("one", "two"), counts, strict=True)) for node, counts in solved.items()}
    for node, of in scores.items():
        write_evaluation(layout, node, {domain: share(count) for domain, count in of.items()})
        write_json(layout.root / "results" / "scores" / f"{node}.json", {d: count / 40 for d, count in of.items()})
    select_teachers(RECIPE, "choose", layout, FileHistory(layout))
    gate(RECIPE, "release", layout, FileHistory(layout))
    return layout


def test_seeds_are_summed_up_by_hand(tmp_path):
    layouts = {seed: project(Layout(tmp_path / str(seed)), solved) for seed, solved in SOLVED.items()}
    costs = {1: Cost(wall=720.0, cpu=1200.0), 2: Cost(wall=600.0, cpu=1080.0)}
    learning.write(layouts, costs, "a machine", tmp_path)
    found = read_json(tmp_path / "learning.json")
    # 50 and 60 %: the deviation is 7.07, over √2 seeds.
    assert found["table"]["rl"]["two"] == {"mean": pytest.approx(0.55), "se": pytest.approx(0.05)}
    # `one` was never below its teacher; `two`: (28 - 20) / (30 - 20) and (26 - 24) / (34 - 24).
    assert found["recovery"]["1"] == {"rate": pytest.approx(0.8), "domains": ["two"]}
    assert found["recovery"]["2"]["rate"] == pytest.approx(0.2)
    text = (tmp_path / "learning.md").read_text()
    assert "mopd: recovery rate 50% on what had dropped (two 55.0 → 67.5, teacher 80.0)." in text
    assert "- seed 1: 12.0 minutes, 20.0 of CPU; the gate passed" in text
    assert "- seed 2: 10.0 minutes, 18.0 of CPU; gate release: " in text


def test_a_distillation_with_a_warm_up_begins_where_the_warm_up_does():
    raw = RECIPE.model_dump(mode="json")
    mopd = raw["distill"]["mopd"]
    warm = {
        key: mopd[key] for key in ("init", "round", "teachers", "mix", "prompts", "rollouts", "rollout", "optimizer")
    }
    raw["off_policy"] = {"warm": warm | {"epochs": 1.0, "batch": 4}}
    raw["distill"]["mopd"] = mopd | {"init": "warm"}
    assert learning.before_distillation(type(RECIPE).model_validate(raw)) == "rl"
