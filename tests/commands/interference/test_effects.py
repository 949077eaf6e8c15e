"""The matrix from results by prompt: signs, significance over the whole matrix, the minimum effect."""

import pytest

from cascade.commands.interference.effects import Effect, effects, harms_of
from cascade.errors import CascadeError
from cascade.evaluation.results import EvaluationResult, PromptResult

DOMAINS = ["one", "two"]


def result(node: str, **solved: int) -> EvaluationResult:
    """Of 40 prompts a domain, the first `solved` are always solved and the others never."""
    return EvaluationResult(
        node,
        f"hash of {node}",
        {d: [PromptResult(f"{d}-{i}", 4, 4 * (i < n), float(i < n)) for i in range(40)] for d, n in solved.items()},
    )


def test_losses_and_gains_are_found_and_told_apart() -> None:
    start = result("sft", one=20, two=20)
    found = effects(start, {"one": result("a", one=36, two=6), "two": result("b", one=20, two=21)}, DOMAINS, seed=0)
    assert [(e.trained, e.evaluated, e.verdict) for e in found] == [
        ("one", "one", "helps"),
        ("one", "two", "hurts"),
        ("two", "one", "none"),
        ("two", "two", "none"),
    ]
    assert found[1].difference == pytest.approx(-14 / 40)
    assert (found[1].start, found[1].after) == (0.5, 0.15)
    assert found[1].low < found[1].difference < found[1].high < 0
    assert harms_of(found) == {"one": {"two": pytest.approx(14 / 40)}}


def test_a_domain_that_lost_by_its_own_training_hurts_no_other() -> None:
    start = result("sft", one=30, two=20)
    assert harms_of(effects(start, {"one": result("a", one=5, two=20)}, DOMAINS, seed=0)) == {}


def test_what_is_significant_but_small_counts_for_nothing() -> None:
    small = {"start": 0.5, "after": 0.485, "difference": -0.015, "low": -0.02, "high": -0.01, "prompts": 40}
    assert Effect("one", "two", p_worse=0.001, p_better=1.0, **small).verdict == "none"


def test_chance_is_shared_by_all_cells() -> None:
    """Five prompts lost of forty: p 1/32 alone, which is nothing among four cells."""
    start = result("sft", one=20, two=20)
    after = {"one": result("a", one=20, two=15), "two": result("b", one=20, two=20)}
    lost = effects(start, after, DOMAINS, seed=0)[1]
    assert lost.p_worse == pytest.approx(4 / 32, abs=0.02)
    assert lost.verdict == "none"


def test_results_of_other_prompts_are_refused() -> None:
    other = EvaluationResult("b", "h", {d: [PromptResult(f"x-{i}", 4, 4, 1.0) for i in range(40)] for d in DOMAINS})
    with pytest.raises(CascadeError, match="share 0 benchmark prompts"):
        effects(result("sft", one=20, two=20), {"one": other}, DOMAINS, seed=0)
