"""One response to one row, and what each peer is asked about it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade import environments
from cascade.chat import Response, Row, ToolCall
from cascade.environments.gym_server.request import verify_request
from cascade.utils.seeds import derive_seed


@dataclass(frozen=True)
class Case:
    environment: str
    row: Row
    response: Response
    origin: str
    """How the response came about: `demonstration`, `rollout`, or the name of the form or mutation."""
    right: bool | None
    """Whether the answer is right, where it was built so that this is known; None where it was not."""
    asks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By peer, the worker's request."""


def rows(environment: str, count: int, seed: int, levels: range) -> Iterator[Row]:
    """Generated rows, `count` a level."""
    for level in levels:
        yield from environments.get(environment).generate(count, derive_seed(seed, "agreement", environment), level)


def demonstrated(row: Row) -> Response:
    shown = row["demonstration"]
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"]) for call in shown.get("tool_calls") or ()
    )
    return Response(shown["content"], shown["reasoning"], calls)


def gym(server: str, row: Row, response: Response, **options: Any) -> dict[str, Any]:
    """The request about a row of NeMo Gym's, to one of its servers."""
    return {"nemo-gym": {"server": server, "body": verify_request(row, response), **options}}


def gym_rows(gym_packages: Path, server: str) -> Iterator[Row]:
    """The rows that NeMo Gym's package brings with a server, and rollouts of real models with their rows' fields."""
    found = [
        row
        for path in sorted((gym_packages / "resources_servers" / server / "data").glob("*example*.jsonl"))
        if "metrics" not in path.name
        for row in map(json.loads, path.read_text().splitlines())
    ]
    by_prompt = {_asked(row): row for row in found if "response" not in row}
    yield from by_prompt.values()
    for row in found:
        if "response" in row and (known := by_prompt.get(_asked(row))):
            yield {**known, "response": row["response"]}


def _asked(row: Row) -> str:
    """What is said in the prompt; a rollout's row lists more fields of the same messages."""
    said = row["responses_create_params"]["input"]
    return said if isinstance(said, str) else "\n".join(str(item.get("content")) for item in said)
