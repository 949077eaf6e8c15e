"""The regression check after a training node, and the repair: a distillation where the check finds a regression. Of a
quantised checkpoint the same, with quantisation-aware distillation."""

from typing import Any

from cascade.decisions.history import History, inputs_read, open_history, read_results
from cascade.decisions.regression import comparison_metrics, conclusion, regressed_domains, sampled_comparison
from cascade.errors import CascadeError
from cascade.evaluation.benchmark import sampling_inputs
from cascade.launch import process_setup
from cascade.layout import Layout
from cascade.recipe import Comparison, QADNode, Recipe
from cascade.tracking import decision_journal
from cascade.training.node_run import NodeRun, require_files
from cascade.utils import distributed
from cascade.utils.files import fingerprint, hash_directory, hash_file, read_json, write_atomic, write_json
from cascade.utils.progress import say

ROLLOUTS = "rollouts.parquet"
"""The further rollouts of the check: kept beside its decision, and written to results/checks/NODE."""


def repair(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Check `init` of node `name` for regressions, and make the node's checkpoint accordingly.

    Where a domain has regressed (`compare_with_best`), `init` is distilled: from the best earlier checkpoint in
    each regressed domain, and from itself in every other one, which keeps its level there. Where none has, the node
    publishes the checkpoint of `init`.

    The decision: `regressed` (domains), `words`, `domains` (domain → the comparison's numbers), `teachers` (domain →
    node, checkpoint, hash; empty where nothing is distilled), `table` and `read` as in the decisions of gates and
    teachers. It is saved with the node's state and
    the further rollouts, so that a node that was killed resumes with the same decision.
    Raises CascadeError where results are missing or are of other prompts.
    """
    decision = _decided(recipe, name, layout, history)
    if decision["regressed"]:
        with process_setup.importing_engine():
            from cascade.training.on_policy import run_on_policy

        run_on_policy(recipe, name, layout)
    else:
        # No teachers, no step.
        NodeRun(recipe, name, layout, [], {"teachers": {}}).publish_parent()
    return decision


def qad(recipe: Recipe, name: str, layout: Layout, history: History | None = None) -> dict[str, Any]:
    """Check the quantised `init` of node `name` for regressions against what it was quantised from, and make the node's
    checkpoint accordingly: distilled from that, in all domains, where any has regressed; else that of `init`.

    The decision is as in `repair`, with one teacher.
    """
    decision = _decided(recipe, name, layout, history)
    if decision["regressed"]:
        with process_setup.importing_engine():
            from cascade.training.quantize import run_qad

        run_qad(recipe, name, layout)
    else:
        NodeRun(recipe, name, layout, [], {}).publish_parent()
    return decision


def _decided(recipe: Recipe, name: str, layout: Layout, history: History | None) -> dict[str, Any]:
    """The decision of the check, written, logged and said."""

    def decide() -> tuple[dict[str, Any], str]:
        decision, source = _load_or_decide(recipe, name, layout, history)
        write_json(layout.decision(name), decision)
        write_atomic(layout.check(name) / ROLLOUTS, (layout.work(name) / ROLLOUTS).read_bytes())
        _record(name, layout, decision, source)
        return decision, source

    decision, source = distributed.broadcast_from_main(decide)
    say(f"{name}: {decision['words']} (from {source})")
    for domain, verdict in decision["domains"].items():
        say(f"  {domain}: {verdict['words']}")
    return decision


def check(recipe: Recipe, name: str, layout: Layout) -> dict[str, Any]:
    """The decision of the check alone, saved for `repair`. For a node of several processes: one of them cannot sample
    beside the others (collectives, memory, their patience)."""
    return _load_or_decide(recipe, name, layout, None)[0]


def _load_or_decide(recipe: Recipe, name: str, layout: Layout, history: History | None) -> tuple[dict[str, Any], str]:
    """(decision, source of its results): the decision saved in the work directory where its inputs are unchanged,
    else a new one."""
    node = recipe.checks[name]
    names = [earlier for earlier in recipe.training if earlier in (*node.against, node.init)]
    files = {n: layout.evaluation(n) / "prompts.csv" for n in names}
    require_files(list(files.values()), "`cascade evaluate NODE` writes it")
    hashes = {n: [hash_directory(layout.checkpoint(n)), hash_file(files[n])] for n in names}
    rules = node.model_dump(mode="json", include={"init", *Comparison.model_fields})
    held_out = {d: hash_file(p) for d in recipe.domains if (p := layout.held_out(d)).exists()}
    inputs = fingerprint(
        {
            "rules": rules,
            "sampling": sampling_inputs(recipe, hashes[node.init][0]),
            "domains": recipe.domains,
            "read": hashes,
            "held out": held_out,
        }
    )
    path = layout.work(name) / "decision.json"
    if path.exists() and (saved := read_json(path))["inputs"] == inputs:
        return saved["decision"], saved["history"]
    if distributed.size() > 1:
        raise CascadeError(f"{name}: not decided yet, which takes one process; `cascade check {name}` decides it")
    history = history or open_history(recipe, layout)
    decision = _decide(recipe, name, layout, history, names)
    write_json(path, {"inputs": inputs, "history": history.source, "decision": decision})
    return decision, history.source


def _decide(recipe: Recipe, name: str, layout: Layout, history: History, names: list[str]) -> dict[str, Any]:
    node = recipe.checks[name]
    results = read_results(names, layout, history)
    domains = sampled_comparison(recipe, node, node.init, results, layout, layout.work(name) / ROLLOUTS)
    lost = regressed_domains(domains)
    best = {domain: domains[domain]["best"] for domain in recipe.domains}
    teachers = best if isinstance(node, QADNode) else {d: best[d] if d in lost else node.init for d in recipe.domains}
    return {
        "regressed": lost,
        "candidate": node.init,
        "checkpoint": results[node.init].checkpoint,
        "words": conclusion(node.init, domains),
        "domains": domains,
        "teachers": {
            domain: {
                "node": teacher,
                "checkpoint": layout.checkpoint(teacher).relative_to(layout.root).as_posix(),
                "hash": results[teacher].checkpoint,
            }
            for domain, teacher in teachers.items()
            if lost
        },
        "table": {n: {d: results[n].score(d) for d in recipe.domains} for n in results},
        "read": inputs_read(results),
    }


def _record(name: str, layout: Layout, decision: dict[str, Any], source: str) -> None:
    """In a separate journal: the node's training may resume, or restart, with the same decision."""
    journal = decision_journal(layout, name)
    journal.rewind(0)
    regressions = ", ".join(decision["regressed"]) or "none"
    journal.tags({"history": source, "regressed": regressions, "words": decision["words"]})
    journal.tags({f"teacher/{domain}": teacher["node"] for domain, teacher in decision["teachers"].items()})
    journal.metrics(comparison_metrics(decision["domains"], "repair"), step=0)
    journal.artifact(layout.decision(name), "decision")
