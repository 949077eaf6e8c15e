"""The gate: a candidate passes unless it is significantly below the best earlier checkpoint in some domain."""

from typing import Any

from cascade.errors import CascadeError
from cascade.evaluation.history import History, as_read, open_history, read_results
from cascade.evaluation.results import EvaluationResult
from cascade.evaluation.statistics import PairedTest, holm, paired_test
from cascade.files import read_json, write_json
from cascade.layout import Layout
from cascade.progress import say
from cascade.recipe import DistillNode, GateNode, Recipe, recipe_hash
from cascade.tracking import Journal
from cascade.tracking.store import dvc_hashes, git_revision
from cascade.training.checkpoint import fingerprint

MIN_SHARED = 0.9
"""Share of a benchmark's prompts that both checkpoints must have results for; verdicts fail for a few."""


def gate(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Compare the candidate with the best earlier checkpoint, domain by domain, and write the decision.

    A domain fails where the paired test on the same prompts rejects "not worse" at the recipe's significance and
    the drop reaches its minimum effect. Significance holds for the gate as a whole (Holm over the domains): with
    six domains tested at 5 % each, one gate in four would stop a model that lost nothing.

    A failed gate is a result, not an error: `passed` is false and nothing is registered. What passed is entered in
    the journal, with its lineage, and from there in MLflow's model registry under the recipe's name and alias.
    Raises CascadeError where results are missing or are of other prompts.
    """
    node = recipe.gate[name]
    history = history or open_history(recipe, layout)
    order = [earlier for earlier in recipe.training if earlier in node.against]
    results = read_results([*order, node.candidate], layout, history)
    candidate = results[node.candidate]
    best = {d: max(order, key=lambda n: results[n].score(d)) for d in recipe.domains}
    tests = {d: _compare(d, candidate, results[best[d]], recipe.seed, name) for d in recipe.domains}
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    domains = {
        domain: _verdict(node, domain, candidate, results[best[domain]], test, adjusted[domain])
        for domain, test in tests.items()
    }
    failed = [domain for domain, verdict in domains.items() if not verdict["passed"]]
    decision = {
        "passed": not failed,
        "candidate": node.candidate,
        "checkpoint": candidate.checkpoint,
        "words": f"{node.candidate} falls significantly below the best earlier checkpoint in {', '.join(failed)}"
        if failed
        else f"{node.candidate} is in no domain significantly below the best earlier checkpoint",
        "domains": domains,
        "table": {n: {d: results[n].score(d) for d in recipe.domains} for n in results},
        "read": as_read(results),
    }
    write_json(layout.decision(name), decision)
    _record(recipe, name, layout, decision, history)
    say(f"{name}: {'PASSED' if decision['passed'] else 'FAILED'}: {decision['words']} (from {history.source})")
    for domain, verdict in domains.items():
        say(f"  {domain}: {verdict['words']}")
    return decision


def _compare(domain: str, candidate: EvaluationResult, reference: EvaluationResult, seed: int, name: str) -> PairedTest:
    ours = {r.prompt_id: r.reward for r in candidate.of(domain)}
    theirs = {r.prompt_id: r.reward for r in reference.of(domain)}
    shared = [prompt for prompt in ours if prompt in theirs]
    if len(shared) < max(2, MIN_SHARED * max(len(ours), len(theirs))):
        raise CascadeError(
            f"{domain}: {candidate.node} and {reference.node} share {len(shared)} benchmark prompts of {len(ours)} and "
            f"{len(theirs)}; evaluate both anew (`cascade evaluate NODE`)"
        )
    return paired_test([ours[p] for p in shared], [theirs[p] for p in shared], seed, name, domain)


def _verdict(
    node: GateNode,
    domain: str,
    candidate: EvaluationResult,
    reference: EvaluationResult,
    test: PairedTest,
    adjusted: float,
) -> dict[str, Any]:
    significant = adjusted <= node.significance
    regressed = significant and test.difference <= -node.minimum_effect
    if regressed:
        conclusion = "a regression"
    elif significant:
        conclusion = f"significant, but smaller than the minimum effect {node.minimum_effect:g}"
    else:
        conclusion = "no significant regression"
    return {
        "passed": not regressed,
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
        f"p {adjusted:.3f}: {conclusion}",
    }


def _record(recipe: Recipe, name: str, layout: Layout, decision: dict[str, Any], history: History) -> None:
    node = recipe.gate[name]
    journal = Journal(layout.journal(name))
    journal.rewind(0)
    journal.params(node.model_dump(mode="json"))
    journal.tags({"inputs_hash": fingerprint({"section": node.model_dump(mode="json"), "read": decision["read"]})})
    journal.tags({"history": history.source, "passed": str(decision["passed"]).lower(), "words": decision["words"]})
    for domain, verdict in decision["domains"].items():
        values = {key: verdict[key] for key in ("score", "best_score", "difference", "p_value", "p_adjusted")}
        journal.metrics({f"gate/{domain}/{key}": value for key, value in values.items()}, step=0)
    journal.artifact(layout.decision(name), "decision")
    if decision["passed"]:
        journal.model(node.registered_name, node.alias, lineage(recipe, node.candidate, layout, decision))


def lineage(recipe: Recipe, candidate: str, layout: Layout, decision: dict[str, Any]) -> dict[str, str]:
    """Where a checkpoint comes from, as tags: hashes lead to its files, names to its runs."""
    maker = recipe.training[candidate]
    tags = {
        "checkpoint": layout.checkpoint(candidate).relative_to(layout.root).as_posix(),
        "checkpoint_hash": decision["checkpoint"],
        "node": candidate,
        "parent": maker.init,
        "recipe": recipe.name,
        "recipe_hash": recipe_hash(layout.params),
        "git_revision": git_revision(layout.root) or "none",
        **{f"dvc/{path}": digest for path, digest in dvc_hashes(layout.root, candidate).items()},
        **{f"score/{domain}": f"{verdict['score']:.4f}" for domain, verdict in decision["domains"].items()},
    }
    if isinstance(maker, DistillNode):
        teachers = read_json(layout.decision(maker.teachers))["teachers"]
        tags |= {f"teacher/{domain}": f"{t['node']} {t['hash'][:12]}" for domain, t in teachers.items()}
    return tags
