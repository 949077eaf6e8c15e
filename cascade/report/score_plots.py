"""Data of DVC's plots of a gate: the heat map node × domain, and the recovery of the distillations before it."""

from cascade.layout import Layout
from cascade.recipe import Distillation, OffPolicyNode, Recipe
from cascade.tracking.curves import as_csv
from cascade.utils.files import write_atomic


def write_score_plots(recipe: Recipe, gate: str, layout: Layout) -> None:
    """Write results/plots/GATE/heat_map.csv (node, domain, score) and recovery.csv (node, domain, start, after,
    teacher: scores in [0, 1]) of the checkpoints that the gate compares, in the cascade's order."""
    from cascade.report.results import load_results  # brings matplotlib, which training nodes need not pay

    rules = recipe.gate[gate]
    nodes = [node for node in recipe.training if node in (*rules.against, rules.candidate)]
    results = load_results(recipe, layout)
    scores: list[list[object]] = [
        [node, domain, round(score, 4)]
        for node in nodes
        for domain in recipe.domains
        if (score := results.score(node, domain)) is not None
    ]
    recovered: list[list[object]] = [
        [node, r.domain, round(r.before, 4), round(r.after, 4), round(r.goal, 4)]
        for node in nodes
        if isinstance(recipe.training[node], Distillation | OffPolicyNode)
        for r in results.recoveries(node)
    ]
    folder = layout.score_plots(gate)
    write_atomic(folder / "heat_map.csv", as_csv(["node", "domain", "score"], scores))
    write_atomic(folder / "recovery.csv", as_csv(["node", "domain", "start", "after", "teacher"], recovered))
