"""The gate: a candidate passes unless it has regressed against the best earlier checkpoint in some domain, or nothing
could have been found."""

from typing import Any

from cascade.decisions.history import History, inputs_read, open_history, read_results
from cascade.decisions.regression import (
    comparison_metrics,
    conclusion,
    regressed_domains,
    sampled_comparison,
    unmeasured_domains,
)
from cascade.layout import Layout
from cascade.recipe import Recipe, recipe_hash
from cascade.tracking import Journal
from cascade.tracking.provenance import dvc_hashes, git_revision
from cascade.utils.files import fingerprint, read_json, write_json
from cascade.utils.progress import say


def gate(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Compare the candidate with the best earlier checkpoint, domain by domain (`compare_with_best`), and write the
    decision. Undecided domains do not keep it from passing; they are named.

    It does not pass where in no domain a regression could have been found (`measured`).
    A failed gate is a result, not an error: `passed` is false and nothing is registered. A checkpoint that passed is
    written to the journal with its lineage, and from there to MLflow's model registry under the recipe's name and
    alias. Raises CascadeError where results are missing or are of other prompts.
    """
    node = recipe.gate[name]
    history = history or open_history(recipe, layout)
    order = [earlier for earlier in recipe.training if earlier in node.against]
    results = read_results([*order, node.candidate], layout, history)
    rollouts = layout.check(name) / "rollouts.parquet"
    domains = sampled_comparison(recipe, node, node.candidate, results, layout, rollouts)
    decision = {
        "passed": not regressed_domains(domains) and len(unmeasured_domains(domains)) < len(domains),
        "candidate": node.candidate,
        "checkpoint": results[node.candidate].checkpoint,
        "words": conclusion(node.candidate, domains),
        "domains": domains,
        "table": {n: {d: results[n].score(d) for d in recipe.domains} for n in results},
        "read": inputs_read(results),
    }
    write_json(layout.decision(name), decision)
    _record(recipe, name, layout, decision, history)
    say(f"{name}: {'PASSED' if decision['passed'] else 'FAILED'}: {decision['words']} (from {history.source})")
    for domain, verdict in domains.items():
        say(f"  {domain}: {verdict['words']}")
    return decision


def _record(recipe: Recipe, name: str, layout: Layout, decision: dict[str, Any], history: History) -> None:
    node = recipe.gate[name]
    journal = Journal(layout.journal(name))
    journal.rewind(0)
    journal.params(node.model_dump(mode="json"))
    journal.tags({"inputs_hash": fingerprint({"section": node.model_dump(mode="json"), "read": decision["read"]})})
    journal.tags({"history": history.source, "passed": str(decision["passed"]).lower(), "words": decision["words"]})
    journal.metrics(comparison_metrics(decision["domains"], "gate"), step=0)
    journal.artifact(layout.decision(name), "decision")
    if decision["passed"]:
        journal.model(node.registered_name, node.alias, lineage(recipe, node.candidate, layout, decision))


def lineage(recipe: Recipe, candidate: str, layout: Layout, decision: dict[str, Any]) -> dict[str, str]:
    """Where a checkpoint comes from, as tags: hashes lead to its files, names to its runs."""
    node = recipe.training[candidate]
    tags = {
        "checkpoint": layout.checkpoint(candidate).relative_to(layout.root).as_posix(),
        "checkpoint_hash": decision["checkpoint"],
        "node": candidate,
        "parent": node.init,
        "recipe": recipe.name,
        "recipe_hash": recipe_hash(layout.params),
        "git_revision": git_revision(layout.root) or "none",
        **{f"dvc/{path}": digest for path, digest in dvc_hashes(layout.root, candidate).items()},
        **{f"score/{domain}": f"{verdict['score']:.4f}" for domain, verdict in decision["domains"].items()},
    }
    source = candidate if candidate in recipe.quantize else node.init
    if source in recipe.quantize:
        tags["format"] = recipe.quantize[source].format
    if (decision_node := recipe.teachers_chosen_by(candidate)) is not None:
        teachers = read_json(layout.decision(decision_node))["teachers"]
        tags |= {f"teacher/{domain}": f"{t['node']} {t['hash'][:12]}" for domain, t in teachers.items()}
    return tags
