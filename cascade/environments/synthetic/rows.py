"""What the nano task generators share: one random stream a row, Gym row fields, stable ids."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any

from cascade.chat import Message, Row, ToolCall
from cascade.environments.registry import check_level
from cascade.utils.seeds import derive_seed


@dataclass(frozen=True)
class NanoTask:
    """One task with its correct answer. `fields` is what the environment verifies with."""

    prompt: str | list[Message]
    """The user's message, or a conversation that ends with one."""
    reasoning: str
    content: str
    fields: dict[str, Any]
    tool_calls: tuple[ToolCall, ...] = ()
    tools: list[dict] = field(default_factory=list)


def nano_rows(
    environment: str,
    domain: str,
    count: int,
    seed: int,
    level: int,
    make: Callable[[Random, int], NanoTask],
) -> Iterator[Row]:
    """`count` rows of `make(rng, level)`; row i depends on (environment, seed, level, i) alone.

    Raises CascadeError where there is no such level.
    """
    check_level(environment, level)
    return (
        _row(environment, domain, level, make(Random(derive_seed("nano", environment, seed, level, index)), level))
        for index in range(count)
    )


def shortened(reasoning: str, rng: Random) -> str:
    """The opening of a trace, as somebody in a hurry leaves it: at most half of its clauses."""
    clauses = re.split(r"(?<=[.;,\n])\s*", reasoning)
    return " ".join(clauses[: rng.randint(0, max(len(clauses) // 2, 1))]).strip() or "ok."


def _row(environment: str, domain: str, level: int, task: NanoTask) -> Row:
    messages = [{"role": "user", "content": task.prompt}] if isinstance(task.prompt, str) else task.prompt
    params: dict[str, Any] = {"input": messages}
    if task.tools:
        params["tools"] = task.tools
    demonstration: dict[str, Any] = {"reasoning": task.reasoning, "content": task.content}
    if task.tool_calls:
        demonstration["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in task.tool_calls
        ]
    identity = json.dumps([params, task.fields], sort_keys=True, ensure_ascii=False)
    return {
        "id": f"{environment}-{blake2b(identity.encode(), digest_size=8).hexdigest()}",
        "environment": environment,
        "domain": domain,
        "level": level,
        "responses_create_params": params,
        **task.fields,
        "demonstration": demonstration,
    }
