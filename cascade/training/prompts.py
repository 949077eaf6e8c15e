"""Which prompts a step trains on: by domain, in the shares of the mix, each prompt once an epoch."""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cascade import environments
from cascade.chat import Row, prompt_of
from cascade.errors import CascadeError, RowError
from cascade.training.shuffle import ShuffledEpochs
from cascade.utils.progress import say

COLUMNS = ["id", "environment", "row"]


@dataclass(frozen=True)
class Prompt:
    id: str
    domain: str
    environment: str
    json: str
    """The Gym row, as JSON text: parsed, it would take several times the memory."""
    level: int | None = None
    """Difficulty, where the source has levels."""

    @property
    def row(self) -> Row:
        return json.loads(self.json)


@dataclass(frozen=True)
class Draw:
    """A drawn prompt. `position` counts the draws of its domain over the whole node."""

    prompt: Prompt
    position: int


@dataclass
class Cursor:
    """The position of drawing: what a resumed node needs to continue with the next prompt."""

    position: dict[str, int] = field(default_factory=dict)
    """Prompts drawn so far, by domain."""
    owed: dict[str, float] = field(default_factory=dict)
    """Carry-over by domain: its exact share so far minus its prompts so far. The name is the state file's."""

    def as_json(self) -> dict[str, Any]:
        return {"position": self.position, "owed": self.owed}


class PromptSource:
    """The prompts of a node's domains, drawn in seeded order."""

    def __init__(self, prompts: dict[str, list[Prompt]], mix: dict[str, float], *keys: int | str, cursor: Cursor):
        self.cursor = cursor
        self._prompts = prompts
        self._mix = mix
        self._order = {domain: ShuffledEpochs(len(prompts[domain]), *keys, "prompts", domain) for domain in mix}

    def draw_step(self, count: int) -> list[Draw]:
        """`count` prompts by the mix: shares are exact up to rounding, which is carried over to the next step."""
        counts = apportion(self._mix, count, self.cursor.owed)
        return [draw for domain, n in counts.items() for draw in self.draw(domain, n)]

    def draw(self, domain: str, count: int) -> list[Draw]:
        """The domain's next `count` prompts."""
        start = self.cursor.position.get(domain, 0)
        self.cursor.position[domain] = start + count
        order, prompts = self._order[domain], self._prompts[domain]
        return [Draw(prompts[order[position]], position) for position in range(start, start + count)]


def apportion(mix: dict[str, float], count: int, carry_over: dict[str, float]) -> dict[str, int]:
    """Domain → number of prompts, `count` in all, by largest remainder of share · count + carry-over; updates
    `carry_over`.

    Prompts are assigned one at a time to the domain with the largest remainder, so that no number is negative even
    where a domain had more than its share before.
    """
    total = sum(mix.values())
    remainders = {domain: share / total * count + carry_over.get(domain, 0.0) for domain, share in mix.items()}
    counts = dict.fromkeys(mix, 0)
    for _ in range(count):
        domain = max(remainders, key=lambda d: remainders[d])
        counts[domain] += 1
        remainders[domain] -= 1
    carry_over.update(remainders)
    return counts


def load_prompts(path: Path, domain: str) -> list[Prompt]:
    """The usable prompts of a domain's Parquet file. Rows that their environment cannot verify are
    dropped and counted.

    Raises CascadeError naming the file when it lacks a column or has no usable row.
    """
    names = pq.read_schema(path).names
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise CascadeError(f"{path}: no column {missing[0]!r}; prompt files have {', '.join(COLUMNS)}")
    prompts: list[Prompt] = []
    rejected: Counter[str] = Counter()
    columns = [*COLUMNS, *(["level"] if "level" in names else [])]
    for row in pq.read_table(path, columns=columns).to_pylist():
        prompt = Prompt(row["id"], domain, sys.intern(row["environment"]), row["row"], row.get("level"))
        try:
            _check(prompt)
        except RowError as error:
            rejected[error.code] += 1
        else:
            prompts.append(prompt)
    if rejected:
        reasons = ", ".join(f"{code} {count}" for code, count in sorted(rejected.items()))
        say(f"{path}: {rejected.total()} of {rejected.total() + len(prompts)} rows left out ({reasons})")
    if not prompts:
        raise CascadeError(f"{path}: no usable prompt for domain {domain!r}; check the curation report")
    return prompts


def _check(prompt: Prompt) -> None:
    try:
        row = prompt.row
    except json.JSONDecodeError as error:
        raise RowError("not_json", f"row {prompt.id}: not JSON ({error})") from None
    if prompt.environment not in environments.names():
        raise RowError("no_environment", f"row {prompt.id}: unknown environment {prompt.environment!r}")
    prompt_of(row)
    environments.get(prompt.environment).check_row(row)
