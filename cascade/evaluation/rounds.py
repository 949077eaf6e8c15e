"""The files through which the nodes that read a round depend on its evaluations."""

from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import hash_file, read_json, write_json


def enter_round(recipe: Recipe, name: str, layout: Layout) -> None:
    """Write results/scores/NODE.json, the DVC metric: domain → avg@k; and results/lineage/ROUND/NODE.json: hashes
    of what the round's teachers and gate nodes read of this node.

    The entry of a distillation or repair also holds the hash of its teachers' decision, so that whoever reads a
    round also depends on those before it. Entries of nodes that the recipe no longer has in this round are removed.
    """
    node = recipe.training[name]
    entry = {
        "checkpoint": read_json(layout.evaluation(name) / "manifest.json")["checkpoint"],
        "prompts": hash_file(layout.evaluation(name) / "prompts.csv"),
    }
    if (decision_node := recipe.teachers_chosen_by(name)) is not None:
        entry["teachers"] = hash_file(layout.decision(decision_node))
    folder = layout.root / "results" / "lineage" / str(node.round)
    domains = read_json(layout.evaluation(name) / "summary.json")["domains"]
    scores = {domain: round(values["avg@k"], 4) for domain, values in domains.items()}
    write_json(layout.root / "results" / "scores" / f"{name}.json", scores)
    write_json(folder / f"{name}.json", entry)
    members = {f"{member}.json" for member in recipe.evaluated_in(node.round)}
    for path in folder.iterdir():
        if path.name not in members:
            path.unlink()
