"""A node's steps as CSV: the curves that DVC plots, one row for each step and domain; and reading steps.csv."""

import csv
import io
from pathlib import Path

from cascade.utils.files import write_atomic

CURVES = {"rewards.csv": "reward", "lengths.csv": "length"}
"""File → NAME of the metric rollout/NAME, whose values by domain it has."""

Steps = list[tuple[int, dict[str, float]]]
"""(step, metric → value), as in the journal."""

Series = dict[str, list[tuple[int, float]]]
"""Metric → (step, value) where it was measured."""


def write_curves(folder: Path, steps: Steps, domains: list[str]) -> None:
    """Write rewards.csv (in [0, 1]) and lengths.csv (tokens): step, domain, value. The same steps give the
    same bytes; without steps there is only a header."""
    for file, name in CURVES.items():
        write_atomic(folder / file, as_csv(["step", "domain", name], by_domain(steps, f"rollout/{name}", domains)))


def by_domain(steps: Steps, metric: str, domains: list[str]) -> list[list[object]]:
    """[step, domain, value] of METRIC/DOMAIN where it was measured, rounded to what a plot can show."""
    return [
        [step, domain, round(value, 4)]
        for step, values in steps
        for domain in domains
        if (value := values.get(f"{metric}/{domain}")) is not None
    ]


def as_csv(columns: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def read_steps(path: Path) -> Series:
    """A node's steps.csv."""
    series: Series = {}
    with open(path, encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            step = int(line.pop("step"))
            for name, value in line.items():
                if value:
                    series.setdefault(name, []).append((step, float(value)))
    return series
