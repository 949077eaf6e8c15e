"""The matrix as CSV, JSON, PNG, an HTML page, and text for the terminal."""

import csv
import html
import io
import json
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cascade.commands.interference.effects import MINIMUM_EFFECT, SIGNIFICANCE, Effect
from cascade.commands.interference.order import Judged, Stages
from cascade.commands.interference.run import Interference
from cascade.report.figures import STYLE, to_png, to_svg
from cascade.utils.files import write_atomic

COLOURS = "PuOr"
"""Losses are orange-brown, gains violet; distinguishable with every kind of colour vision."""


def write(interference: Interference) -> Path:
    """Write matrix.csv, matrix.json, matrix.png and index.html into the run's directory; returns the page's path."""
    text = io.StringIO()
    columns = [*Effect.__dataclass_fields__, "verdict"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    rows = [asdict(effect) | {"verdict": effect.verdict} for effect in interference.effects]
    writer.writerows(rows)
    folder, steps = interference.folder, interference.steps
    write_atomic(folder / "matrix.csv", text.getvalue())
    default, suggested = interference.judged
    record = {
        "start": interference.start,
        "settings": {domain: {"node": node, "steps": steps[domain]} for domain, node in interference.nodes.items()},
        "effects": rows,
        "default": {"stages": interference.default, "lost": default.lost, "distil_after": default.distil_after},
        "suggested": {"stages": interference.suggested, "lost": suggested.lost, "distil_after": suggested.distil_after},
    }
    write_atomic(folder / "matrix.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    figure = draw(interference)
    to_png(figure, folder / "matrix.png")
    page = folder / "index.html"
    words = "".join(f"<p>{html.escape(line)}</p>\n" for line in in_words(interference))
    write_atomic(page, PAGE.format(start=html.escape(interference.start), figure=to_svg(figure), words=words))
    return page


def draw(interference: Interference) -> Figure:
    """Rows are trained domains, columns evaluated ones. Each cell is the change of avg@k in points with its 95 %
    interval, bold if significant."""
    rows, columns = list(interference.nodes), interference.domains
    values = np.array([effect.difference for effect in interference.effects]).reshape(len(rows), len(columns))
    bound = max(float(np.abs(values).max()), MINIMUM_EFFECT)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 1.25 * len(columns), 1.3 + 0.55 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.grid(False)
        axes.imshow(values, cmap=COLOURS, vmin=-bound, vmax=bound, aspect="auto")
        axes.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylabel("RL on")
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for number, effect in enumerate(interference.effects):
            row, column = divmod(number, len(columns))
            axes.text(
                column,
                row,
                f"{100 * effect.difference:+.1f}\n[{100 * effect.low:+.1f}, {100 * effect.high:+.1f}]",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if abs(effect.difference) > 0.65 * bound else "black",
                fontweight="normal" if effect.verdict == "none" else "bold",
            )
        return figure


def in_words(interference: Interference) -> list[str]:
    """The effects and the suggested order, one line each."""
    lines = [
        f"RL on {domain} ({interference.nodes[domain]}'s settings, {interference.steps[domain]} steps) "
        + (
            _changes([e for e in interference.effects if e.trained == domain and e.verdict != "none"])
            or "changes nothing"
        )
        for domain in interference.nodes
    ]
    default, suggested = interference.judged
    lines += [
        f"Significant at {SIGNIFICANCE:g} over the whole matrix (Holm), and at least {100 * MINIMUM_EFFECT:g} points.",
        f"Default order:   {_order(interference.default, default)}",
        f"Suggested order: {_order(interference.suggested, suggested)}",
    ]
    if interference.suggested == interference.default:
        lines.append("The matrix suggests the recipe's own order.")
    elif default.lost <= suggested.lost and not default.together:
        lines.append("The recipe's own order leaves no more unrepaired; the suggested one has other stages.")
    return lines


def _changes(effects: list[Effect]) -> str:
    return ", ".join(
        f"{e.verdict} {e.evaluated} {100 * e.difference:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"
        for e in effects
    )


def _order(stages: Stages, judged: Judged) -> str:
    parts = [" + ".join(stage) for stage in stages]
    if judged.distil_after is not None:
        parts.insert(judged.distil_after + 1, "(distillation)")
    lost = ", ".join(f"{t} on {h} {100 * loss:.1f}" for (t, h), loss in judged.unrepaired.items())
    summary = f"unrepaired without it: {lost} points" if lost else "nothing unrepaired"
    together = ", ".join(f"{t} hurts {h}" for t, h in judged.together)
    return f"{' → '.join(parts)}; {summary}" + (f"; together though {together}" if together else "")


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Interference from {start}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
svg {{ max-width: 100%; height: auto }}</style>
</head>
<body>
<h1>What RL on one domain does to the others, from {start}</h1>
<p>Change of avg@k in points on the same held-out prompts, with 95 % intervals paired by prompt;
bold is significant.</p>
{figure}
{words}</body>
</html>
"""
