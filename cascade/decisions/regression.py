"""A checkpoint compared with the best earlier one, domain by domain: the test behind gates and regression checks.

The best earlier checkpoint of a domain is chosen by one half of its benchmark's prompts and tested on the other half,
so that its luck in being chosen is no part of the test. Domains that this leaves undecided are evaluated further, in
rounds (docs/algorithms.md, "Regression checks").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cascade.decisions.outcomes import further_rollouts
from cascade.errors import CascadeError
from cascade.evaluation.further import FurtherRollouts, Sample
from cascade.evaluation.results import EvaluationResult, PromptResult
from cascade.evaluation.sequential import (
    HELD,
    HELD_SPENDING,
    REGRESSED,
    REGRESSED_SPENDING,
    UNDECIDED,
    Bounds,
    Floats,
    Size,
    affordable_looks,
    boundaries,
    bounds,
    fractions,
    is_excluded,
    is_shown,
    series,
    smallest_visible_loss,
)
from cascade.evaluation.statistics import PairedTest, paired_test
from cascade.layout import Layout
from cascade.recipe import Comparison, Recipe
from cascade.utils.seeds import derive_seed

MIN_SHARED = 0.9
"""Share of a benchmark's prompts that both checkpoints must have results for; a few may lack a verdict."""

_ROUNDING = 1e-9
"""Tolerance of budgets, which are sums of fractions."""


class Further(Protocol):
    """Where further rollouts come from (`FurtherRollouts`)."""

    def prompts(self, domain: str) -> list[str]: ...

    def sample(self, samples: list[Sample]) -> None: ...

    def results(self, node: str, domain: str) -> list[PromptResult]: ...

    def count(self, node: str, domain: str) -> int: ...


@dataclass
class _Test:
    """The test of one domain, at its latest look."""

    domain: str
    candidate: EvaluationResult
    reference: EvaluationResult
    benchmark: list[str]
    """The tested prompts of the benchmark."""
    held_out: list[str]
    sizes: list[Size]
    prompts: int
    """Of the whole benchmark."""
    look: int = 0
    bounds: Bounds | None = None
    count: int = 0
    """Prompts with a difference."""
    verdict: str = UNDECIDED
    sampled: set[tuple[str, int]] = field(default_factory=set)
    """(prompt, pass) pairs that further rollouts were asked for."""

    @property
    def mean(self) -> float:
        assert self.bounds is not None
        return float(self.bounds.mean)

    def cost(self, look: int | None = None) -> float:
        """Further rollouts up to the next look, or up to a given one, as a multiple of those of the domain's
        evaluation."""
        look = self.look + 1 if look is None else look
        now, then = (
            (len(self.benchmark) + size.held_out) * size.passes for size in (self.sizes[self.look], self.sizes[look])
        )
        return (then - now) / self.prompts


def compare_with_best(
    recipe: Recipe,
    rules: Comparison,
    candidate: str,
    results: dict[str, EvaluationResult],
    further: Further,
) -> dict[str, dict[str, Any]]:
    """Domain → the comparison of `candidate` with the best of `rules.against`, and the verdict.

    A domain has not regressed where a loss of the margin or more is excluded, regressed where a loss is shown, and is
    undecided otherwise (`sequential`); the error rates hold over all looks. `significance` holds for all domains
    together, by equal parts (Bonferroni). Undecided domains go to their next look in rounds (`_next`), until the budget
    is spent. Among equals the earlier in the cascade is the best. `results` are of `candidate` and all of
    `rules.against`. `measured` is false where no result of the candidate could have been a regression of this domain.
    Raises CascadeError where the results are of other prompts.
    """
    tests = [_opened(recipe, rules, domain, candidate, results, further) for domain in recipe.domains]
    for test in tests:
        _look(test, recipe, rules, further)
    left = rules.budget * len(tests)
    while chosen := _next(tests, left):
        left -= sum(test.cost() for test in chosen)
        further.sample([sample for test in chosen for sample in _advanced(test)])
        for test in chosen:
            _look(test, recipe, rules, further)
    return {test.domain: _verdict(test, rules, recipe, further) for test in tests}


def sampled_comparison(
    recipe: Recipe, rules: Comparison, candidate: str, results: dict[str, EvaluationResult], layout: Layout, out: Path
) -> dict[str, dict[str, Any]]:
    """`compare_with_best` with further rollouts of the checkpoints under models/, written to the file `out`."""
    with FurtherRollouts(recipe, layout, {n: r.checkpoint for n, r in results.items()}) as further:
        domains = compare_with_best(recipe, rules, candidate, results, further)
        further.write(out)
    return domains


def unmeasured_domains(domains: dict[str, dict[str, Any]]) -> list[str]:
    """The domains of which the comparison says nothing."""
    return [domain for domain, verdict in domains.items() if not verdict["measured"]]


def regressed_domains(domains: dict[str, dict[str, Any]]) -> list[str]:
    """The domains that did not pass."""
    return [domain for domain, verdict in domains.items() if not verdict["passed"]]


def conclusion(candidate: str, domains: dict[str, dict[str, Any]]) -> str:
    undecided = [d for d, verdict in domains.items() if verdict["verdict"] == UNDECIDED and verdict["measured"]]
    open_ends = f"; undecided: {', '.join(undecided)}" if undecided else ""
    if regressions := regressed_domains(domains):
        return f"{candidate} falls below the best earlier checkpoint in {', '.join(regressions)}{open_ends}"
    unmeasured = unmeasured_domains(domains)
    why = "too few benchmark prompts for which a checkpoint gets a reward"
    if len(unmeasured) == len(domains):
        return f"nothing is measured of {candidate}: in every domain {why}"
    unknown = f"; nothing is measured in {', '.join(unmeasured)}: {why}" if unmeasured else ""
    return f"{candidate} falls in no domain below the best earlier checkpoint{open_ends}{unknown}"


def comparison_metrics(domains: dict[str, dict[str, Any]], prefix: str) -> dict[str, float]:
    """The comparison's numbers as metrics of the node: PREFIX/DOMAIN/NUMBER, and PREFIX/further_rollouts."""
    keys = ("score", "best_score", "difference", "visible_loss", "prompts", "looks", "further_rollouts")
    numbers = {f"{prefix}/{domain}/{key}": verdict[key] for domain, verdict in domains.items() for key in keys}
    for end, name in enumerate(("lower", "upper")):
        numbers |= {f"{prefix}/{domain}/{name}": verdict["bounds"][end] for domain, verdict in domains.items()}
    return {**numbers, f"{prefix}/further_rollouts": further_rollouts(domains)}


def paired_on_shared(
    domain: str, candidate: EvaluationResult, reference: EvaluationResult, *seed_keys: int | str
) -> PairedTest:
    """The paired test on the domain's prompts that both have results for. Raises CascadeError where too few are."""
    candidate_rewards = {r.prompt_id: r.reward for r in candidate.of(domain)}
    reference_rewards = {r.prompt_id: r.reward for r in reference.of(domain)}
    shared = shared_prompts(domain, candidate, reference)
    return paired_test(
        [candidate_rewards[p] for p in shared], [reference_rewards[p] for p in shared], *seed_keys, domain
    )


def shared_prompts(domain: str, candidate: EvaluationResult, reference: EvaluationResult) -> list[str]:
    """The domain's prompts that both have results for, in the candidate's order. Raises CascadeError where too few
    are."""
    ours, theirs = ([r.prompt_id for r in e.of(domain)] for e in (candidate, reference))
    known = set(theirs)
    shared = [prompt for prompt in ours if prompt in known]
    if len(shared) < max(2, MIN_SHARED * max(len(ours), len(theirs))):
        raise CascadeError(
            f"{domain}: {candidate.node} and {reference.node} share {len(shared)} benchmark prompts of "
            f"{len(ours)} and {len(theirs)}; evaluate both again (`cascade evaluate NODE`)"
        )
    return shared


def halves(domain: str, seed: int, results: Sequence[EvaluationResult]) -> tuple[set[str], set[str]]:
    """The benchmark's prompts that the best earlier checkpoint is chosen by, and those that it is tested on: the same
    in every comparison."""
    prompts = {r.prompt_id for result in results for r in result.of(domain)}
    ordered = sorted(prompts, key=lambda prompt: (derive_seed(seed, "comparison", domain, prompt), prompt))
    half = len(ordered) // 2
    return set(ordered[:half]), set(ordered[half:])


def _opened(
    recipe: Recipe,
    rules: Comparison,
    domain: str,
    candidate: str,
    results: dict[str, EvaluationResult],
    further: Further,
) -> _Test:
    order = [earlier for earlier in recipe.training if earlier in rules.against]
    choosing, testing = halves(domain, recipe.seed, [results[node] for node in (candidate, *order)])

    def score(node: str) -> float:
        rewards = [r.reward for r in results[node].of(domain) if r.prompt_id in choosing]
        return sum(rewards) / len(rewards) if rewards else float("-inf")

    reference = results[max(order, key=score)]
    shared = shared_prompts(domain, results[candidate], reference)
    tested = [prompt for prompt in shared if prompt in testing]
    pool = further.prompts(domain)
    prompts = len(results[candidate].of(domain))
    looks = affordable_looks(rules.budget * len(recipe.domains) * prompts / max(1, len(tested)))
    if not tested:
        raise CascadeError(
            f"{domain}: {candidate} and {reference.node} share none of the prompts that are tested; "
            "evaluate both again (`cascade evaluate NODE`)"
        )
    return _Test(domain, results[candidate], reference, tested, pool, series(len(tested), len(pool), looks), prompts)


def _next(tests: list[_Test], left: float) -> list[_Test]:
    """The domains that go to their next look together; none where nothing is undecided or the budget is spent.

    The one with the largest loss so far; and of the half with the largest losses, as many as leave enough of the budget
    for its last look.
    """
    waiting = sorted((t for t in tests if t.verdict == UNDECIDED and t.look + 1 < len(t.sizes)), key=lambda t: t.mean)
    affordable = [test for test in waiting if test.cost() <= left + _ROUNDING]
    if not affordable:
        return []
    chosen = affordable[:1]
    left -= chosen[0].cost(len(chosen[0].sizes) - 1)
    for test in affordable[1:]:
        if 2 * len(chosen) < len(waiting) and test.cost() <= left + _ROUNDING:
            left -= test.cost()
            chosen.append(test)
    return chosen


def _advanced(test: _Test) -> list[Sample]:
    """Move on to the next look; what it needs of both checkpoints beyond what they have."""
    test.look += 1
    size = test.sizes[test.look]
    samples = []
    for number in range(size.passes):
        old = test.benchmark if number else []  # Pass 0 over the benchmark is the evaluation.
        wanted = [p for p in (*old, *test.held_out[: size.held_out]) if (p, number) not in test.sampled]
        test.sampled.update((prompt, number) for prompt in wanted)
        if wanted:
            samples += [
                Sample(result.node, test.domain, tuple(wanted), number) for result in (test.candidate, test.reference)
            ]
    return samples


def _look(test: _Test, recipe: Recipe, rules: Comparison, further: Further) -> None:
    """Compute the bounds and the verdict of the present look."""
    ours, theirs = _paired(test, further)
    differences = ours - theirs
    shares = fractions(len(test.benchmark), test.sizes)
    upper = boundaries(shares, rules.significance / len(recipe.domains), REGRESSED_SPENDING)[test.look]
    lower = boundaries(shares, rules.miss_rate, HELD_SPENDING)[test.look]
    test.bounds = _bounds(differences, upper, lower)
    test.count = len(ours)
    if is_excluded(test.bounds, rules.margin) or test.candidate.checkpoint == test.reference.checkpoint:
        test.verdict = HELD
    elif is_shown(test.bounds, rules.minimum_effect):
        test.verdict = REGRESSED


def _bounds(differences: Floats, upper: float, lower: float) -> Bounds:
    """Of a single prompt, the range of what is possible."""
    if len(differences) < 2:
        mean, one = np.asarray(differences.mean()), np.asarray(1.0)
        return Bounds(mean, one, one, -one, 1.0)
    return bounds(len(differences), float(differences.sum()), float((differences**2).sum()), upper, lower)


def _paired(test: _Test, further: Further) -> tuple[Floats, Floats]:
    """[prompts]: mean rewards of candidate and reference on the tested prompts that both have results for."""
    ours, theirs = (_rewards(test, result, further) for result in (test.candidate, test.reference))
    prompts = [prompt for prompt in ours if prompt in theirs]
    return np.array([ours[prompt] for prompt in prompts]), np.array([theirs[prompt] for prompt in prompts])


def _rewards(test: _Test, result: EvaluationResult, further: Further) -> dict[str, float]:
    """Tested prompt → mean reward of all its rollouts."""
    tested = set(test.benchmark)
    totals: dict[str, tuple[float, int]] = {}
    of_benchmark = [r for r in result.of(test.domain) if r.prompt_id in tested]
    for r in (*of_benchmark, *further.results(result.node, test.domain)):
        total, count = totals.get(r.prompt_id, (0.0, 0))
        totals[r.prompt_id] = (total + r.reward * r.rollouts, count + r.rollouts)
    return {prompt: total / count for prompt, (total, count) in totals.items()}


def _is_measured(test: _Test, rules: Comparison, recipe: Recipe, further: Further) -> bool:
    """Whether a candidate that loses all of the reference's rewards would be found to have regressed, were this the
    only look."""
    drops = -_paired(test, further)[1]
    (boundary,) = boundaries((1.0,), rules.significance / len(recipe.domains), REGRESSED_SPENDING)
    return bool(is_shown(_bounds(drops, boundary, 0.0), rules.minimum_effect))


def _verdict(test: _Test, rules: Comparison, recipe: Recipe, further: Further) -> dict[str, Any]:
    assert test.bounds is not None
    score, best = test.candidate.score(test.domain), test.reference.score(test.domain)
    low, high = float(test.bounds.lower), float(test.bounds.upper)
    # Of what has not regressed, the smallest loss that is excluded; otherwise the one that would have been found.
    visible = (
        max(0.0, -low)
        if test.verdict == HELD
        else min(1.0, float(smallest_visible_loss(test.bounds, rules.minimum_effect, rules.miss_rate)))
    )
    measured = _is_measured(test, rules, recipe, further)
    unknown = "" if measured else " (nothing is measured: no loss could have been found)"
    return {
        "passed": test.verdict != REGRESSED,
        "verdict": test.verdict,
        "measured": measured,
        "score": score,
        "best": test.reference.node,
        "best_score": best,
        "difference": test.mean,
        "bounds": [low, high],
        "visible_loss": float(visible),
        "prompts": test.count,
        "looks": test.look + 1,
        "further_rollouts": sum(further.count(r.node, test.domain) for r in (test.candidate, test.reference)),
        "words": f"{score:.3f} against {best:.3f} of {test.reference.node}; on the {test.count} tested prompts "
        f"{test.mean:+.3f} [{low:+.3f}, {high:+.3f}], smallest visible loss {visible:.3f}: {test.verdict}{unknown}",
    }
