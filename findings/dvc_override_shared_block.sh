#!/usr/bin/env bash
# DVC 3.67.1 with Hydra's override grammar: `dvc exp run -S` on a params.yaml whose blocks share a YAML anchor.
# Expected: the one key that the override names changes.
# Seen: one override of an aliased block changes the block where it was defined, and so every other place that takes it;
# one of a key below a merged block (<<) changes that place alone. No warning either way.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "dvc==3.67.1"
cat > params.yaml <<'YAML'
first: {limits: &limits {turns: 12, tokens: 192}}
second: {limits: *limits}
YAML
venv/bin/python - <<'PY'
from pathlib import Path
import yaml
from dvc import __version__
from dvc.utils.hydra import apply_overrides  # what `dvc exp run -S` calls

before = yaml.safe_load(Path("params.yaml").read_text())
apply_overrides(Path("params.yaml"), ["second.limits.turns=6"])
text = Path("params.yaml").read_text()
after = yaml.safe_load(text)
print("dvc", __version__, "override: second.limits.turns=6")
print(text)
found = {name: after[name]["limits"]["turns"] for name in after}
print("expected turns: {'first': 12, 'second': 6}; seen:", found)
assert found != {"first": 12, "second": 6}, "changed: the override now changes what it names alone"
PY
