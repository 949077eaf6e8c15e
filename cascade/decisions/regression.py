"""A checkpoint against the best earlier one, domain by domain: what the gate and the regression checks decide by."""

from typing import Any

from cascade.errors import CascadeError
from cascade.evaluation.results import EvaluationResult
from cascade.evaluation.statistics import PairedTest, holm, paired_test
from cascade.recipe import Comparison, Recipe

MIN_SHARED = 0.9
"""Share of a benchmark's prompts that both checkpoints must have results for; verdicts fail for a few."""


def compare_with_best(
    recipe: Recipe, name: str, rules: Comparison, candidate: str, results: dict[str, EvaluationResult]
) -> dict[str, dict[str, Any]]:
    """Domain → what the paired test found between `candidate` and the best of `rules.against`, and the conclusion.

    A domain has regressed (`passed` is false) where the test on the same prompts rejects "not worse" at the
    recipe's significance and the drop reaches its minimum effect. Significance holds for all domains together
    (Holm): with six domains tested at 5 % each, one comparison in four would find a loss where there is none.
    Among equals the earlier in the cascade is the best. `results` are of `candidate` and all of `rules.against`;
    `name` is the node that asks, and seeds the test. Raises CascadeError where the results are of other prompts.
    """
    order = [earlier for earlier in recipe.training if earlier in rules.against]
    ours = results[candidate]
    best = {d: results[max(order, key=lambda n: results[n].score(d))] for d in recipe.domains}
    tests = {d: paired_on_shared(d, ours, best[d], recipe.seed, name) for d in recipe.domains}
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return {d: _verdict(rules, d, ours, best[d], test, adjusted[d]) for d, test in tests.items()}


def regressed(domains: dict[str, dict[str, Any]]) -> list[str]:
    """The domains that did not pass."""
    return [domain for domain, verdict in domains.items() if not verdict["passed"]]


def conclusion(candidate: str, domains: dict[str, dict[str, Any]]) -> str:
    if found := regressed(domains):
        return f"{candidate} falls significantly below the best earlier checkpoint in {', '.join(found)}"
    return f"{candidate} is in no domain significantly below the best earlier checkpoint"


def measured(domains: dict[str, dict[str, Any]], prefix: str) -> dict[str, float]:
    """The comparison's numbers as metrics of the node: PREFIX/DOMAIN/NUMBER."""
    keys = ("score", "best_score", "difference", "p_value", "p_adjusted")
    return {f"{prefix}/{domain}/{key}": verdict[key] for domain, verdict in domains.items() for key in keys}


def paired_on_shared(
    domain: str, candidate: EvaluationResult, reference: EvaluationResult, *seed_keys: int | str
) -> PairedTest:
    """The paired test on a domain's prompts that both have results for. Raises CascadeError where those are few."""
    ours = {r.prompt_id: r.reward for r in candidate.of(domain)}
    theirs = {r.prompt_id: r.reward for r in reference.of(domain)}
    shared = [prompt for prompt in ours if prompt in theirs]
    if len(shared) < max(2, MIN_SHARED * max(len(ours), len(theirs))):
        raise CascadeError(
            f"{domain}: {candidate.node} and {reference.node} share {len(shared)} benchmark prompts of {len(ours)} and "
            f"{len(theirs)}; evaluate both anew (`cascade evaluate NODE`)"
        )
    return paired_test([ours[p] for p in shared], [theirs[p] for p in shared], *seed_keys, domain)


def _verdict(
    rules: Comparison,
    domain: str,
    candidate: EvaluationResult,
    reference: EvaluationResult,
    test: PairedTest,
    adjusted: float,
) -> dict[str, Any]:
    significant = adjusted <= rules.significance
    worse = significant and test.difference <= -rules.minimum_effect
    if worse:
        found = "a regression"
    elif significant:
        found = f"significant, but smaller than the minimum effect {rules.minimum_effect:g}"
    else:
        found = "no significant regression"
    return {
        "passed": not worse,
        "score": candidate.score(domain),
        "best": reference.node,
        "best_score": reference.score(domain),
        "difference": test.difference,
        "ci": [test.interval.low, test.interval.high],
        "p_value": test.p_value,
        "p_adjusted": adjusted,
        "prompts": test.prompts,
        "words": f"{candidate.score(domain):.3f} against {reference.score(domain):.3f} of {reference.node}: "
        f"{test.difference:+.3f} [{test.interval.low:+.3f}, {test.interval.high:+.3f}], "
        f"p {adjusted:.3f}: {found}",
    }
