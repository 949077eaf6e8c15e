"""The figures, drawn with matplotlib: as SVG for the page, as PNG for MLflow."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from cascade.report.results import Recovery, Results
from cascade.tracking.curves import Series
from cascade.utils.files import room_for

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
"""Okabe and Ito's colour-blind safe palette, without yellow, which is too pale for lines."""

HEAT = "cividis"
"""Perceptually uniform, also in grey and for colour-blind readers."""

MARKERS = "osD^vPX*"
MAX_POINTS = 400
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "cascade",
}

INKS = {
    **dict.fromkeys(("#000000", "#444444"), "currentColor"),
    STYLE["grid.color"]: "var(--grid)",
}
"""Colour in a figure → what it is on the page."""


def colour_of(domains: list[str], domain: str) -> str:
    """A domain has one colour in all figures."""
    return COLOURS[domains.index(domain) % len(COLOURS)]


def heat_map(results: Results) -> Figure:
    """Stage × domain: avg@k in percent, the best of each column framed."""
    domains, nodes = results.recipe.domains, list(results.summaries)
    columns = [*domains, "mean"]
    values = np.array(
        [[np.nan if (s := results.score(n, d)) is None else s for d in domains] + [results.mean(n)] for n in nodes]
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 1.05 * len(columns), 0.9 + 0.42 * len(nodes)), layout="constrained")
        axes = figure.subplots()
        axes.grid(False)
        axes.imshow(values, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
        axes.set_yticks(range(len(nodes)), nodes)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.axvline(len(domains) - 0.5, color="white", linewidth=4)
        for row, column in np.ndindex(values.shape):
            value = float(values[row, column])
            if np.isnan(value):
                continue
            best = value == np.nanmax(values[:, column])
            axes.text(
                column,
                row,
                f"{100 * value:.1f}",
                ha="center",
                va="center",
                color=shade(value)[1],
                fontweight="bold" if best else "normal",
            )
            if best:
                frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="#D55E00", linewidth=2)
                axes.add_patch(frame)
        return figure


def stage_panels(results: Results, node: str) -> dict[str, Figure]:
    """Panels of one training node that its metrics allow: loss or reward, length, entropy."""
    panels: dict[str, Figure] = {}
    for title, metric in _panels(results.steps[node]):
        with mpl.rc_context(STYLE):
            figure, axes = _panel()
            _draw(axes, results, node, title, metric)
        panels[title] = figure
    return panels


def all_stages(results: Results) -> Figure:
    """Every panel of every training node, one row for each node."""
    nodes = list(results.steps)
    wide = max(len(_panels(results.steps[node])) for node in nodes)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * wide, 2.6 * len(nodes)), layout="constrained")
        grid = figure.subplots(len(nodes), wide, squeeze=False)
        for row, node in zip(grid, nodes, strict=True):
            for axes in row:
                axes.set_visible(False)
            for axes, (title, metric) in zip(row, _panels(results.steps[node]), strict=False):
                axes.set_visible(True)
                _draw(axes, results, node, title, metric)
                axes.set_title(f"{node}: {title}")
    return figure


def recovery_panels(results: Results, node: str, recoveries: list[Recovery]) -> dict[str, Figure]:
    """Domain → reward of a distillation by step, between the held-out scores of its start and its teacher."""
    panels: dict[str, Figure] = {}
    for recovery in recoveries:
        with mpl.rc_context(STYLE):
            figure, axes = _panel()
            _draw_recovery(axes, results, node, recovery)
        panels[recovery.domain] = figure
    return panels


def _panel() -> tuple[Figure, Axes]:
    """Its margins are fixed: a report has dozens, and measuring every label for them takes as long as drawing."""
    figure = Figure(figsize=(4.0, 2.6))
    return figure, figure.subplots(gridspec_kw={"left": 0.15, "right": 0.97, "bottom": 0.19, "top": 0.85})


def recovery_curve(results: Results, node: str, recoveries: list[Recovery]) -> Figure:
    """All of a distillation's recovery panels."""
    columns = min(3, len(recoveries))
    rows = -(-len(recoveries) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * columns, 2.6 * rows + 0.3), layout="constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, recovery in zip(grid, recoveries, strict=False):
            _draw_recovery(axes, results, node, recovery)
        for axes in grid[len(recoveries) :]:
            axes.set_visible(False)
        handles = [
            Line2D([], [], color="#888888", label="reward of each step's rollouts"),
            Line2D([], [], color="#444444", linestyle="--", label="teacher, held out"),
            Line2D([], [], color="#444444", linestyle=":", label="start, held out"),
            Line2D([], [], color="white", marker="o", markeredgecolor="black", label="after, held out"),
        ]
        if any(name.startswith("held_out/reward/") for name in results.steps[node]):
            handles.append(Line2D([], [], color="#888888", linestyle="", marker="x", label="on the way, held out"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_recovery(axes: Axes, results: Results, node: str, recovery: Recovery) -> None:
    colour = colour_of(results.recipe.domains, recovery.domain)
    points = results.steps[node].get(f"rollout/reward/{recovery.domain}", [])
    _line(axes, points, colour, recovery.domain)
    if held_out := results.steps[node].get(f"held_out/reward/{recovery.domain}"):
        axes.plot(*zip(*held_out, strict=True), "x", color=colour, markersize=6)
    axes.axhline(recovery.goal, color="#444444", linestyle="--", linewidth=1.2)
    axes.axhline(recovery.before, color="#444444", linestyle=":", linewidth=1.2)
    last = points[-1][0] if points else 1
    axes.plot([last], [recovery.after], "o", color=colour, markeredgecolor="black", markersize=7, clip_on=False)
    rate = "nothing to recover" if recovery.rate is None else f"recovery {100 * recovery.rate:.0f} %"
    axes.set_title(f"{recovery.domain}: {rate}", fontsize=9)
    axes.set_xlabel("step")
    axes.set_ylabel("reward")
    axes.set_ylim(-0.02, 1.02)


def shade(value: float) -> tuple[str, str]:
    """Background of a score in [0, 1] in the heat map, and the text colour that is read best on it."""
    rgb = mpl.colormaps[HEAT](float(value))[:3]
    # WCAG's relative luminance: white and black contrast equally, (L + 0.05)² = 1.05 × 0.05, at L = 0.179.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return to_hex(rgb), "white" if luminance < 0.179 else "black"


def budget_curve(summary: dict[str, Any]) -> Figure:
    """A strategy's score by responses a problem, on a logarithmic axis, with 95 % intervals, beside choices from plain
    samples."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate(dict.fromkeys(point["method"] for point in summary["curve"])):
            points = [point for point in summary["curve"] if point["method"] == method]
            xs, ys = [point["budget"] for point in points], [point["score"] for point in points]
            strong = number == 0
            axes.plot(
                xs, ys, color=COLOURS[number], marker=MARKERS[number], markersize=4, label=method,
                linewidth=2.2 if strong else 1.2, linestyle="--" if method == "pass@k" else "-",
            )  # fmt: skip
            if number < 2:  # more bands than these would hide each other
                low, high = [point["ci_low"] for point in points], [point["ci_high"] for point in points]
                axes.fill_between(xs, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("responses a problem")
        axes.set_ylabel("score")
        axes.set_ylim(-0.02, 1.02)
        axes.legend()
    return figure


def to_svg(figure: Figure) -> str:
    """The <svg> element alone, the same bytes for the same figure."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    # Black and grey become the page's own colours, so that figures are readable in dark mode too.
    svg = svg[svg.index("<svg") :]
    for colour, page_colour in INKS.items():
        svg = svg.replace(colour, page_colour)
    return svg


def to_png(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with room_for(path):
        figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
    return path


def _panels(series: Series) -> list[tuple[str, str]]:
    """Title and metric of the panels that these metrics allow."""
    candidates = [
        ("reward", "rollout/reward"),
        ("quality (the judge's scale)", "rollout/quality"),
        ("loss", "train/loss"),
        ("response length (tokens)", "rollout/length"),
        ("entropy (nats)", "train/entropy"),
        ("reverse KL to the teacher (nats)", "train/reverse_kl"),
        ("mismatch KL, trainer and sampler (nats)", "train/mismatch_kl"),
    ]
    panels = [(title, metric) for title, metric in candidates if metric in series]
    return [panel for panel in panels if panel[0] != "loss" or "rollout/reward" not in series]


def _draw(axes: Axes, results: Results, node: str, title: str, metric: str) -> None:
    series, domains = results.steps[node], results.recipe.domains
    measured = [domain for domain in domains if f"{metric}/{domain}" in series]
    # One domain is the whole: a second line over it would only hide it.
    if len(measured) < 2:
        _line(axes, series[metric], COLOURS[6] if not measured else colour_of(domains, measured[0]), "")
    else:
        for domain in measured:
            _line(axes, series[f"{metric}/{domain}"], colour_of(domains, domain), domain)
        if title in ("reward", "loss"):
            axes.legend(ncols=1 if len(measured) < 4 else 2, loc="best", handlelength=1.2)
    axes.set_title(title)
    axes.set_xlabel("step")
    if title == "reward":
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0)


def _line(axes: Axes, points: list[tuple[int, float]], colour: str, label: str) -> None:
    """The values, faint, and their running mean over a tenth of the steps."""
    if not points:
        return
    xs, ys = np.array(_thinned(points)).T
    width = max(1, len(ys) // 10)
    smooth = np.array([ys[max(0, i - width // 2) : i + width // 2 + 1].mean() for i in range(len(ys))])
    axes.plot(xs, ys, color=colour, linewidth=0.7, alpha=0.35)
    axes.plot(xs, smooth, color=colour, linewidth=1.8, label=label)


def _thinned(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS, each the mean of its neighbours."""
    parts: Iterable[np.ndarray] = np.array_split(np.array(points, dtype=float), min(len(points), MAX_POINTS))
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]
