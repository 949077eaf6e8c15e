"""A small project for solve nodes: two problems of each domain, solved by the base model, which can do little of it."""

from pathlib import Path

import yaml

from cascade.curation import build
from cascade.layout import Layout
from cascade.recipe import CURATE, Recipe, load
from cascade.tracking import Journal

ROOT = Path(__file__).parents[2]

SOLVE = {
    "proofs_search": {
        "init": "base",
        "benchmark": "proofs",
        "strategy": {
            "name": "generate-verify-refine",
            "candidates": 3,
            "verifications": 2,
            "keep": 2,
            "critiques": 1,
            "refinements": 1,
            "rounds": 2,
            "grades": 2,
        },
        "budget": {"generations": 12},
        "rollout": {"max_new_tokens": 40},
    },
    "competition_search": {
        "init": "base",
        "benchmark": "competition",
        "strategy": {"name": "generate-select-submit", "rounds": 2, "candidates": 2, "inputs": 2},
        "budget": {"submissions": 2},
        "rollout": {"max_new_tokens": 60},
    },
}


def content(**changed) -> dict:
    sources = {
        "proofs": {"generator": "proofs", "domain": "proofs", "levels": {1: 1.0}, "sft": 20, "benchmark": 3},
        "competition": {
            "generator": "competition",
            "domain": "competition",
            "levels": {1: 1.0},
            "sft": 4,
            "benchmark": 2,
        },
    }
    return {
        "name": "small",
        "family": "small",
        "seed": 0,
        "threads": 1,
        "base": "models/base",
        "judges": {},
        "curation": {"max_tokens": 640, "sequence_length": 640, "near_duplicate": 1.0, "sources": sources},
        "sft": {"sft": {"init": "base", "round": 1, "epochs": 1.0, "batch": 4, "optimizer": {"learning_rate": 1e-3}}},
        "evaluation": {"rollouts": 1, "rollout": {"max_new_tokens": 40}},
        "solve": SOLVE,
        **changed,
    }


def make_project(folder: Path, **changed) -> tuple[Recipe, Layout]:
    layout = Layout(folder)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "base").symlink_to(ROOT / "models" / "base")
    layout.params.write_text(yaml.safe_dump(content(**changed), sort_keys=False))
    recipe = load(layout.params)
    build(recipe, layout, Journal(layout.journal(CURATE)))
    return recipe, layout
