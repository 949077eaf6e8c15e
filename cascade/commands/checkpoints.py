"""The checkpoint that a user names: a node's, or a directory."""

from pathlib import Path

from cascade.errors import CheckpointError
from cascade.layout import Layout


def directory_of(checkpoint: str, layout: Layout) -> Path:
    """Of a node's name or a directory. Raises CheckpointError."""
    for path in (layout.checkpoint(checkpoint), Path(checkpoint)):
        if (path / "config.json").is_file():
            return path
    nodes = sorted(p.parent.name for p in layout.checkpoint("").glob("*/config.json"))
    raise CheckpointError(
        f"{checkpoint}: neither a node that was built ({', '.join(nodes) or 'none yet'}) nor a checkpoint directory"
    )
