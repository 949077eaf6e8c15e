"""The comparison as a chart: both scores of each domain, and their difference with its interval."""

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from cascade.commands.compare.facts import Comparison, Pair
from cascade.errors import CascadeError
from cascade.report.figures import COLOURS, STYLE
from cascade.utils.files import write_atomic


def draw(comparison: Comparison, path: Path) -> Path:
    """Write the chart, with one row of panels per pair of checkpoints. The file's suffix gives the format.

    Raises CascadeError for a suffix other than .png or .svg, and if no domain was evaluated in both runs.
    """
    if path.suffix not in (".png", ".svg"):
        raise CascadeError(f"{path}: a chart is a .png or an .svg; name the file so")
    pairs = [pair for pair in comparison.pairs if any(score.difference is not None for score in pair.scores)]
    if not pairs:
        raise CascadeError("no domain is evaluated in both runs, so there is nothing to draw; `cascade evaluate NODE`")
    heights = [0.9 + 0.34 * len(pair.scores) for pair in pairs]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, sum(heights)), layout="constrained")
        panels = figure.subplots(len(pairs), 2, squeeze=False, height_ratios=heights)
        for pair, (scores, differences) in zip(pairs, panels, strict=True):
            _scores(pair, scores)
            _differences(pair, differences)
        image = io.BytesIO()
        # Without a date, equal numbers give equal bytes.
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(image, format=path.suffix[1:], dpi=150, metadata=metadata)
    write_atomic(path, image.getvalue())
    return path


def _scores(pair: Pair, axes: mpl.axes.Axes) -> None:
    rows = range(len(pair.scores))
    for run, marker, colour in (("first", "o", COLOURS[0]), ("second", "D", COLOURS[1])):
        values = [getattr(score, run) for score in pair.scores]
        points = [(100 * value, row) for row, value in zip(rows, values, strict=True) if value is not None]
        axes.plot(*zip(*points, strict=True), marker, color=colour, label=getattr(pair, run), clip_on=False)
    axes.set_yticks(rows, [score.domain for score in pair.scores])
    axes.set_ylim(len(pair.scores) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("avg@k, %")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _differences(pair: Pair, axes: mpl.axes.Axes) -> None:
    for row, score in enumerate(pair.scores):
        if score.difference is None:
            continue
        difference = 100 * score.difference
        if score.interval is not None:
            axes.plot([100 * score.interval.low, 100 * score.interval.high], [row, row], color="black", linewidth=1.5)
        # Hollow if the prompts differ, so that there is no interval.
        axes.plot(difference, row, "s", color="black", fillstyle="full" if score.interval else "none")
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(pair.scores)), [])
    axes.set_ylim(len(pair.scores) - 0.5, -0.5)
    axes.set_xlabel("difference, points, with 95 % interval")
