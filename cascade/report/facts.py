"""Costs, provenance, machine and package versions of a run, for the report and the model cards."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow.parquet as pq

import cascade
from cascade.layout import Layout
from cascade.recipe import Recipe, recipe_hash
from cascade.recipe.sections import OnPolicyNode
from cascade.report.results import Results
from cascade.tracking.provenance import git_revision
from cascade.utils.files import hash_file

PACKAGES = ("torch", "transformers", "datasets", "pyarrow", "mlflow", "dvc", "prefect", "reasoning-gym", "math-verify")


@dataclass(frozen=True)
class Cost:
    """Costs of a node; None where there is none or it was not measured."""

    node: str
    steps: int
    seconds: float
    trained_tokens: int
    sampled_tokens: int | None
    rollouts: int | None
    """Rollouts sampled in training, dropped groups included; each is verified once."""
    judge_requests: int
    evaluated: int | None
    """Rollouts of its evaluation."""


def costs(results: Results, layout: Layout) -> list[Cost]:
    """Costs of each node with a training step, in the cascade's order."""
    return [
        _cost(results, layout, node, manifest)
        for node, manifest in results.manifests.items()
        if results.steps.get(node)
    ]


def _cost(results: Results, layout: Layout, node: str, manifest: dict[str, Any]) -> Cost:
    series, section = results.steps[node], results.recipe.training[node]
    group = section.rollouts if isinstance(section, OnPolicyNode) else None
    groups = dict(series.get("rollout/groups", []))
    lengths = dict(series.get("rollout/length", []))
    evaluation = layout.evaluation(node) / "rollouts.parquet"
    return Cost(
        node,
        len(next(iter(series.values()))),
        manifest["seconds"],
        manifest["tokens"],
        round(sum(groups[s] * group * lengths[s] for s in groups if s in lengths)) if group and groups else None,
        round(sum(groups.values())) * group if group and groups else None,
        round(sum(value for _, value in series.get("rollout/judge_requests", []))),
        pq.read_metadata(evaluation).num_rows if evaluation.exists() else None,
    )


def total(node_costs: list[Cost]) -> Cost:
    return Cost(
        "all",
        sum(c.steps for c in node_costs),
        sum(c.seconds for c in node_costs),
        sum(c.trained_tokens for c in node_costs),
        sum(c.sampled_tokens or 0 for c in node_costs),
        sum(c.rollouts or 0 for c in node_costs),
        sum(c.judge_requests for c in node_costs),
        sum(c.evaluated or 0 for c in node_costs),
    )


def provenance(recipe: Recipe, layout: Layout) -> dict[str, str]:
    """Recipe, seed, git revision and dvc.lock of the project directory."""
    lock = layout.root / "dvc.lock"
    return {
        "recipe": recipe.name,
        "recipe file, SHA-256": recipe_hash(layout.params),
        "seed": str(recipe.seed),
        **({"git revision": revision} if (revision := git_revision(layout.root)) else {}),
        **({"dvc.lock, SHA-256": hash_file(lock)[:12]} if lock.exists() else {}),
    }


def versions() -> dict[str, str]:
    installed = {"cascade": cascade.__version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed
