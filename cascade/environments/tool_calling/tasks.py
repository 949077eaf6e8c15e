"""Nano tool calls: a request in words, a few tools, one to three calls."""

import json
from random import Random
from typing import Any

from cascade.chat import ToolCall
from cascade.environments.synthetic.rows import NanoTask
from cascade.environments.tool_calling.catalog import RIVALS, TOOLS, Tool

LEADS = (
    "Please {0}.",
    "Can you {0}?",
    "Could you {0}?",
    "{0}.",
    "I need you to {0}.",
    "Would you {0}?",
    "Hello! Please {0}.",
    "{0}, please.",
    "I would like you to {0}.",
    "Help me: {0}.",
)
IN_ORDER = (
    "First {0}, then {1}",
    "{0} and then {1}",
    "{0}, after that {1}",
    "Start with this: {0}. Next, {1}",
    "{0}. When that is done, {1}",
    "Before anything else {0}, then {1}",
)
ANY_ORDER = (
    "{0} and {1}",
    "{0}, and also {1}",
    "{0}. I also want you to {1}",
    "Two things: {0}, {1}",
    "{0} as well as {1}",
    "Do both: {0} and {1}",
)


def make_task(rng: Random, level: int) -> NanoTask:
    """Levels: 1 one call of two tools; 2 one call of four, a similar one among them; 3 two calls; 4 three, in order."""
    calls_wanted = {1: 1, 2: 1, 3: 2, 4: 3}[level]
    ordered = calls_wanted == 3 or (calls_wanted == 2 and rng.random() < 0.5)
    used = rng.sample(TOOLS, calls_wanted)
    calls, phrases = [], []
    for tool in used:
        arguments = _draw_arguments(rng, tool)
        calls.append(ToolCall(tool.name, arguments))
        phrases.append(rng.choice(tool.requests).format(**arguments))
    offered = _offer(rng, used, 2 if level == 1 else 4, similar=level > 1)
    return NanoTask(
        prompt=_request(rng, phrases, ordered),
        reasoning=_reasoning(rng, calls, phrases),
        content="",
        tool_calls=tuple(calls),
        tools=[tool.schema() for tool in offered],
        fields={
            "ground_truth": [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in calls],
            "ordered": ordered,
        },
    )


def _draw_arguments(rng: Random, tool: Tool) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name, parameter in tool.parameters.items():
        value = parameter.draw(rng)
        while name == "destination" and value == arguments.get("origin"):
            value = parameter.draw(rng)
        arguments[name] = value
    return arguments


def _offer(rng: Random, used: list[Tool], count: int, similar: bool) -> list[Tool]:
    names = [tool.name for tool in used]
    if similar:
        rivals = [rival for name in names for rival in RIVALS.get(name, ())]
        rng.shuffle(rivals)
        names += [name for name in dict.fromkeys(rivals) if name not in names][: max(1, count - len(names) - 1)]
    others = [tool.name for tool in TOOLS if tool.name not in names]
    names = (names + rng.sample(others, max(0, count - len(names))))[: max(count, len(used))]
    rng.shuffle(names)
    by_name = {tool.name: tool for tool in TOOLS}
    return [by_name[name] for name in names]


def _request(rng: Random, phrases: list[str], ordered: bool) -> str:
    if len(phrases) == 1:
        return _sentence(rng.choice(LEADS).format(phrases[0]))
    joined = phrases[0]
    if len(phrases) == 2:
        joined = rng.choice(IN_ORDER if ordered else ANY_ORDER).format(*phrases)
    else:
        joined = rng.choice(
            (
                "First {0}, then {1}, and last {2}",
                "{0}. Then {1}. Then {2}",
                "{0}, then {1}, then {2}",
                "In this order: {0}; {1}; {2}",
                "Three steps. One: {0}. Two: {1}. Three: {2}",
                "Begin like this: {0}. Go on: {1}. At the end {2}",
                "{0} and then {1}. To finish, {2}",
                "{0}. After that {1}, and finally {2}",
            )
        ).format(*phrases)
    return _sentence(rng.choice(("{0}.", "{0}.", "{0}, please.", "{0}. Thank you.")).format(joined))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _reasoning(rng: Random, calls: list[ToolCall], phrases: list[str]) -> str:
    style = rng.randrange(3)
    parts = []
    for call, phrase in zip(calls, phrases, strict=True):
        arguments = ", ".join(f"{name} {value}" for name, value in call.arguments.items())
        parts.append(
            (
                f"{_sentence(phrase)}: {call.name} with {arguments}.",
                f"Use {call.name}: {arguments}.",
                f"The tool is {call.name}. Set {arguments}.",
            )[style]
        )
    count = "" if len(calls) == 1 else rng.choice((f"{len(calls)} calls. ", f"I need {len(calls)} calls. "))
    return count + " ".join(parts)
