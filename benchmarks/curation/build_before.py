"""Curate generated rows with the revision that PYTHONPATH names: one JSON line of CPU seconds and counts.

Usage: build_before.py FOLDER BASE MAX_TOKENS, in the environment of Cascade; rows are FOLDER/rows/*.jsonl.
"""

import json
import resource
import sys
import time
from pathlib import Path

from cascade.curation import build
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal


def main() -> None:
    folder, base, max_tokens = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    source = {"path": "rows/*.jsonl", "domain": "chat", "sft": -1}
    curation = {"max_tokens": max_tokens, "sequence_length": max_tokens, "sources": {"rows": source}}
    empty = {section: {} for section in ("sft", "rl", "teachers", "distill", "repair", "gate")}
    evaluation = {"rollouts": 1, "rollout": {"max_new_tokens": 8}}
    recipe = {"name": "b", "family": "b", "base": base, "curation": curation, "evaluation": evaluation, **empty}
    layout = Layout(folder)
    wall, cpu = time.monotonic(), time.process_time()
    report = build(Recipe.model_validate(recipe), layout, Journal(layout.journal("curate")))
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(json.dumps({"cpu": cpu, "wall": wall, "peak_gib": peak, "kept": report["sft"]["kept"], **report["packing"]}))


if __name__ == "__main__":
    main()
