#!/usr/bin/env bash
# reasoning-gym 0.1.25: the scorer of game_of_life_halting, whose answers are "True" and "False".
# Expected: the full score for the right one of the two alone ("awards 1.0 for a correct answer").
# Seen: any text has 1.0, the opposite answer too: both texts are compared after bool(), and bool("False") is True.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "reasoning-gym==0.1.25"
venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

from reasoning_gym import create_dataset

rows = create_dataset("game_of_life_halting", size=20, seed=0)
print("reasoning-gym", version("reasoning-gym"))
print("answers:", {own: sum(row["answer"] == own for row in rows) for own in ("True", "False")})
means = {}
for text in ("True", "False", "I cannot say."):
    means[text] = sum(rows.score_answer(text, row) for row in rows) / len(rows)
    print(f"{text!r} for every row scores {means[text]} on average")
assert set(means.values()) == {1.0}, "changed: wrong answers are told from right ones"
PY
