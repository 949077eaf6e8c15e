"""What the gates and the regression checks decided. Knows nothing of Prefect, so that a run with nothing to
do need not load it."""

from typing import Any

from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import read_json


def gate_failures(recipe: Recipe, layout: Layout) -> list[str]:
    """One line a gate that did not let its candidate pass."""
    decisions = gate_decisions(recipe, layout)
    return [f"gate {name}: {decision['words']}" for name, decision in decisions.items() if not decision["passed"]]


def gate_decisions(recipe: Recipe, layout: Layout) -> dict[str, dict[str, Any]]:
    """The decisions of the gates that have taken one."""
    return _taken(list(recipe.gate), layout)


def repair_decisions(recipe: Recipe, layout: Layout) -> dict[str, dict[str, Any]]:
    """The decisions of the repairs that have taken one."""
    return _taken(list(recipe.repair), layout)


def _taken(nodes: list[str], layout: Layout) -> dict[str, dict[str, Any]]:
    paths = {name: layout.decision(name) for name in nodes}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}
