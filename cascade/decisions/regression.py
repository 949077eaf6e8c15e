"""A checkpoint compared with the best earlier one, domain by domain: the test behind gates and regression checks."""

from typing import Any

from cascade.errors import CascadeError
from cascade.evaluation.results import EvaluationResult
from cascade.evaluation.statistics import PairedTest, holm, paired_test
from cascade.recipe import Comparison, Recipe

MIN_SHARED = 0.9
"""Share of a benchmark's prompts that both checkpoints must have results for; a few may lack a verdict."""


def compare_with_best(
    recipe: Recipe, name: str, rules: Comparison, candidate: str, results: dict[str, EvaluationResult]
) -> dict[str, dict[str, Any]]:
    """Domain → the paired test of `candidate` against the best of `rules.against`, and the conclusion.

    A domain has regressed (`passed` is false) where the test on the same prompts rejects "not worse" at the
    recipe's significance and the drop reaches its minimum effect. Significance holds for all domains together
    (Holm): with ten domains tested at 5 % each, two comparisons in five would find a loss where there is none.
    Among equals the earlier in the cascade is the best. `results` are of `candidate` and all of `rules.against`;
    `name`, the deciding node, seeds the test. `measured` is false where no result of the candidate could have been a
    regression of this domain: nothing is known of it. Raises CascadeError where the results are of other prompts.
    """
    order = [earlier for earlier in recipe.training if earlier in rules.against]
    candidate_result = results[candidate]
    best = {d: results[max(order, key=lambda n: results[n].score(d))] for d in recipe.domains}
    tests = {d: paired_on_shared(d, candidate_result, best[d], recipe.seed, name) for d in recipe.domains}
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return {
        d: _verdict(rules, d, candidate_result, best[d], test, adjusted[d], could_fall(rules, d, best[d], len(tests)))
        for d, test in tests.items()
    }


def could_fall(rules: Comparison, domain: str, reference: EvaluationResult, domains: int) -> bool:
    """Whether a candidate that loses all of the reference's rewards would be found to have regressed: the p-value of
    the sign-flip test is then 2^-n, n the prompts with a reward, times the number of domains by Holm's correction."""
    rewarded = sum(result.reward > 0 for result in reference.of(domain))
    return domains * 0.5**rewarded <= rules.significance and reference.score(domain) >= rules.minimum_effect


def unmeasured_domains(domains: dict[str, dict[str, Any]]) -> list[str]:
    """The domains of which the comparison says nothing."""
    return [domain for domain, verdict in domains.items() if not verdict["measured"]]


def regressed_domains(domains: dict[str, dict[str, Any]]) -> list[str]:
    """The domains that did not pass."""
    return [domain for domain, verdict in domains.items() if not verdict["passed"]]


def conclusion(candidate: str, domains: dict[str, dict[str, Any]]) -> str:
    if regressions := regressed_domains(domains):
        return f"{candidate} falls significantly below the best earlier checkpoint in {', '.join(regressions)}"
    unmeasured = unmeasured_domains(domains)
    why = "too few benchmark prompts for which a checkpoint gets a reward"
    if len(unmeasured) == len(domains):
        return f"nothing is measured of {candidate}: in every domain {why}"
    unknown = f"; nothing is measured in {', '.join(unmeasured)}: {why}" if unmeasured else ""
    return f"{candidate} is in no domain significantly below the best earlier checkpoint{unknown}"


def comparison_metrics(domains: dict[str, dict[str, Any]], prefix: str) -> dict[str, float]:
    """The comparison's numbers as metrics of the node: PREFIX/DOMAIN/NUMBER."""
    keys = ("score", "best_score", "difference", "p_value", "p_adjusted")
    return {f"{prefix}/{domain}/{key}": verdict[key] for domain, verdict in domains.items() for key in keys}


def paired_on_shared(
    domain: str, candidate: EvaluationResult, reference: EvaluationResult, *seed_keys: int | str
) -> PairedTest:
    """The paired test on the domain's prompts that both have results for. Raises CascadeError where too few are."""
    candidate_rewards = {r.prompt_id: r.reward for r in candidate.of(domain)}
    reference_rewards = {r.prompt_id: r.reward for r in reference.of(domain)}
    shared = [prompt for prompt in candidate_rewards if prompt in reference_rewards]
    if len(shared) < max(2, MIN_SHARED * max(len(candidate_rewards), len(reference_rewards))):
        raise CascadeError(
            f"{domain}: {candidate.node} and {reference.node} share {len(shared)} benchmark prompts of "
            f"{len(candidate_rewards)} and {len(reference_rewards)}; evaluate both again (`cascade evaluate NODE`)"
        )
    return paired_test(
        [candidate_rewards[p] for p in shared], [reference_rewards[p] for p in shared], *seed_keys, domain
    )


def _verdict(
    rules: Comparison,
    domain: str,
    candidate: EvaluationResult,
    reference: EvaluationResult,
    test: PairedTest,
    adjusted: float,
    measured: bool,
) -> dict[str, Any]:
    significant = adjusted <= rules.significance
    worse = significant and test.difference <= -rules.minimum_effect
    if worse:
        result = "a regression"
    elif not measured:
        result = "nothing is measured, no drop could have been significant"
    elif significant:
        result = f"significant, but smaller than the minimum effect {rules.minimum_effect:g}"
    else:
        result = "no significant regression"
    return {
        "passed": not worse,
        "measured": measured,
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
        f"p {adjusted:.3f}: {result}",
    }
