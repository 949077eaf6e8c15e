#!/usr/bin/env bash
# reasoning-gym 0.1.25 with datasets 5.2.0: rows of arc_agi and rearc that have been in a Hugging Face dataset, scored
# by get_score_answer_fn, as reasoning-gym's README describes it for such datasets.
# Expected: a row's own answer has 1.0, as before.
# Seen: it has 0.05, as a wrong board has: boards are compared as tuples, and have come back as lists (from JSON,
# too). In training a right answer would be paid like a wrong one.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "reasoning-gym==0.1.25" "datasets==5.2.0"
HF_HUB_OFFLINE=1 venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

from datasets import Dataset
from reasoning_gym import create_dataset, get_score_answer_fn

print("reasoning-gym", version("reasoning-gym"), "datasets", version("datasets"))
for family in ("arc_agi", "rearc", "game_of_life"):
    score = get_score_answer_fn(family)
    made = create_dataset(family, size=5, seed=0)
    rows = [{key: row[key] for key in ("question", "answer", "metadata")} for row in made]
    stored = list(Dataset.from_list(rows))
    before, after = ([score(row["answer"], row) for row in each] for each in (rows, stored))
    wrong = [score("0 0", row) for row in stored]
    print(f"{family:12}  own answer: {before}, stored: {after}; a wrong one: {wrong}")
    if family == "game_of_life":
        assert after == before == [1.0] * 5, "changed: this family, too"
    else:
        assert before == [1.0] * 5 and after == wrong, "changed: a stored row's own answer is right"
PY
