"""What each of reasoning-gym's scorers pays for: `python -m benchmarks.reasoning_gym_families [--rows N] [FAMILY …]`.

Every family's rows, as they come out of JSON, are asked about their own answers, constants, the answers of other rows
and negated answers. A finding is an own answer that is refused, and a wrong answer that is paid in full: a constant in
more rows than have it for an answer, another row's answer that differs, or a negation. Which answers are the same is
told by their text, case and number; a finding may be a second right answer, and is printed to be looked at.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from cascade.chat import Response, Row
from cascade.environments.reasoning_gym import ENVIRONMENT
from cascade.errors import RowError

CONSTANTS = (
    *("0", "1", "-1", "2", "42", "0.5", "nan", "inf", "yes", "no", "true", "false", "A", "B", "heads", "tails", "none"),
    *("[]", "{}", "[[0]]", "0 0 0", "x", "the answer", "impossible", "-", "."),
)
COMBINED = frozenset({"composite"})
"""Made of other families; there is nothing to build by itself."""
OPPOSITES = {"yes": "no", "no": "yes", "true": "false", "false": "true", "heads": "tails", "tails": "heads"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("families", nargs="*", metavar="FAMILY", default=sorted(DATASETS.keys() - COMBINED))
    arguments.add_argument("--rows", type=int, default=8)
    arguments.add_argument("--gym", action="store_true", help="judge as NeMo Gym does, by the library alone")
    options = arguments.parse_args()
    sound = 0
    for family in options.families:
        found = list(findings(family, options.rows, {"grading": "gym"} if options.gym else {}))
        sound += not found
        for finding in found:
            print(f"{family}: {finding}", flush=True)
    print(f"{sound} of {len(options.families)} families without a finding")


def findings(family: str, count: int, fields: dict[str, Any]) -> Iterator[str]:
    data = reasoning_gym.create_dataset(family, size=count, seed=7)
    rows: list[Row] = []
    for index in range(count):
        row = {**json.loads(json.dumps(data[index], default=str)), **fields}
        try:
            ENVIRONMENT.check_row(row)
            rows.append(row)
        except RowError as error:
            yield f"refused: {error}"
    own = [str(row["answer"]) for row in rows]
    for constant in CONSTANTS:
        paid = sum(right(row, constant) for row, answer in zip(rows, own, strict=True) if not same(answer, constant))
        if paid:
            yield f"{constant!r} is paid in {paid} of {len(rows)} rows"
    for row, answer, other in zip(rows, own, [*own[1:], *own[:1]], strict=True):
        if not same(answer, other) and right(row, other):
            yield f"{other!r:.60} is paid for {answer!r:.60}"
        negated = negation(answer)
        if not same(answer, negated) and right(row, negated):
            yield f"{negated!r:.60} is paid for {answer!r:.60}"


def right(row: Row, answer: str) -> bool:
    return ENVIRONMENT.verify(row, Response(f"<answer>{answer}</answer>")).reward == 1


def negation(answer: str) -> str:
    if answer.lower() in OPPOSITES:
        return OPPOSITES[answer.lower()]
    return f"-{answer}" if answer.replace(".", "", 1).isdigit() else f"not {answer}"


def same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one.strip().lower() == other.strip().lower()


if __name__ == "__main__":
    main()
