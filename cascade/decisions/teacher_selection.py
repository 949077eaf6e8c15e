"""Teacher selection: per domain the strongest checkpoint of the same cascade (arXiv 2603.19220, section on MOPD)."""

from typing import Any

from cascade.decisions.earlier_runs import Earlier
from cascade.decisions.history import History, as_read, open_history, read_results
from cascade.errors import CascadeError
from cascade.evaluation.results import EvaluationResult
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal
from cascade.tracking.dvc_cache import restore
from cascade.utils.files import fingerprint, write_json
from cascade.utils.progress import say


def select_teachers(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Choose for every domain the candidate with the highest score (avg@k), and write the decision. Where the recipe
    says so (`earlier_runs`), what the same nodes made in earlier runs are candidates too, named NODE@PIPELINE.

    The decision: `teachers` (domain → node, checkpoint, hash: all that a distillation depends on), `reasons`
    (domain → score, 95 % interval, why), `table` (node → domain → score), `read` (what was read).
    Among equals the earlier one in the cascade teaches: the more a checkpoint was trained on other domains since,
    the further it may be from the student elsewhere. Raises CascadeError where a candidate has no results.
    """
    node = recipe.teachers[name]
    history = history or open_history(recipe, layout)
    order = [candidate for candidate in recipe.training if candidate in node.candidates]
    results = read_results(order, layout, history)
    earlier = {e.result.node: e for e in history.earlier(order, results)} if node.earlier_runs else {}
    results |= {candidate: found.result for candidate, found in earlier.items()}
    of_node = {**{candidate: candidate for candidate in order}, **{c: e.node for c, e in earlier.items()}}
    table = {candidate: {d: results[candidate].score(d) for d in recipe.domains} for candidate in of_node}
    chosen = {
        d: _best(d, [c for c, of in of_node.items() if of in node.domains.get(d, order)], results)
        for d in recipe.domains
    }
    decision = {
        "teachers": {
            domain: _teacher(layout, results[teacher], earlier.get(teacher)) for domain, (teacher, _) in chosen.items()
        },
        "reasons": {
            domain: {
                "score": results[teacher].score(domain),
                "ci": [results[teacher].interval(domain).low, results[teacher].interval(domain).high],
                "reason": reason + (", restricted by the recipe" if domain in node.domains else ""),
            }
            for domain, (teacher, reason) in chosen.items()
        },
        "table": table,
        "read": as_read(results),
    }
    write_json(layout.decision(name), decision)
    journal = Journal(layout.journal(name))
    journal.rewind(0)
    journal.params(node.model_dump(mode="json"))
    journal.tags({"inputs_hash": fingerprint({"section": node.model_dump(mode="json"), "read": decision["read"]})})
    journal.tags({"history": history.source, **{f"teacher/{d}": teacher for d, (teacher, _) in chosen.items()}})
    journal.metrics({f"teacher/{d}/score": table[teacher][d] for d, (teacher, _) in chosen.items()}, step=0)
    journal.artifact(layout.decision(name), "decision")
    say(f"{name}: from {history.source}")
    for domain, (teacher, reason) in chosen.items():
        say(f"  {domain}: {teacher} ({reason})")
    return decision


def _teacher(layout: Layout, result: EvaluationResult, earlier: Earlier | None) -> dict[str, str]:
    """A teacher as distillations read it; of an earlier run's, `dvc` says where its files are kept."""
    checkpoint = restore(layout, result.checkpoint, earlier.dvc) if earlier else layout.checkpoint(result.node)
    kept = {"dvc": earlier.dvc} if earlier else {}
    return {
        "node": result.node,
        "checkpoint": checkpoint.relative_to(layout.root).as_posix(),
        "hash": result.checkpoint,
        **kept,
    }


def _best(domain: str, candidates: list[str], results: dict[str, EvaluationResult]) -> tuple[str, str]:
    """The best of the candidates, which are in the cascade's order, and why."""
    if not candidates:
        raise CascadeError(f"no candidate is allowed to teach {domain}; give teachers.domains.{domain} one")
    scores = {candidate: results[candidate].score(domain) for candidate in candidates}
    best = max(scores, key=lambda c: scores[c])
    others = {c: score for c, score in scores.items() if c != best}
    if not others:
        return best, f"{scores[best]:.3f}, the only candidate"
    if equals := [c for c, score in others.items() if score == scores[best]]:
        why = "of this run" if all("@" in c for c in equals) and "@" not in best else "earlier in the cascade"
        return best, f"{scores[best]:.3f}, as {' and '.join(equals)}, but {why}"
    second = max(others, key=lambda c: others[c])
    return best, f"{scores[best]:.3f}, before {others[second]:.3f} of {second}"
