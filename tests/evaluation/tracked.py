"""A whole pipeline run as its journals tell of it, published to a real MLflow store: curate, sft, rl, mopd, gate."""

from cascade.decisions.gate import gate
from cascade.decisions.history import MLflowHistory
from cascade.decisions.teacher_selection import select_teachers
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal, publish
from cascade.tracking.mlflow_store import MADE_IN, pipeline_run_id
from cascade.utils.files import hash_file, write_atomic, write_json
from tests.evaluation.project import DOMAINS, make_node, share, write_evaluation

SOLVED = {"sft": (20, 30), "rl": (35, 25), "mopd": (34, 30)}
"""Node → of 40 prompts of the domains `one` and `two`, how many it solves."""


def run_pipeline(recipe: Recipe, layout: Layout, solved: dict[str, tuple[int, int]] = SOLVED) -> None:
    """Everything that a pipeline run leaves, without a model: what its data and checkpoints hold follows from `solved`
    alone."""
    write_json(layout.params, recipe.model_dump(mode="json"))
    base = make_node(layout, "base")
    data = {domain: layout.prompts(domain) for domain in DOMAINS}
    for domain, path in data.items():
        write_atomic(path, f"prompts of {domain}")
        write_atomic(layout.benchmark(domain), f"benchmark of {domain}")
    write_atomic(layout.sft_data / "part-00000.parquet", "sequences")
    _curate(layout, [*data.values(), layout.sft_data / "part-00000.parquet"])
    hashes = {"base": base}
    for node, scores in solved.items():
        section = recipe.training[node]
        content = f'{{"node": "{node}", "scores": {list(scores)}}}'
        hashes[node] = make_node(layout, node, content)
        journal = Journal(layout.journal(node))
        journal.rewind(0)
        journal.params(section.model_dump(mode="json"))
        journal.tags(
            {"parent": section.init, "parent_hash": hashes[section.init], "inputs_hash": f"inputs of {content}"}
        )
        if node == "mopd":
            decision = select_teachers(recipe, "choose", layout, MLflowHistory(recipe, layout))
            journal.tags({f"teacher_hash/{domain}": t["hash"] for domain, t in decision["teachers"].items()})
        paths = [layout.sft_data / "part-00000.parquet"] if node == "sft" else list(data.values())
        for path in paths:
            journal.dataset(f"training/{path.stem}", path, hash_file(path), "training")
        journal.metrics({"train/loss": 0.5}, 0)
        manifest = layout.training(node) / "manifest.json"
        write_json(manifest, {"seconds": 12.5 * len(hashes), "tokens": 1000 * len(hashes)})
        journal.artifact(manifest, "training")
        journal.tags({"checkpoint_hash": hashes[node], MADE_IN: pipeline_run_id(layout)})
        rewards = {domain: share(count) for domain, count in zip(DOMAINS, scores, strict=True)}
        write_evaluation(layout, node, rewards, hashes[node])
    gate(recipe, "release", layout, MLflowHistory(recipe, layout))
    assert publish(recipe, layout, ["curate", *recipe.ordered()])


def _curate(layout: Layout, products: list) -> None:
    source = layout.root / "raw.jsonl"
    write_atomic(source, "rows")
    journal = Journal(layout.journal("curate"))
    journal.rewind(0)
    journal.tags({"inputs_hash": "curation"})
    journal.dataset("source/raw", source, hash_file(source), "curation")
    journal.tags({f"made/{p.relative_to(layout.root).as_posix()}": hash_file(p) for p in products})
    journal.tags({MADE_IN: pipeline_run_id(layout)})
    journal.metrics({"curate/rows": 3}, 0)
