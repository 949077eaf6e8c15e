"""reasoning-gym: every family's own answer, other rows' answers, and answers that fit any question."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from benchmarks.agreement.case import Case, demonstrated, gym, rows
from cascade.chat import Response, Row
from cascade.utils.seeds import derive_seed

CONSTANTS = ("0", "1", "yes", "True", "[]", "I do not know.", "{}", "-1")
WAYS = {
    "tags": "<answer>%s</answer>",
    "box": r"\boxed{%s}",
    "bare": "%s",
    "thought and tags": "Hm.\n<answer>%s</answer>",
}


def cases(count: int, seed: int, gym_packages: Path) -> Iterator[Case]:
    for row in rows("reasoning_gym", count, seed, range(1, 5)):
        yield _case(row, demonstrated(row).content, "demonstration", True)
    for family in sorted(DATASETS):
        found = list(_rows(family, max(count // 4, 2), seed))
        for row, after in zip(found, found[1:] + found[:1], strict=True):
            own, others = row["answer"], after["answer"]
            if not isinstance(own, str) or not own.strip():
                continue
            # Braces of an answer end a box too early for their pattern: one way of writing it for such families.
            for name, way in WAYS.items():
                yield _case(row, way % own, f"own answer, {name}", True)
            if isinstance(others, str):
                yield _case(row, WAYS["tags"] % others, "another row's answer", None)
            for constant in CONSTANTS:
                if constant.lower() != own.strip().lower():
                    yield _case(row, WAYS["tags"] % constant, f"constant {constant}", None)
            yield _case(row, WAYS["tags"] % f"not {own}", "negated", False)
            yield _case(row, WAYS["tags"] % own.upper(), "upper case", None)


def _rows(family: str, count: int, seed: int) -> Iterator[Row]:
    try:
        made = reasoning_gym.create_dataset(family, size=count, seed=derive_seed(seed, "agreement", family) % 2**31)
        entries: list[dict[str, Any]] = list(made)
    except Exception:
        # A few families only combine others, or need what is not here.
        return
    for entry in entries:
        asked = {"input": [{"role": "user", "content": entry["question"]}]}
        metadata = {**entry["metadata"], "source_dataset": family}
        # As a file holds it: tuples become lists there.
        yield json.loads(json.dumps({"responses_create_params": asked, **entry, "metadata": metadata}, default=str))


def _case(row: Row, text: str, origin: str, right: bool | None) -> Case:
    response = Response(text)
    return Case("reasoning_gym", row, response, origin, right, gym("reasoning_gym", row, response))


def as_case(row: Row, response: Response) -> Case:
    return _case(row, response.content, "", None)
