"""Teacher selection: per domain the strongest checkpoint of the same cascade (arXiv 2603.19220, section on MOPD)."""

from typing import Any

from cascade.decisions.earlier_runs import Earlier
from cascade.decisions.history import History, inputs_read, open_history, read_results
from cascade.errors import CascadeError
from cascade.evaluation.results import EvaluationResult
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal
from cascade.tracking.dvc_cache import restore
from cascade.utils.files import fingerprint, write_json
from cascade.utils.progress import say


def select_teachers(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Choose for every domain the candidate with the highest score (avg@k), and write the decision. With
    `earlier_runs`, the same nodes' checkpoints of earlier runs are candidates too, named NODE@PIPELINE.

    The decision: `teachers` (domain → node, checkpoint, hash: all that a distillation depends on), `reasons`
    (domain → score, 95 % interval, why), `table` (node → domain → score), `read` (what was read).
    Among equals the earlier one in the cascade is chosen: a later one was trained on more domains since, and may be
    further from the student in others. Raises CascadeError where a candidate has no results.
    """
    node = recipe.teachers[name]
    history = history or open_history(recipe, layout)
    order = [candidate for candidate in recipe.training if candidate in node.candidates]
    results = read_results(order, layout, history)
    earlier = {e.result.node: e for e in history.earlier(order, results)} if node.earlier_runs else {}
    results |= {candidate: entry.result for candidate, entry in earlier.items()}
    candidate_nodes = {**{candidate: candidate for candidate in order}, **{c: e.node for c, e in earlier.items()}}
    table = {candidate: {d: results[candidate].score(d) for d in recipe.domains} for candidate in candidate_nodes}
    choices = {
        d: _best(d, [c for c, of in candidate_nodes.items() if of in node.domains.get(d, order)], results)
        for d in recipe.domains
    }
    decision = {
        "teachers": {
            domain: _teacher(layout, results[teacher], earlier.get(teacher)) for domain, (teacher, _) in choices.items()
        },
        "reasons": {
            domain: {
                "score": results[teacher].score(domain),
                "ci": [results[teacher].interval(domain).low, results[teacher].interval(domain).high],
                "reason": reason + (", restricted by the recipe" if domain in node.domains else ""),
            }
            for domain, (teacher, reason) in choices.items()
        },
        "table": table,
        "read": inputs_read(results),
    }
    write_json(layout.decision(name), decision)
    journal = Journal(layout.journal(name))
    journal.rewind(0)
    journal.params(node.model_dump(mode="json"))
    journal.tags({"inputs_hash": fingerprint({"section": node.model_dump(mode="json"), "read": decision["read"]})})
    journal.tags({"history": history.source, **{f"teacher/{d}": teacher for d, (teacher, _) in choices.items()}})
    journal.metrics({f"teacher/{d}/score": table[teacher][d] for d, (teacher, _) in choices.items()}, step=0)
    journal.artifact(layout.decision(name), "decision")
    say(f"{name}: from {history.source}")
    for domain, (teacher, reason) in choices.items():
        say(f"  {domain}: {teacher} ({reason})")
    return decision


def _teacher(layout: Layout, result: EvaluationResult, earlier: Earlier | None) -> dict[str, str]:
    """A teacher's entry in the decision; `dvc` is the hash of an earlier run's checkpoint in DVC's cache."""
    checkpoint = restore(layout, result.checkpoint, earlier.dvc) if earlier else layout.checkpoint(result.node)
    dvc_entry = {"dvc": earlier.dvc} if earlier else {}
    return {
        "node": result.node,
        "checkpoint": checkpoint.relative_to(layout.root).as_posix(),
        "hash": result.checkpoint,
        **dvc_entry,
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
    runner_up = max(others, key=lambda c: others[c])
    return best, f"{scores[best]:.3f}, before {others[runner_up]:.3f} of {runner_up}"
