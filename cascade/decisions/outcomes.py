"""The decisions of gates and regression checks. Does not import Prefect, so that a run with nothing to do does not
load it."""

from typing import Any

from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import read_json


def gate_failures(recipe: Recipe, layout: Layout) -> list[str]:
    """One line for each gate whose candidate failed."""
    decisions = gate_decisions(recipe, layout)
    return [f"gate {name}: {decision['words']}" for name, decision in decisions.items() if not decision["passed"]]


def gate_decisions(recipe: Recipe, layout: Layout) -> dict[str, dict[str, Any]]:
    """Gate → decision, for the gates that have decided."""
    return _decisions(list(recipe.gate), layout)


def repair_decisions(recipe: Recipe, layout: Layout) -> dict[str, dict[str, Any]]:
    """Repair → decision, for the repairs that have decided; also of quantised checkpoints (`qad`)."""
    return _decisions(list(recipe.checks), layout)


def further_rollouts(domains: dict[str, dict[str, Any]]) -> int:
    """Rollouts of a comparison, of both checkpoints, beyond those of their evaluations."""
    return sum(verdict["further_rollouts"] for verdict in domains.values())


def _decisions(nodes: list[str], layout: Layout) -> dict[str, dict[str, Any]]:
    paths = {name: layout.decision(name) for name in nodes}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}
