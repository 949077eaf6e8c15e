"""Solve nodes in the recipe: what is refused, and what they will take."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cascade import cli
from cascade.errors import RecipeError
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from cascade.recipe.sections import Budget, GenerateSelectSubmit, GenerateVerifyRefine, SolveNode
from cascade.test_time.plan import active_parameters, estimate, table
from cascade.test_time.search import Plan, round_sizes
from tests.test_time.project import SOLVE, content

ROOT = Path(__file__).parents[2]
PAPER = load(ROOT / "recipes" / "nemotron-cascade-2-30b-a3b.yaml")


def recipe(**changed) -> Recipe:
    """The small recipe with one solve node, some of its keys changed."""
    node = {**SOLVE["proofs_search"], **changed}
    return Recipe.model_validate(content(solve={"search": node}))


def test_its_place_in_the_graph():
    found = recipe(init="sft", others=["base"], verifiers=["sft", "base"])
    assert found.parents("search") == ["sft"]
    assert list(found.ordered()) == ["sft", "search"]
    assert found.kind("search") == "solve"
    assert "search" not in found.training
    assert found.awaited("search") == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"init": "rl"}, r"solve.search.init: no such node 'rl'; have base, sft"),
        ({"others": ["sft"]}, r"solve.search.others: 'sft' is not upstream of 'base', so DVC would not see it change"),
        ({"verifiers": ["nobody"]}, r"solve.search.verifiers: no such node 'nobody'"),
        ({"benchmark": "math"}, r"solve.search.benchmark: 'math' is no domain with a benchmark; there are proofs"),
        (
            {"strategy": {"name": "generate-select-submit"}},
            r"needs problems with subtasks, and the rows of proofs are of",
        ),
        ({"budget": {"submissions": 3}}, r"solve.search.budget.submissions: generate-verify-refine submits nothing"),
    ],
)
def test_what_is_refused(changed, message):
    with pytest.raises(RecipeError, match=message):
        recipe(**changed)


def test_a_wrong_key_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    bad = {**SOLVE["proofs_search"], "strategy": {"name": "generate-verify-refine", "candidate": 3}}
    path.write_text(yaml.safe_dump(content(solve={"search": bad})))
    with pytest.raises(RecipeError, match=r"solve\.search\.strategy\.candidate: unknown key; did you mean candidates"):
        load(path)


def test_a_benchmark_for_solve_nodes_alone_is_not_evaluated():
    changed = content()
    changed["curation"]["sources"]["proofs"]["evaluated"] = False
    found = Recipe.model_validate(changed)
    assert found.domains == ["competition"]
    assert found.solve["proofs_search"].benchmark == "proofs"


def test_the_paper_has_its_numbers():
    imo, ioi = PAPER.solve["imo"].strategy, PAPER.solve["ioi"].strategy
    assert isinstance(imo, GenerateVerifyRefine)
    assert isinstance(ioi, GenerateSelectSubmit)
    assert imo == GenerateVerifyRefine(name="generate-verify-refine")
    assert ioi == GenerateSelectSubmit(name="generate-select-submit")
    assert (imo.candidates, imo.verifications, imo.keep, imo.critiques, imo.refinements) == (128, 64, 32, 8, 4)
    assert (imo.rounds, imo.accept, imo.grades, ioi.rounds, ioi.candidates) == (8, 0.99999, 64, 50, 40)
    assert PAPER.judges.proof is not None
    assert "imo" not in PAPER.domains


def test_what_the_papers_search_takes():
    """Eight rounds of 128 proofs with 64 verifications each, and 64 grades, of six problems."""
    node = PAPER.solve["imo"]
    found = estimate(node, 6, 5, 3_200_000_000)
    assert found.generations == 6 * (8 * 128 * 65 + 64)
    assert found.tokens == found.generations * 262144
    assert found.gpu_hours == pytest.approx(found.tokens * 2 * 3.2e9 / (989e12 * 0.1) / 3600)
    ioi = estimate(PAPER.solve["ioi"], 6, 5, 3_200_000_000)
    assert (ioi.generations, ioi.submissions) == (6 * 5000, 6 * 50)


def test_the_rounds_of_a_plan():
    small = GenerateVerifyRefine(
        name="generate-verify-refine", candidates=4, verifications=4, keep=2, refinements=3, rounds=3
    )
    assert round_sizes(small, 1) == [20, 50, 80]
    assert round_sizes(small, 2) == [40, 100, 160]
    assert Plan(small, Budget(), 10, (0,), (0,)).most_generations(1) == 80
    assert Plan(small, Budget(generations=60), 10, (0,), (0,)).most_generations(1) == 60
    submit = GenerateSelectSubmit(name="generate-select-submit", rounds=2, candidates=3)
    assert Plan(submit, Budget(), 10, (0,), (0,)).most_generations(4) == 24


def test_only_the_experts_that_a_token_passes_count():
    class Shape:
        parameters, all_experts = 1000, 800

    assert active_parameters(Shape(), 2, 16) == 300  # type: ignore[arg-type]
    assert active_parameters(Shape(), 0, 0) == 1000  # type: ignore[arg-type]


def test_plain_samples_cost_as_much_again_and_the_budget_is_kept():
    node = SolveNode.model_validate({**SOLVE["competition_search"], "budget": {"generations": 5, "tokens": 1000}})
    found = estimate(node, 10, 2, 1)
    assert (found.generations, found.tokens, found.submissions) == (2 * 50, 2 * 10 * 300, 10 * 4)


def test_the_plan_is_printed_with_the_memory():
    told = CliRunner().invoke(cli.main, ["recipe", "plan", "nemotron-cascade-2-30b-a3b"], catch_exceptions=False).output
    assert "399,744" in told
    assert "GPU hours" in told
    nano = table(load(ROOT / "recipes" / "nano.yaml"), Layout(ROOT))
    assert nano == []
