"""The recipe's graph as SVG: nodes from left to right in the order in which they can run."""

from html import escape

from cascade.recipe import BASE, GateNode, Node, SolveNode, TaughtNode, TeachersNode
from cascade.report.results import Results

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 120, 46, 26, 22, 4
FILLS = {
    "base": "#eeeeee",
    "sft": "#dbe9f6",
    "rl": "#fbe3d3",
    "off_policy": "#d5efe3",
    "distill": "#d5efe3",
    "repair": "#d5efe3",
    "quantize": "#e3ecec",
    "qad": "#d5efe3",
    "teachers": "#f6e3ef",
    "gate": "#fff3cc",
    "solve": "#e6e0f3",
}
LABELS = {
    "sft": "SFT",
    "rl": "RL",
    "off_policy": "off-policy distillation",
    "distill": "distillation",
    "repair": "repair",
    "quantize": "quantised",
    "qad": "quantised, distilled",
    "teachers": "teacher selection",
    "gate": "gate",
    "solve": "test-time",
    "base": "base model",
}


def graph_svg(results: Results) -> str:
    """Solid arrows: the node whose checkpoint a node starts from. Dashed: nodes whose results or choice it reads."""
    places = _places(results)
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        'aria-label="graph of the recipe" font-family="sans-serif" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>',
    ]
    for start, end, dashed in _edges(results):
        (x1, y1), (x2, y2) = places[start], places[end]
        x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        bend = max(GAP_X * 0.6, (x2 - x1) * 0.4)
        parts.append(
            f'<path d="M{x1} {y1}C{x1 + bend:.0f} {y1} {x2 - bend:.0f} {y2} {x2} {y2}" fill="none" '
            f'stroke="currentColor" stroke-width="1.4"{dash} marker-end="url(#arrow)"/>'
        )
    for name, (x, y) in places.items():
        kind, middle = BASE if name == BASE else results.recipe.kind(name), x + WIDTH / 2
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{FILLS[kind]}" stroke="#555"/>'
            f'<text x="{middle}" y="{y + 20}" text-anchor="middle" font-weight="bold" fill="#1a1a1a">'
            f"{escape(name)}</text>"
            f'<text x="{middle}" y="{y + 36}" text-anchor="middle" fill="#444">{escape(_label(results, name))}</text>'
        )
    return "".join([*parts, "</svg>"])


def _label(results: Results, name: str) -> str:
    kind = BASE if name == BASE else results.recipe.kind(name)
    if name in results.summaries:
        return f"{LABELS[kind]}, {100 * results.mean(name):.1f} %"
    if kind == "gate" and name in results.decisions:
        return "gate: passed" if results.decisions[name]["passed"] else "gate: FAILED"
    if name in results.solutions:
        return f"{LABELS[kind]}, {100 * results.solutions[name]['score']:.1f} %"
    return LABELS[kind]


def _edges(results: Results) -> list[tuple[str, str, bool]]:
    edges: list[tuple[str, str, bool]] = []
    for name, node in results.recipe.ordered().items():
        if isinstance(node, Node):
            edges.append((node.init, name, False))
        if isinstance(node, TaughtNode):
            edges.append((node.teachers, name, True))
        if isinstance(node, TeachersNode):
            edges += [(candidate, name, True) for candidate in node.candidates]
        if isinstance(node, GateNode):
            # Edges from `against` would cross the whole graph; the gate's table names these nodes.
            edges.append((node.candidate, name, True))
        if isinstance(node, SolveNode):
            edges += [(checkpoint, name, True) for checkpoint in node.checkpoints]
    return edges


def _places(results: Results) -> dict[str, tuple[int, int]]:
    """Column: longest path from the base model. Row: checkpoints of the main line first, the others below."""
    edges = _edges(results)
    depth = {BASE: 0}
    for name in results.recipe.ordered():
        depth[name] = 1 + max(depth[start] for start, end, _ in edges if end == name)
    rows_used: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    order = sorted(depth, key=lambda n: (depth[n], n in results.recipe.teachers))
    for name in order:
        row = rows_used.get(depth[name], 1 if name in results.recipe.teachers else 0)
        rows_used[depth[name]] = row + 1
        places[name] = (MARGIN + depth[name] * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    return places
