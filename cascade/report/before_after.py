"""Responses of the first and the last checkpoint of the main line to the same benchmark prompts."""

import random
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from cascade.layout import Layout
from cascade.report.results import Results
from cascade.utils.seeds import derive_seed

PROMPTS = 2
"""Prompts shown for each domain."""

MAX_CHARACTERS = 3000
"""Longest text shown, so that long documents do not make the page large."""


@dataclass(frozen=True)
class Pair:
    """One benchmark prompt's first rollout, `before` and `after`, as results/evaluations/ has them."""

    domain: str
    prompt: str
    before: dict[str, Any]
    after: dict[str, Any]


def before_after(results: Results, layout: Layout) -> tuple[str, str, list[Pair]] | None:
    """The two nodes and their pairs, prompts drawn by the recipe's seed, not chosen by score.

    None where fewer than two nodes of the main line were evaluated.
    """
    evaluated = [node for node in results.line if (layout.evaluation(node) / "rollouts.parquet").exists()]
    if len(evaluated) < 2:
        return None
    first, last = evaluated[0], evaluated[-1]
    before, after = _first_rollouts(layout, first), _first_rollouts(layout, last)
    pairs: list[Pair] = []
    for domain in results.recipe.domains:
        shared = sorted(key for key in before.keys() & after.keys() if key[0] == domain)
        draw = random.Random(derive_seed(results.recipe.seed, "report", domain))
        for key in draw.sample(shared, min(PROMPTS, len(shared))):
            pairs.append(Pair(domain, shortened(before[key]["prompt"]), _readable(before[key]), _readable(after[key])))
    return first, last, pairs


def shortened(text: str) -> str:
    """At most MAX_CHARACTERS of the text: its beginning and end, with a note on what is left out."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _first_rollouts(layout: Layout, node: str) -> dict[tuple[str, str], dict[str, Any]]:
    path = layout.evaluation(node) / "rollouts.parquet"
    lines = pq.read_table(path, filters=[("rollout", "=", 0)]).to_pylist()
    return {(line["domain"], line["prompt_id"]): line for line in lines}


def _readable(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "response": shortened(line["response"])}
