import html.parser
import random
import re
import shutil
from dataclasses import replace

import pytest

from cascade.decisions.gate import gate
from cascade.decisions.history import FileHistory
from cascade.decisions.outcomes import repair_decisions
from cascade.decisions.teacher_selection import select_teachers
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.report import figures
from cascade.report.before_after import before_after, shortened
from cascade.report.facts import Cost, costs, total
from cascade.report.page import build_report
from cascade.report.results import load_results, pooled_recovery
from cascade.report.table import result_table
from cascade.tracking import Journal
from cascade.tracking.curves import read_steps
from cascade.utils.files import read_json, write_atomic, write_json, write_jsonl
from tasks.artifacts import repair_page
from tests.evaluation.project import recipe_with_gate, recipe_with_repair, share, write_evaluation


def write_training(layout: Layout, node: str, domains: list[str], steps: int = 60, seed: int = 0) -> None:
    """Curves as a training node leaves them; with no domains, an SFT node's."""
    draw = random.Random(seed)
    names = ["train/entropy", "train/loss"]
    if domains:
        names += [f"rollout/{what}{d}" for what in ("reward", "length") for d in ("", *(f"/{d}" for d in domains))]
    lines = [",".join(["step", *names])]
    for step in range(steps):
        values = {
            "train/entropy": 1.2 - 0.6 * step / steps,
            "train/loss": 2 / (1 + step / 10),
            **{n: min(1, 0.3 + 0.6 * step / steps + draw.gauss(0, 0.06)) for n in names if "reward" in n},
            **{n: 30 + 10 * step / steps + draw.gauss(0, 2) for n in names if "length" in n},
        }
        # A step in which a domain had no rollout leaves its cell empty.
        lines.append(",".join([str(step), *("" if step == 3 and "/one" in n else repr(values[n]) for n in names)]))
    write_atomic(layout.training(node) / "steps.csv", "\n".join(lines) + "\n")
    write_json(layout.training(node) / "manifest.json", {"node": node, "seconds": 61.5, "tokens": 123456})


RECIPE = recipe_with_gate()


@pytest.fixture
def layout(tmp_path):
    write_atomic(tmp_path / "params.yaml", "name: miniature\n")
    return Layout(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project in which all nodes have run."""
    layout, recipe = Layout(tmp_path_factory.mktemp("finished")), RECIPE
    write_atomic(layout.params, "name: miniature\n")
    write_evaluation(layout, "sft", {"one": share(16), "two": share(30)})
    write_evaluation(layout, "rl", {"one": share(36), "two": share(20)})
    write_evaluation(layout, "mopd", {"one": share(35), "two": share(28)})
    write_training(layout, "sft", [])
    write_training(layout, "rl", ["one"], seed=1)
    write_training(layout, "mopd", ["one", "two"], seed=2)
    hostile = "<script>alert(1)</script></pre> & \u202e"
    write_jsonl(
        layout.training("rl") / "samples.jsonl",
        [
            {
                "step": 59,
                "kind": "best",
                "domain": "one",
                "prompt_id": "one-1",
                "prompt": [{"role": "user", "content": hostile}],
                "response": hostile,
                "tokens": 7,
                "finished": False,
                "reward": None,
                "failure": "timeout",
                "reason": hostile,
            }
        ],
    )
    select_teachers(recipe, "choose", layout, FileHistory(layout))
    gate(recipe, "release", layout, FileHistory(layout))
    return layout


@pytest.fixture(scope="module")
def page(finished):
    """The text of its report."""
    index = build_report(RECIPE, finished)
    assert index == finished.root / "report" / "index.html"
    return index.read_text()


def test_table_by_hand(finished):
    table = result_table(RECIPE, finished).splitlines()
    assert [cell.strip() for cell in table[0].strip("|").split("|")] == ["", "one", "two", "mean"]
    assert re.match(r"\| sft +\| +40\.0 \[\d+, \d+\] \| +75\.0\* \[\d+, \d+\] \| +57\.5 \|", table[2])
    assert re.match(r"\| rl +\| +90\.0\* ", table[3])
    assert re.match(r"\| mopd +\| +87\.5 .* \| +78\.8\* \|", table[4])
    assert len({len(line) for line in table[:5]}) == 1
    # two: (70 - 50) / (75 - 50); one: the start is its own teacher, so there is nothing to recover.
    assert "mopd: recovered 80 % of what its start lacked on the teachers (two 80 %)." in table
    assert table[-1].startswith("release: passed")


def test_table_of_a_project_in_which_little_or_nothing_has_run(layout):
    assert result_table(RECIPE, layout) == "No node has been evaluated yet."
    write_evaluation(layout, "sft", {"one": share(16)})
    row = result_table(RECIPE, layout).splitlines()[2]
    assert row.split("|")[3].strip() == "–"


def test_what_each_domain_was_given_is_the_mean_over_the_steps(finished, tmp_path):
    results = load_results(RECIPE, finished)
    series = {
        "train/gradient_share/one": [(0, 0.25), (2, 1.0)],
        "train/gradient_share/two": [(0, 0.75)],
        "train/gradient_square/one": [(0, 1.0), (2, 5.0)],
        "train/gradient_square/two": [(0, 3.0), (2, -1.0)],
        "train/reverse_kl/two": [(0, 0.5)],
        "train/reverse_kl": [(0, 9.0)],
    }
    results = replace(results, steps={**results.steps, "mopd": series})
    assert results.means_by_domain("mopd") == {
        "one": {"train/gradient_share": 0.75},
        "two": {"train/gradient_share": 0.25, "train/reverse_kl": 0.5},
    }
    assert results.means_by_domain("rl") == results.means_by_domain("sft") == {}


def test_the_page_has_what_was_measured_by_domain(page):
    table = page.partition('aria-label="mopd by domain"')[2].partition("</table>")[0]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["domain", "length"]
    assert re.findall(r'<th scope="row">(.*?)</th><td>3\d(?:\.\d)?</td>', table) == ["one", "two"]
    assert 'aria-label="rl by domain"' not in page


def test_pooled_recovery_weighs_by_what_was_lost(finished):
    recoveries = load_results(RECIPE, finished).recoveries("mopd")
    assert [(r.domain, r.teacher, r.rate) for r in recoveries] == [
        ("one", "rl", None),
        ("two", "sft", pytest.approx(0.8)),
    ]
    assert pooled_recovery(recoveries) == pytest.approx(0.8)
    assert pooled_recovery(recoveries[:1]) is None


def test_a_warm_up_is_part_of_the_distillation_that_it_warms_up(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True)
    layout = Layout(tmp_path)
    write_evaluation(layout, "first", {"one": share(36), "two": share(22)})
    write_evaluation(layout, "second", {"one": share(36), "two": share(26)})
    for node in ("first", "second"):
        write_training(layout, node, [])
    raw = RECIPE.model_dump(mode="json")
    mopd = raw["distill"]["mopd"]
    off_policy = {key: mopd[key] for key in ("round", "teachers", "mix", "prompts", "rollouts", "rollout", "optimizer")}
    off_policy |= {"epochs": 1.0, "batch": 4}
    raw["off_policy"] = {"first": off_policy | {"init": "rl"}, "second": off_policy | {"init": "first"}}
    mopd["init"] = "second"
    recipe = Recipe.model_validate(raw)
    results = load_results(recipe, layout)
    # Domain two: rl has 20 of 40, its teacher 30.
    found = {node: results.recoveries(node)[1] for node in ("first", "second", "mopd")}
    assert {node: (r.domain, r.before, r.rate) for node, r in found.items()} == {
        "first": ("two", 0.5, pytest.approx(0.2)),
        "second": ("two", 0.5, pytest.approx(0.6)),
        "mopd": ("two", 0.5, pytest.approx(0.8)),
    }
    assert "second: recovered 60 % of what its start lacked on the teachers (two 60 %)." in result_table(recipe, layout)
    page = build_report(recipe, layout).read_text()
    for node, percent in (("second", 60), ("mopd", 80)):
        assert f"{node} made good {percent} % of what its start\n(rl) lacked on its teachers" in page
    assert 'aria-label="recovery of mopd: two"' in page
    assert 'aria-label="recovery of second: two"' not in page

    # By other teachers it is a stage of its own.
    raw["teachers"]["others"] = raw["teachers"]["choose"]
    raw["off_policy"]["second"]["teachers"] = "others"
    results = load_results(Recipe.model_validate(raw), layout)
    assert results.recoveries("mopd")[1].before == 0.65


def test_a_merge_without_steps_has_its_recovery_and_no_curves(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True)
    layout = Layout(tmp_path)
    write_atomic(layout.training("mopd") / "steps.csv", "step\n")
    raw = RECIPE.model_dump(mode="json")
    raw["distill"]["mopd"] |= {"start": "merge", "steps": 0}
    page = build_report(Recipe.model_validate(raw), layout).read_text()
    assert "mopd made good 80 % of what its start" in page
    assert 'aria-label="recovery of mopd: two"' not in page


def test_steps_without_a_measurement_are_left_out(finished):
    series = read_steps(finished.training("mopd") / "steps.csv")
    assert len(series["rollout/reward/one"]) == 59
    assert len(series["rollout/reward/two"]) == 60


class Page(html.parser.HTMLParser):
    """Checks that every element is closed in order, and collects what the page would load or run."""

    VOID = ("meta", "br", "link", "img", "input", "hr", "path", "use", "rect")

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [
            v for k, v in attributes if k in ("src", "href", "xlink:href", "data") and not v.startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_loads_nothing_and_runs_nothing(page):
    parser = Page()
    parser.feed(page)
    assert parser.open == []
    assert parser.loaded == []
    assert "script" not in parser.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    "part",
    [
        "Scores by stage and domain",
        "Gate release",
        "Teachers: choose",
        "Recovery: mopd",
        "Sample rollouts",
        "The same prompts, before and after",
        "Costs",
        "Made with",
    ],
)
def test_the_page_has_every_part(page, part):
    assert part in page


def test_a_cell_opens_to_its_interval_and_its_n(page, finished):
    cell = page[page.index('aria-label="rl, one: 90.0, best of the column"') :].partition("</td>")[0]
    found = read_json(finished.evaluation("rl") / "summary.json")["domains"]["one"]
    assert f"[{100 * found['ci_low']:.1f}, {100 * found['ci_high']:.1f}]" in cell
    assert "n = 40 × 4" in cell


def test_every_table_has_headers_and_scrolls_in_a_box_that_the_keyboard_reaches(page):
    boxes = re.findall(r'<div class="scroll[^"]*" tabindex="0" role="region" aria-label="[^"]+">\s*<table', page)
    assert len(boxes) == page.count("<table") > 4
    for row in re.findall(r"<tbody>.*?</tbody>", page, re.S):
        assert row.count("<tr>") == row.count('<th scope="row">')
    assert page.count("<svg") == page.count('role="img"')


def test_every_anchor_leads_somewhere(page):
    targets = re.findall(r'<a href="#([^"]+)"', page)
    assert len(targets) > 6
    assert all(page.count(f'id="{target}"') == 1 for target in targets)


def test_costs_by_hand(finished):
    """60 steps of 5 groups of 4 rollouts, 10 tokens each, two of them with a judge's request."""
    results = load_results(RECIPE, finished)
    series = results.steps["rl"]
    series["rollout/groups"] = [(step, 5.0) for step in range(60)]
    series["rollout/length"] = [(step, 10.0) for step in range(60)]
    series["rollout/judge_requests"] = [(7, 3.0), (9, 4.0)]
    sft, rl, mopd = costs(results, finished)
    assert rl == Cost("rl", 60, 61.5, 123456, 12000, 1200, 7, 320)
    assert (sft.rollouts, sft.sampled_tokens, sft.judge_requests) == (None, None, 0)
    assert total([sft, rl, mopd]) == Cost("all", 180, 184.5, 370368, 12000, 1200, 7, 960)


def test_the_same_prompts_are_answered_by_the_first_and_the_last_of_the_line(finished):
    first, last, pairs = before_after(load_results(RECIPE, finished), finished)
    assert (first, last) == ("sft", "mopd")
    assert [pair.domain for pair in pairs] == ["one", "one", "two", "two"]
    for pair in pairs:
        assert pair.before["prompt_id"] == pair.after["prompt_id"]
        number = int(pair.prompt.removeprefix("question "))
        solved = {"one": (16, 35), "two": (30, 28)}[pair.domain]
        assert (pair.before["reward"], pair.after["reward"]) == tuple(float(number < n) for n in solved)


def test_a_long_text_keeps_both_ends():
    text = "a" * 1500 + "b" * 1234 + "c" * 1500
    assert shortened(text) == "a" * 1500 + "\n[… 1,234 characters left out …]\n" + "c" * 1500
    assert shortened("a" * 3000) == "a" * 3000


def test_the_picture_of_all_stages_has_every_panel_that_a_page_has(finished):
    results = load_results(RECIPE, finished)
    shown = [axes.get_title(loc="left") for axes in figures.all_stages(results).axes if axes.get_visible()]
    assert shown == [f"{node}: {title}" for node in results.steps for title in figures.stage_panels(results, node)]


def test_every_figure_is_on_the_page_and_in_the_journal(page, finished):
    # The graph, two recovery panels, and the training panels of sft, rl and mopd.
    assert page.count("<svg") == 1 + 2 + 2 + 3 + 3
    drawn = ["recovery_mopd.png", "scores.png"]
    assert sorted(path.name for path in (finished.root / "report" / "figures").iterdir()) == drawn
    logged = {e["path"].rpartition("/")[2] for e in Journal(finished.journal("report")).entries()}
    assert logged == {"index.html", *drawn}


@pytest.fixture
def checked(tmp_path):
    """A project with two regression checks, one of which led to a repair that is trained and evaluated."""
    layout, raw = Layout(tmp_path), recipe_with_repair().model_dump(mode="json")
    write_atomic(layout.params, "name: miniature\n")
    raw["repair"]["keep"] = {**raw["repair"]["mend"], "init": "mend", "reads_round": 3, "round": 4}
    verdict = {
        "score": 0.6,
        "best": "rl",
        "best_score": 0.9,
        "difference": -0.3,
        "bounds": [-0.4, -0.2],
        "visible_loss": 0.123,
        "prompts": 40,
        "looks": 2,
        "further_rollouts": 1500,
    }
    held = {**verdict, "passed": True, "verdict": "not regressed", "words": "0.600 against 0.610 of rl: not regressed"}
    lost = {**verdict, "passed": False, "verdict": "regressed", "words": "0.600 against 0.900 of rl: regressed"}
    found = {
        "mend": {"regressed": ["one"], "domains": {"one": lost, "two": held}, "words": "mopd falls in one"},
        "keep": {"regressed": [], "domains": {"one": held, "two": held}, "words": "mend holds"},
    }
    taught = {"mend": {"one": {"node": "rl"}, "two": {"node": "mopd"}}, "keep": {}}
    for node, decision in found.items():
        start = raw["repair"][node]["init"]
        write_json(layout.decision(node), {"candidate": start, "teachers": taught[node], **decision})
    write_evaluation(layout, "rl", {"one": share(36), "two": share(20)})
    write_evaluation(layout, "mopd", {"one": share(24), "two": share(28)})
    for node in ("mend", "keep"):
        write_evaluation(layout, node, {"one": share(33), "two": share(28)})
    write_training(layout, "mend", ["one", "two"])
    write_atomic(layout.training("keep") / "steps.csv", "step\n")
    write_json(layout.training("keep") / "manifest.json", {"node": "keep", "seconds": 0, "tokens": 0})
    return layout, Recipe.model_validate(raw)


def test_repairs_are_counted_with_what_they_recovered(checked):
    table = result_table(checked[1], checked[0]).splitlines()
    # one: (82.5 - 60) / (90 - 60); two was taught by the start itself.
    assert "mend: recovered 75 % of what its start lacked on the teachers (one 75 %)." in table
    assert table[-4:] == [
        "1 of 2 regression checks led to a repair.",
        "6,000 rollouts beyond those of the evaluations were compared to decide.",
        "mend: mopd falls in one.",
        "keep: mend holds.",
    ]


def test_a_check_is_on_the_page_whether_it_led_to_a_repair_or_not(checked):
    text = build_report(checked[1], checked[0]).read_text()
    assert "Regression check mend: repaired" in text
    assert '<td>12.3</td><td>40</td><td>1,500</td><td class="words">REGRESSED, taught by rl</td>' in text
    assert "3,000 rollouts were sampled beyond those of the evaluations." in text
    assert "Recovery: mend" in text
    assert "Regression check keep: passed on" in text
    assert "Recovery: keep" not in text
    assert "mend holds; its checkpoint is passed on unchanged." in text
    parser = Page()
    parser.feed(text)
    assert parser.open == []


def test_the_runs_page_says_what_was_repaired_by_whom(checked):
    decisions = repair_decisions(checked[1], checked[0])
    page = repair_page("mend", decisions["mend"])
    assert page.startswith("# Repair mend: one repaired\n\nmopd falls in one\n")
    assert "| one | -30.0 | -40.0 to -20.0 | 12.3 | 40 | 1,500 | rl | regressed |" in page
    assert "3,000 rollouts beyond those of the evaluations." in page
    assert page.endswith("Taught: one by rl, two by mopd.")
    assert repair_page("keep", decisions["keep"]).startswith("# Repair keep: no regression, passed on")
    assert "Taught" not in repair_page("keep", decisions["keep"])


def test_equal_results_are_equal_bytes(page, finished, tmp_path):
    assert build_report(RECIPE, finished, tmp_path).read_text() == page
    for file in ("scores.png", "recovery_mopd.png"):
        again, first = tmp_path / "figures" / file, finished.root / "report" / "figures" / file
        assert again.read_bytes() == first.read_bytes()


def test_a_page_of_a_project_in_which_nothing_has_run(layout):
    text = build_report(RECIPE, layout).read_text()
    assert "No node has been evaluated yet" in text
    assert "Costs" not in text


def test_a_page_between_two_stages(layout):
    """SFT is evaluated, RL trained but not evaluated, no decision taken."""
    write_evaluation(layout, "sft", {"one": share(16), "two": share(30)})
    write_training(layout, "rl", ["one"])
    text = build_report(RECIPE, layout).read_text()
    assert "Gate release" not in text
    assert "Recovery" not in text
