"""The body of a request to `/verify`: a row of NeMo Gym with the response as an OpenAI Responses object."""

import json
from typing import Any

from cascade.chat import Response, Row

WITHHELD = ("response", "reward", "demonstration", "gym_url", "grading")
"""Fields of a row that are not the server's: the answer and verdict it came with, and where to ask."""


def verify_request(row: Row, response: Response) -> dict[str, Any]:
    params = row["responses_create_params"]
    if tools := params.get("tools"):
        # OpenAI's requests must have the field, and it may be null; a server refuses tools without it.
        params = {**params, "tools": [{"strict": None, **tool} if isinstance(tool, dict) else tool for tool in tools]}
    kept = {key: value for key, value in row.items() if key not in WITHHELD}
    return {**kept, "responses_create_params": params, "response": as_openai(row, response)}


def as_openai(row: Row, response: Response) -> dict[str, Any]:
    """The response in the form in which OpenAI's Responses API would have given it, with all required fields.

    Reasoning is a `reasoning` item with one summary, text a `message`, each call a `function_call`. Text comes
    before calls.
    """
    output: list[dict[str, Any]] = []
    status = "completed" if response.finished else "incomplete"
    if response.reasoning:
        summary = [{"type": "summary_text", "text": response.reasoning}]
        output.append({"type": "reasoning", "id": "reasoning-0", "summary": summary})
    if response.content:
        content = [{"type": "output_text", "text": response.content, "annotations": []}]
        message = {"type": "message", "id": "message-0", "role": "assistant", "status": status, "content": content}
        output.append(message)
    for number, call in enumerate(response.tool_calls):
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        made = {"type": "function_call", "id": f"call-{number}", "call_id": f"call-{number}", "status": "completed"}
        output.append({**made, "name": call.name, "arguments": arguments})
    params = row["responses_create_params"]
    return {
        "id": "response-0",
        "object": "response",
        "created_at": 0,
        "model": "policy",
        "status": status,
        "incomplete_details": None if response.finished else {"reason": "max_output_tokens"},
        "output": output,
        "tools": params.get("tools") or [],
        "tool_choice": params.get("tool_choice") or "auto",
        "parallel_tool_calls": params.get("parallel_tool_calls") is not False,
    }
