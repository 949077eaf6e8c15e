"""The results of the active recipe, read from results/. Nodes that have not run are left out."""

from dataclasses import dataclass, field
from typing import Any

from cascade.evaluation.statistics import recovery_rate
from cascade.layout import Layout
from cascade.recipe import BASE, Distillation, OffPolicyNode, OnPolicyNode, Recipe
from cascade.tracking.curves import Series, read_steps
from cascade.utils.files import read_json, read_jsonl

BY_DOMAIN = {
    "rollout/prompt_share": ("prompts, %", 100),
    "rollout/token_share": ("tokens, %", 100),
    "train/gradient_share": ("squared gradient norm, %", 100),
    "rollout/length": ("length", 1),
    "train/reverse_kl": ("log-ratio to the teacher", -1),
    "train/log_ratio_spread": ("its spread", 1),
    "train/masked_tokens": ("dropped tokens, %", 100),
    "held_out/recovery": ("recovery, held out, %", 100),
}
"""Metric of a domain → its name in the report, and the factor to the unit there."""


@dataclass(frozen=True)
class Recovery:
    """A distillation on one domain: scores of its start, its own and its teacher's."""

    domain: str
    teacher: str
    before: float
    after: float
    goal: float

    @property
    def rate(self) -> float | None:
        return recovery_rate(self.before, self.after, self.goal)


@dataclass(frozen=True)
class Results:
    recipe: Recipe
    summaries: dict[str, dict[str, Any]]
    """Node → evaluation summary, in the cascade's order, the base model first where it was evaluated."""
    steps: dict[str, Series]
    """Node → metrics by step, for nodes with a training step; a repair without a regression has none."""
    manifests: dict[str, dict[str, Any]]
    decisions: dict[str, dict[str, Any]]
    samples: dict[str, list[dict[str, Any]]]
    solutions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Solve node → its summary."""

    @property
    def line(self) -> list[str]:
        """The nodes from the base model to the gate's candidate; to the last training node where there is no gate."""
        gates = list(self.recipe.gate.values())
        return main_line(self.recipe, gates[-1].candidate if gates else list(self.recipe.training)[-1])

    def score(self, node: str, domain: str) -> float | None:
        summary = self.summaries.get(node, {}).get("domains", {}).get(domain)
        return None if summary is None else float(summary["avg@k"])

    def mean(self, node: str) -> float:
        return float(self.summaries[node]["mean"]["avg@k"])

    def best(self, domain: str) -> float | None:
        """The highest score of any node."""
        scores = [score for node in self.summaries if (score := self.score(node, domain)) is not None]
        return max(scores, default=None)

    def means_by_domain(self, node: str) -> dict[str, dict[str, float]]:
        """Domain → metric of `BY_DOMAIN` → its mean over the node's steps, where it was measured; the share of the
        squared gradient norm from the mean squares. Empty for a node of one domain."""
        section, steps = self.recipe.training[node], self.steps[node]
        domains = section.mix if isinstance(section, OnPolicyNode) else {}
        means = {
            domain: {
                metric: mean for metric in BY_DOMAIN if (mean := mean_of(steps.get(f"{metric}/{domain}"))) is not None
            }
            for domain in domains
        }
        # A step's estimates are noisy: shares of their means over the steps, not means of the steps' shares.
        squares = {domain: mean_of(steps.get(f"train/gradient_square/{domain}")) for domain in domains}
        positive = {domain: max(0.0, square) for domain, square in squares.items() if square is not None}
        if total := sum(positive.values()):
            for domain, square in positive.items():
                means[domain]["train/gradient_share"] = square / total
        measured = {domain: values for domain, values in means.items() if values}
        return measured if len(measured) > 1 else {}

    def start_of(self, node: str) -> str:
        """What a distillation started from: its `init`; where that is an off-policy distillation by teachers of the
        same choice, its warm-up, what the warm-up started from."""
        chosen_by, start = self.recipe.teachers_chosen_by(node), self.recipe.training[node].init
        while (warm_up := self.recipe.off_policy.get(start)) is not None and warm_up.teachers == chosen_by:
            start = warm_up.init
        return start

    def recoveries(self, node: str) -> list[Recovery]:
        """Recoveries of a distillation of any kind, on- or off-policy, repair or quantisation-aware, by domain: empty
        where results are missing or nothing was repaired."""
        section, decision_node = self.recipe.training[node], self.recipe.teachers_chosen_by(node)
        assert decision_node is not None
        teachers = self.decisions.get(decision_node, {}).get("teachers", {})
        recoveries: list[Recovery] = []
        for domain in section.mix if isinstance(section, Distillation | OffPolicyNode) else self.recipe.domains:
            teacher = teachers.get(domain, {}).get("node")
            scores = [self.score(n, domain) for n in (self.start_of(node), node, teacher)]
            if teacher is not None and None not in scores:
                recoveries.append(Recovery(domain, teacher, *scores))  # type: ignore[arg-type]
        return recoveries


@dataclass(frozen=True)
class QuantizedRow:
    """A quantised checkpoint beside the one that it was made from."""

    node: str
    of: str
    format: str
    mib: float
    share: float
    """Of the size of `of`."""
    divergence: float
    """Forward KL to `of`, in nats a token."""


def quantized_rows(results: Results) -> list[QuantizedRow]:
    """A node without a distillation of its own, whose checkpoint is its start's, has none."""
    recipe = results.recipe
    made = {**recipe.quantize, **{node: recipe.quantize[section.init] for node, section in recipe.qad.items()}}
    return [
        QuantizedRow(
            node,
            section.init,
            section.format,
            series["quantize/bytes"][-1][1] / 2**20,
            series["quantize/size_share"][-1][1],
            series["quantize/forward_kl"][-1][1],
        )
        for node, section in made.items()
        if "quantize/bytes" in (series := results.steps.get(node, {}))
    ]


def mean_of(points: list[tuple[int, float]] | None) -> float | None:
    return sum(value for _, value in points) / len(points) if points else None


def main_line(recipe: Recipe, node: str) -> list[str]:
    """The nodes from the base model (excluded) to `node` (included)."""
    line: list[str] = []
    while node != BASE:
        line.insert(0, node)
        node = recipe.training[node].init
    return line


def pooled_recovery(recoveries: list[Recovery]) -> float | None:
    """Sum of (after - before) over sum of (teacher - before), over domains whose teacher is above `before`."""
    below = [r for r in recoveries if r.goal > r.before]
    lost = sum(r.goal - r.before for r in below)
    return sum(r.after - r.before for r in below) / lost if below else None


def load_results(recipe: Recipe, layout: Layout) -> Results:
    nodes = [BASE, *recipe.training]
    training = {node: layout.training(node) for node in recipe.training}
    return Results(
        recipe,
        {n: read_json(p) for n in nodes if (p := layout.evaluation(n) / "summary.json").exists()},
        {n: s for n, d in training.items() if (d / "steps.csv").exists() and (s := read_steps(d / "steps.csv"))},
        {n: read_json(d / "manifest.json") for n, d in training.items() if (d / "manifest.json").exists()},
        {
            n: read_json(p)
            for n in (*recipe.teachers, *recipe.checks, *recipe.gate)
            if (p := layout.decision(n)).exists()
        },
        {n: rows for n, d in training.items() if (p := d / "samples.jsonl").exists() and (rows := list(read_jsonl(p)))},
        {n: read_json(p) for n in recipe.solve if (p := layout.solution(n) / "summary.json").exists()},
    )
