"""What the gates decided. Knows nothing of Prefect, so that a run with nothing to do need not load it."""

from typing import Any

from cascade.files import read_json
from cascade.layout import Layout
from cascade.recipe import Recipe


def gate_failures(recipe: Recipe, layout: Layout) -> list[str]:
    """One line a gate that did not let its candidate pass."""
    decisions = gate_decisions(recipe, layout)
    return [f"gate {name}: {decision['words']}" for name, decision in decisions.items() if not decision["passed"]]


def gate_decisions(recipe: Recipe, layout: Layout) -> dict[str, dict[str, Any]]:
    """The decisions of the gates that have taken one."""
    paths = {name: layout.decision(name) for name in recipe.gate}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}
