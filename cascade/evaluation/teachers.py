"""Teacher selection: per domain the strongest checkpoint of the same cascade (arXiv 2603.19220, section on MOPD)."""

from typing import Any

from cascade.errors import CascadeError
from cascade.evaluation.history import History, as_read, open_history, read_results
from cascade.evaluation.results import EvaluationResult
from cascade.files import fingerprint, write_json
from cascade.layout import Layout
from cascade.progress import say
from cascade.recipe import Recipe
from cascade.tracking import Journal


def select_teachers(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Choose for every domain the candidate with the highest score (avg@k), and write the decision.

    The decision: `teachers` (domain → node, checkpoint, hash: all that a distillation depends on), `reasons`
    (domain → score, 95 % interval, why), `table` (node → domain → score), `read` (what was read).
    Among equals the earlier one in the cascade teaches: the more a checkpoint was trained on other domains since,
    the further it may be from the student elsewhere. Raises CascadeError where a candidate has no results.
    """
    node = recipe.teachers[name]
    history = history or open_history(recipe, layout)
    order = [candidate for candidate in recipe.training if candidate in node.candidates]
    results = read_results(order, layout, history)
    table = {candidate: {d: results[candidate].score(d) for d in recipe.domains} for candidate in order}
    chosen = {d: _best(d, [c for c in order if c in node.domains.get(d, order)], results) for d in recipe.domains}
    decision = {
        "teachers": {
            domain: {
                "node": teacher,
                "checkpoint": layout.checkpoint(teacher).relative_to(layout.root).as_posix(),
                "hash": results[teacher].checkpoint,
            }
            for domain, (teacher, _) in chosen.items()
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
        return best, f"{scores[best]:.3f}, as {' and '.join(equals)}, but earlier in the cascade"
    second = max(others, key=lambda c: others[c])
    return best, f"{scores[best]:.3f}, before {others[second]:.3f} of {second}"
