"""What DVC draws: a node's curves by domain, a gate's heat map and recoveries, against hand-made results."""

from pathlib import Path

from cascade.layout import Layout
from cascade.report.score_plots import write_score_plots
from cascade.tracking.curves import write_curves
from cascade.utils.files import write_json
from tests.evaluation.project import recipe_with_gate, share, write_evaluation


def test_curves_have_a_line_a_step_and_domain(tmp_path: Path) -> None:
    steps = [
        (
            0,
            {"rollout/reward": 0.3, "rollout/reward/one": 0.25, "rollout/reward/two": 1 / 3, "rollout/length/one": 7.0},
        ),
        (1, {"rollout/reward/two": 0.5}),
    ]
    write_curves(tmp_path, steps, ["one", "two"])
    assert (tmp_path / "rewards.csv").read_text() == "step,domain,reward\n0,one,0.25\n0,two,0.3333\n1,two,0.5\n"
    assert (tmp_path / "lengths.csv").read_text() == "step,domain,length\n0,one,7.0\n"


def test_the_heat_map_follows_the_cascade_and_recovery_lies_between_start_and_teacher(tmp_path: Path) -> None:
    layout, recipe = Layout(tmp_path), recipe_with_gate()
    write_evaluation(layout, "sft", {"one": share(20), "two": share(10)})
    write_evaluation(layout, "rl", {"one": share(12), "two": share(30)})
    write_evaluation(layout, "mopd", {"one": share(18), "two": share(29)})
    write_json(layout.decision("choose"), {"teachers": {"one": {"node": "sft"}, "two": {"node": "rl"}}})
    write_score_plots(recipe, "release", layout)
    folder = tmp_path / "results" / "plots" / "release"
    assert (folder / "heat_map.csv").read_text().splitlines() == [
        "node,domain,score",
        "sft,one,0.5",
        "sft,two,0.25",
        "rl,one,0.3",
        "rl,two,0.75",
        "mopd,one,0.45",
        "mopd,two,0.725",
    ]
    assert (folder / "recovery.csv").read_text().splitlines() == [
        "node,domain,start,after,teacher",
        "mopd,one,0.3,0.45,0.5",
        "mopd,two,0.75,0.725,0.75",
    ]
