#!/usr/bin/env bash
# datasets 5.2.0: Dataset.from_list(..., on_mixed_types="use_json") on a column whose values are of several JSON types.
# Expected: every value comes back as it was given: the text "007" as text.
# Seen: text that reads as JSON comes back as what it reads as: 7.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "datasets==5.2.0"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import datasets

rows = [{"answer": [1, "a"]}, {"answer": ["007"]}, {"answer": ["1e3", "true"]}]
found = datasets.Dataset.from_list(rows, on_mixed_types="use_json").to_list()
print("datasets", datasets.__version__)
for given, seen in zip(rows, found):
    print(f"given {given['answer']!r:16} came back {seen['answer']!r}")
assert found != rows, "changed: the values come back as given"
PY
