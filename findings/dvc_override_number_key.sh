#!/usr/bin/env bash
# DVC 3.67.1: `dvc exp run -S levels.2=0.5` on a mapping whose keys are numbers.
# Expected: the value under the number 2 changes.
# Seen: the plain override is refused as unknown, and the form with + that the error suggests adds a second key, the text
# "2", beside the number 2.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "dvc==3.67.1"
printf 'levels: {2: 0.7, 3: 0.3}\n' > params.yaml
venv/bin/python - <<'PY'
from pathlib import Path
import yaml
from dvc import __version__
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides  # what `dvc exp run -S` calls

path = Path("params.yaml")
print("dvc", __version__)
try:
    apply_overrides(path, ["levels.2=0.5"])
    print("levels.2=0.5 gives", yaml.safe_load(path.read_text()))
except DvcException as error:
    print("levels.2=0.5 is refused:", " ".join(str(error.__cause__ or error).split())[:160])
apply_overrides(path, ["+levels.2=0.5"])
found = yaml.safe_load(path.read_text())["levels"]
print("+levels.2=0.5 gives", found)
assert found != {2: 0.5, 3: 0.3}, "changed: the number's value is the one that changes"
PY
