"""Tool calls: NeMo Gym's two servers and the Berkeley leaderboard's checker, each on calls right and changed."""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.agreement.case import Case, demonstrated, gym, gym_rows, rows
from cascade.chat import Response, Row, ToolCall, response_from_openai

SINGLE = "single_step_tool_use_with_argument_comparison"
BFCL = ("simple_python", "multiple", "parallel", "parallel_multiple", "live_simple")


def cases(count: int, seed: int, gym_packages: Path, bfcl_packages: Path) -> Iterator[Case]:
    yield from _single(count, seed)
    for row in gym_rows(gym_packages, SINGLE):
        bare = {key: value for key, value in row.items() if key != "response"}
        if "expected_action" not in bare:
            continue
        expected = _expected(bare["expected_action"])
        if expected is not None:
            for origin, calls, right in mutated(expected):
                yield _single_case(bare, Response("", tool_calls=calls), origin, right)
        yield _single_case(bare, Response("Could you say more?"), "a message", expected is None)
        if "response" in row:
            yield _single_case(bare, response_from_openai(row["response"]), "rollout", None)
    yield from _workplace(gym_packages)
    yield from _bfcl(count * 8, bfcl_packages)


def mutated(calls: Sequence[ToolCall]) -> Iterator[tuple[str, tuple[ToolCall, ...], bool | None]]:
    """Calls right and changed, each with its name and whether it still is what was asked for."""
    first, *rest = calls
    yield "as expected", tuple(calls), True
    yield "another tool", (ToolCall("another_tool", first.arguments), *rest), False
    yield "no call but the others", tuple(rest), False
    yield "a call twice", (first, *calls), None
    if rest:
        yield "in reverse", tuple(reversed(calls)), None
    for name, value in first.arguments.items():
        less = {key: part for key, part in first.arguments.items() if key != name}
        yield "an argument less", (ToolCall(first.name, less), *rest), None
        for origin, other, right in _values(value):
            yield origin, (ToolCall(first.name, {**first.arguments, name: other}), *rest), right
    yield "an argument more", (ToolCall(first.name, {**first.arguments, "not_asked_for": 1}), *rest), None


def _values(value: Any) -> Iterator[tuple[str, Any, bool | None]]:
    if isinstance(value, bool):
        yield "the opposite", not value, False
        yield "a truth as a number", int(value), None
        yield "a truth as text", str(value).lower(), None
    elif isinstance(value, int):
        yield "one more", value + 1, False
        yield "as a float", float(value), None
        yield "a number as text", str(value), None
    elif isinstance(value, float):
        yield "another number", value + 1.5, False
        yield "almost the same number", value + 1e-9, None
        yield "as text", str(value), None
    elif isinstance(value, str):
        yield "another word", "zebra", False if value.lower() != "zebra" else None
        yield "upper case", value.upper(), None
        yield "with a blank", f" {value} ", None
        yield "some words more", f"{value} please and thank you", None
        yield "without punctuation", "".join(c for c in value if c not in ",.-_/"), None
        yield "text as a list", [value], None
        yield "null", None, None
    elif isinstance(value, list):
        yield "a longer list", [*value, "zebra"], False
        yield "an empty list", [], False if value else None
        yield "a list in reverse", value[::-1], None
    elif isinstance(value, dict):
        yield "an object less", {}, False if value else None


def _single(count: int, seed: int) -> Iterator[Case]:
    for row in rows("tool_calling", count, seed, range(1, 4)):
        calls = demonstrated(row).tool_calls
        actions = [
            {"type": "function_call", "name": call.name, "arguments": json.dumps(call.arguments)} for call in calls
        ]
        wanted = actions[0] if len(actions) == 1 else {"type": "function_call_batch", "calls": actions}
        asked = {key: row[key] for key in ("id", "responses_create_params")}
        for agent in (f"{SINGLE}_agent", f"parallel_tool_calls_{SINGLE}_agent"):
            bare = {**asked, "expected_action": wanted, "agent_ref": {"type": "responses_api_agents", "name": agent}}
            for origin, made, right in mutated(calls):
                yield _single_case(bare, Response("", tool_calls=made), origin, right)


def as_case(row: Row, response: Response) -> Case:
    """A generated row as one with an `expected_action`."""
    calls = [{"type": "function_call", **call} for call in row["ground_truth"]]
    wanted = calls[0] if len(calls) == 1 else {"type": "function_call_batch", "calls": calls}
    asked = {key: row[key] for key in ("id", "responses_create_params")}
    agent = {"type": "responses_api_agents", "name": f"{SINGLE}_agent"}
    return _single_case({**asked, "expected_action": wanted, "agent_ref": agent}, response, "", None)


def _single_case(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    agent = str((row.get("agent_ref") or {}).get("name", ""))
    parallel = agent.startswith("parallel")
    row = row if agent else {**row, "agent_ref": {"type": "responses_api_agents", "name": f"{SINGLE}_agent"}}
    similarity = {"search": 0.3, "swe_pi": 0.0, "droid_": 0.0}.get(agent[:6], 0.1)
    asks = gym(SINGLE, row, response, similarity=similarity, f1=parallel)
    # There some of the calls earn some of the reward.
    known = right if right or not parallel else None
    return Case("tool_calling", row, response, origin, known, asks)


def _expected(action: dict[str, Any]) -> list[ToolCall] | None:
    if action["type"] == "message":
        return None
    calls = action["calls"] if action["type"] == "function_call_batch" else [action]
    return [ToolCall(call["name"], json.loads(call["arguments"])) for call in calls]


def _workplace(gym_packages: Path) -> Iterator[Case]:
    for row in gym_rows(gym_packages, "workplace_assistant"):
        bare = {key: value for key, value in row.items() if key != "response"}
        truth = bare["ground_truth"]
        truth = json.loads(truth) if isinstance(truth, str) else truth
        if not truth:
            continue
        calls = [ToolCall(call["name"], json.loads(call["arguments"])) for call in truth]
        look = ToolCall("company_directory_find_email_address", {"name": "raj"})
        variants = [
            *mutated(calls),
            ("looks something up first", (look, *calls), True),
            ("only looks up", (look,), False),
        ]
        for origin, made, right in variants:
            # Whether a changed argument changes the office otherwise is the office's to say.
            known = (
                right
                if origin in ("as expected", "another tool", "looks something up first", "only looks up")
                else None
            )
            response = Response("Done.", tool_calls=tuple(made))
            yield Case(
                "tool_calling", bare, response, f"office: {origin}", known, gym("workplace_assistant", bare, response)
            )
        if "response" in row:
            response = response_from_openai(row["response"])
            yield Case("tool_calling", bare, response, "rollout", None, gym("workplace_assistant", bare, response))


def _bfcl(count: int, packages: Path) -> Iterator[Case]:
    """Rows of its data, whose `possible_answer` lists what each argument may be: the first of each is expected here."""
    for category in BFCL:
        data = packages / "bfcl_eval" / "data"
        asked = (data / f"BFCL_v4_{category}.json").read_text().splitlines()
        possible = (data / "possible_answer" / f"BFCL_v4_{category}.json").read_text().splitlines()
        answers = {entry["id"]: entry["ground_truth"] for entry in map(json.loads, possible)}
        for entry in list(map(json.loads, asked))[:count]:
            truth = answers[entry["id"]]
            calls = [ToolCall(name, _first(arguments)) for call in truth for name, arguments in call.items()]
            if any(call.arguments is None for call in calls):
                continue
            row = _bfcl_row(entry, calls)
            for origin, made, right in mutated(calls):
                request = {
                    "functions": entry["function"],
                    "calls": [{call.name: call.arguments} for call in made],
                    "possible": truth,
                    "category": category,
                }
                response = Response("", tool_calls=tuple(made))
                one_way = all(
                    len(values) == 1 for call in truth for arguments in call.values() for values in arguments.values()
                )
                yield Case(
                    "tool_calling",
                    row,
                    response,
                    f"bfcl: {origin}",
                    right if one_way or right else None,
                    {"bfcl-eval": request},
                )


def _first(arguments: dict[str, list[Any]]) -> dict[str, Any]:
    """Each argument's first possible value; "" stands for one that may be left out."""
    found = {}
    for name, values in arguments.items():
        kept = [value for value in values if value != ""]
        if "" in values or not kept:
            continue
        found[name] = _inside(kept[0])
    return found


def _inside(value: Any) -> Any:
    """Objects list the possible values of their fields, too."""
    if isinstance(value, dict):
        return {
            name: _inside(part[0]) for name, part in value.items() if isinstance(part, list) and part and part[0] != ""
        }
    if isinstance(value, list):
        return [_inside(part) if isinstance(part, dict) else part for part in value]
    return value


def _bfcl_row(entry: dict[str, Any], calls: Sequence[ToolCall]) -> Row:
    tools = [
        {
            "type": "function",
            "name": function["name"],
            "description": function.get("description", ""),
            "parameters": _json_schema(function["parameters"]),
        }
        for function in entry["function"]
    ]
    truth = [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in calls]
    question = entry["question"][0]
    return {"responses_create_params": {"input": question, "tools": tools}, "ground_truth": truth}


def _json_schema(schema: Any) -> Any:
    """Its data names types as Python does."""
    if isinstance(schema, list):
        return [_json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    names = {"dict": "object", "float": "number", "tuple": "array"}
    found = {
        key: _json_schema(part)
        for key, part in copy.deepcopy(schema).items()
        if key not in ("optional", "default", "format")
    }
    kind = found.get("type")
    if kind == "any":
        del found["type"]
    elif isinstance(kind, str):
        found["type"] = names.get(kind, kind)
    return found
