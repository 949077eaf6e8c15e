"""From the evaluations of the distillation benchmark to its figures: pooled recovery with intervals, costs, curves."""

import statistics
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks.distillation.jobs import Place, Run, domains_of, evaluated_in
from benchmarks.distillation.variants import START, VARIANTS
from cascade.utils.files import read_json
from cascade.utils.seeds import derive_seed

RESAMPLES = 2000

GAINS = {
    "gain_over_rl": "over RL at equal seconds",
    "gain_over_rl_at_equal_tokens": "at equal tokens",
    "gain_over_off_policy": "over off-policy",
}
"""Differences of recoveries that a variant may have, and their columns."""

Means = dict[str, np.ndarray]
"""Domain → [prompts] mean reward."""


class Results:
    """Every evaluation of the variants and teachers of which all domains are there."""

    def __init__(self, place: Place):
        self.domains = domains_of(place)
        self.teacher_nodes: dict[str, str] = read_json(place.start / "teachers.json")
        self.points: dict[str, dict[int, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
        """Variant → seed → step → {means, seconds, tokens, rollouts, machines}."""
        for run_folder in sorted(path for path in place.parts.glob("*") if path.is_dir()):
            variant, seed, *domain = run_folder.name.split("-")
            if variant not in (*VARIANTS, *self.teacher_nodes.values()):
                continue  # Measured before the variant was taken out.
            for folder in run_folder.iterdir():
                parts = {path.stem: read_json(path) for path in folder.glob("*.json")}
                if domain:
                    self._add_routed(variant, int(seed), int(folder.name), parts)
                elif set(parts) >= set(evaluated_in(place, Run(variant, int(seed)))):
                    self.points[variant][int(seed)][int(folder.name)] = {
                        "means": {d: as_means(part) for d, part in parts.items()},
                        "seconds": next(iter(parts.values()))["seconds"],
                        "tokens": next(iter(parts.values()))["tokens"],
                        "rollouts": next(iter(parts.values()))["rollouts"],
                        "machines": {part["machine"] for part in parts.values()},
                    }
        for variant in VARIANTS:
            for steps in self.points[variant].values():
                for step in [s for s, point in steps.items() if set(point["means"]) != set(self.domains)]:
                    del steps[step]

    def _add_routed(self, variant: str, seed: int, step: int, parts: dict[str, Any]) -> None:
        """One model a domain counts as one result; its cost is the sum."""
        empty = {"means": {}, "seconds": 0.0, "tokens": 0.0, "rollouts": 4, "machines": set()}
        point = self.points[variant][seed].setdefault(step, empty)
        for domain, part in parts.items():
            point["means"][domain] = as_means(part)
            point["seconds"] += part["seconds"]
            point["tokens"] += part["tokens"]
            point["machines"].add(part["machine"])

    def start(self) -> Means:
        return self.points[START][0][0]["means"]

    def teacher(self) -> Means:
        return {d: self.points[node][0][0]["means"][d] for d, node in self.teacher_nodes.items()}

    def final(self, variant: str) -> dict[int, dict[str, Any]]:
        """Seed → the point at which the variant is compared: of RL, the one at as many steps as the distillation."""
        full = {
            seed: {s: p for s, p in steps.items() if p["rollouts"] == 4} for seed, steps in self.points[variant].items()
        }
        return {seed: steps[min(steps)] for seed, steps in full.items() if steps}

    def machines(self, variants: list[str]) -> dict[str, list[str]]:
        """The machines on which variants were evaluated, and so trained: each with its variants."""
        found: dict[str, list[str]] = {}
        for variant in variants:
            points = [point for steps in self.points[variant].values() for point in steps.values()]
            for machine in sorted(set().union(*(point["machines"] for point in points))):
                found.setdefault(machine, []).append(variant)
        return found

    def interpolated(self, variant: str, by: str, at: float) -> dict[int, Means]:
        """Seed → means of the variant's curve, which begins at the start, where `by` (seconds, tokens) is `at`. Beyond
        its end, its end."""
        found = {}
        for seed, steps in self.points[variant].items():
            if not steps:
                continue
            points = sorted(((p[by], p["means"]) for p in steps.values()), key=lambda point: point[0])
            points = [(0.0, self.start()), *points]
            x = [value for value, _ in points]
            right = min(max(int(np.searchsorted(x, at)), 1), len(x) - 1)
            left = right - 1
            share = min(1.0, (at - x[left]) / (x[right] - x[left]))
            found[seed] = {d: (1 - share) * points[left][1][d] + share * points[right][1][d] for d in self.domains}
        return found


def as_means(part: dict[str, Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in part["rewards"]])


def summarise(place: Place) -> dict[str, Any]:
    """`about`, and by variant: `recovery` and `gain_over_rl`, the difference of recoveries at equal seconds, with 95 %
    intervals; `gain_over_off_policy`, the control with as many tokens; CPU `seconds` and sampled `tokens` of a run;
    scores `after` it; the `curve` over its steps."""
    results = Results(place)
    start, teacher = results.start(), results.teacher()
    gaps = {d: float(np.nanmean(teacher[d]) - np.nanmean(start[d])) for d in results.domains}
    lost = [d for d in results.domains if gaps[d] >= 0.02]
    draws = Draws(start, teacher, lost)
    table: dict[str, Any] = {}
    for variant, about in VARIANTS.items():
        final = results.final(variant)
        if not final:
            continue
        means = {seed: point["means"] for seed, point in final.items()}
        recoveries = draws.recoveries(means)
        row: dict[str, Any] = {
            "what": about.what,
            "seeds": sorted(final),
            "recovery": draws.interval(recoveries),
            "seconds": statistics.fmean(point["seconds"] for point in final.values()),
            "tokens": statistics.fmean(point["tokens"] for point in final.values()),
            "after": {
                d: statistics.fmean(float(np.nanmean(values[d])) for values in means.values()) for d in results.domains
            },
            "curve": curve(results, variant, draws),
        }
        if (control := results.final("off_policy")) and variant not in (START, "off_policy"):
            rival = draws.recoveries({seed: point["means"] for seed, point in control.items()})
            row["gain_over_off_policy"] = draws.interval(recoveries - rival)
        if results.points["rl"] and variant != START:
            for key, by in (("gain_over_rl", "seconds"), ("gain_over_rl_at_equal_tokens", "tokens")):
                rival = draws.recoveries(results.interpolated("rl", by, row[by]))
                row[key] = draws.interval(recoveries - rival)
        table[variant] = row
    about = {
        "prompts": len(start[results.domains[0]]),
        "rollouts": 4,
        "domains": {
            d: {
                "start": float(np.nanmean(start[d])),
                "teacher": float(np.nanmean(teacher[d])),
                "taught_by": results.teacher_nodes[d],
                "counts": d in lost,
            }
            for d in results.domains
        },
        "machines": results.machines(list(table)),
    }
    return {"about": about, **table}


class Draws:
    """Bootstrap over seeds and prompts: recovery with intervals. The same draws of prompts for all variants, so that
    differences are paired."""

    def __init__(self, start: Means, teacher: Means, domains: list[str]):
        self._start, self._teacher, self._domains = start, teacher, domains
        generator = np.random.default_rng(derive_seed("distillation", "bootstrap"))
        # [RESAMPLES + 1, prompts] how often each prompt is drawn; the first row is the sample itself.
        self._weights = {
            d: np.vstack(
                [
                    np.ones(len(start[d])),
                    generator.multinomial(len(start[d]), np.full(len(start[d]), 1 / len(start[d])), RESAMPLES),
                ]
            )
            for d in domains
        }
        self._seeds = generator.random((RESAMPLES, 16))

    def recoveries(self, means: dict[int, Means]) -> np.ndarray:
        """[RESAMPLES + 1] Σ (after - before) / Σ (teacher - before) over the domains, seeds averaged."""
        after = np.stack([sum(self._mean(d, values[d]) for d in self._domains) for values in means.values()])
        count = len(after)
        drawn = (self._seeds[:, :count] * count).astype(int)
        mean = np.concatenate([after[:, :1].mean(0), np.take_along_axis(after[:, 1:], drawn.T, 0).mean(0)])
        before = sum(self._mean(d, self._start[d]) for d in self._domains)
        teacher = sum(self._mean(d, self._teacher[d]) for d in self._domains)
        return (mean - before) / (teacher - before)

    def _mean(self, domain: str, values: np.ndarray) -> np.ndarray:
        weights = self._weights[domain] * ~np.isnan(values)
        return (weights * np.nan_to_num(values)).sum(1) / weights.sum(1)

    @staticmethod
    def interval(values: np.ndarray) -> dict[str, float]:
        low, high = np.quantile(values[1:], [0.025, 0.975])
        return {"value": float(values[0]), "low": float(low), "high": float(high)}


def curve(results: Results, variant: str, draws: Draws) -> list[dict[str, float]]:
    """Recovery after each evaluated step, seeds averaged."""
    by_step: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    for seed, steps in results.points[variant].items():
        for step, point in steps.items():
            by_step[step][seed] = point
    return [
        {
            "step": step,
            "seconds": statistics.fmean(p["seconds"] for p in points.values()),
            "tokens": statistics.fmean(p["tokens"] for p in points.values()),
            "recovery": float(draws.recoveries({seed: p["means"] for seed, p in points.items()})[0]),
        }
        for step, points in sorted(by_step.items())
    ]


def as_markdown(summary: dict[str, Any]) -> str:
    def percent(interval: dict[str, float]) -> str:
        return f"{100 * interval['value']:.0f} [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"

    domains = summary["about"]["domains"]
    rows = {name: row for name, row in summary.items() if name != "about"}
    gains = {key: title for key, title in GAINS.items() if any(key in row for row in rows.values())}
    lines = [
        "| " + " | ".join(["variant", "recovery, %", *gains.values(), "CPU s", "tokens", *domains]) + " |",
        "| --- |" + " ---: |" * (3 + len(gains) + len(domains)),
        "| teachers | 100 |"
        + " |" * (2 + len(gains))
        + "".join(f" {100 * d['teacher']:.1f} |" for d in domains.values()),
    ]
    for name, row in rows.items():
        cells = [name, percent(row["recovery"]), *(percent(row[key]) if key in row else "" for key in gains)]
        cells += [f"{row['seconds']:.0f}", f"{row['tokens']:,.0f}", *(f"{100 * row['after'][d]:.1f}" for d in domains)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def runs_of(variants: list[str], seeds: list[int], place: Place) -> list[Run]:
    """Every run of the table: the start's and the teachers' evaluations first."""
    found = [Run(name, 0) for name in (START, *sorted({*read_json(place.start / "teachers.json").values()} - {START}))]
    for variant in variants:
        about = VARIANTS[variant]
        if variant == START:
            continue
        if about.merge is not None:
            found.append(Run(variant, 0))
            continue
        for seed in seeds:
            parts = domains_of(place) if about.by_domain else [""]
            found += [Run(variant, seed, domain) for domain in parts]
    return found
