"""`python -m tasks.evaluate CHECKPOINT OUT`: an evaluation as a process of its own, which can be stopped as one."""

import sys
from pathlib import Path

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.stages import evaluate_checkpoint

if __name__ == "__main__":
    try:
        evaluate_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), Layout(Path.cwd()))
    except CascadeError as error:
        sys.exit(f"Error: {error}")
