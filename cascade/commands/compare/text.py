"""The comparison as plain text. Scores are avg@k in percent, differences in points."""

from collections.abc import Iterable, Sequence

from cascade.commands.compare.facts import ABSENT, Comparison, Cost, Difference, Score

MAX_CHARACTERS = 40
"""Longer values are cut; hashes differ within fewer characters."""


def as_text(comparison: Comparison) -> list[str]:
    lines = [f"A  {comparison.first}", f"B  {comparison.second}"]
    for run, nodes in comparison.only.items():
        lines.append(f"only in {run}: {', '.join(nodes)}")
    for pair in comparison.pairs:
        lines += ["", f"avg@k, {pair.first} → {pair.second}"]
        lines += _table(["domain", "A %", "B %", "B − A", "95 %", "prompts"], map(_score, pair.scores))
    if not comparison.pairs:
        lines += ["", "neither run has an evaluation"]
    lines += _section("settings that differ", comparison.settings)
    lines += _section("data and checkpoints that differ", comparison.hashes)
    if comparison.costs:
        lines += ["", "costs"]
        lines += _table(["node", "A s", "B s", "A tokens", "B tokens"], map(_cost, comparison.costs))
    return lines


def _section(title: str, differences: list[Difference]) -> list[str]:
    if not differences:
        return ["", f"{title}: none"]
    rows = [
        [what, *(value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}…" for value in two)]
        for what, *two in differences
    ]
    return ["", title, *_table(["", "A", "B"], rows)]


def _score(score: Score) -> list[str]:
    interval = score.interval
    between = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]" if interval else ABSENT
    prompts = str(score.prompts) if score.interval else "not the same" if score.difference is not None else ABSENT
    return [score.domain, _percent(score.first), _percent(score.second), _points(score.difference), between, prompts]


def _short(value: str) -> str:
    return value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}…"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:+.1f}"


def _cost(cost: Cost) -> list[str]:
    two = (cost.first, cost.second)
    seconds = [f"{spent[0]:,.1f}" if spent else ABSENT for spent in two]
    return [cost.node, *seconds, *(f"{spent[1]:,}" if spent else ABSENT for spent in two)]


def _table(head: list[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]
