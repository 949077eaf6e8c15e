"""What both cards are written with."""

from collections.abc import Iterable, Sequence


def card(metadata: str, *parts: str) -> str:
    """A card: YAML between rules, then the parts that are not empty."""
    return "---\n" + metadata.strip() + "\n---\n" + "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; empty without rows. A cell cannot break out of its own."""
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "| --- " * len(head) + "|", *lines]) if lines else ""


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
