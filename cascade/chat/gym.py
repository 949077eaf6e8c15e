"""NeMo Gym's rows and OpenAI's Responses objects: prompts and responses in their form."""

from __future__ import annotations

from typing import Any

from cascade.chat.dialects import json_object
from cascade.chat.messages import Message, Response, Row, ToolCall, text_of
from cascade.chat.parsing import parse_response
from cascade.errors import RowError


def prompt_of(row: Row) -> tuple[list[Message], list[dict] | None]:
    """The messages and tools of a NeMo Gym row (`responses_create_params`).

    Raises RowError (`no_prompt`) when there is nothing to answer.
    """
    params = row.get("responses_create_params")
    if not isinstance(params, dict) or not params.get("input"):
        raise RowError("no_prompt", "the row has no responses_create_params.input")
    source = params["input"]
    items = [{"role": "user", "content": source}] if isinstance(source, str) else source
    messages = [_message_from_item(item) for item in items]
    return messages, [_tool_schema(tool) for tool in params.get("tools") or []] or None


def response_from_openai(response: Any) -> Response:
    """A Response from plain text or from an OpenAI Responses object (`output` items).

    Raises RowError (`bad_response`) when it is neither.
    """
    if isinstance(response, str):
        return parse_response(response, thinking="</think>" in response)
    if not isinstance(response, dict) or not isinstance(response.get("output"), list):
        raise RowError("bad_response", "`response` is neither text nor an OpenAI Responses object with `output`")
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    malformed = None
    for item in response["output"]:
        kind = item.get("type", "message")
        if kind == "message" and item.get("role", "assistant") == "assistant":
            content.append(text_of(item.get("content")))
        elif kind == "reasoning":
            reasoning.append(text_of(item.get("content") or item.get("summary")))
        elif kind == "function_call":
            try:
                calls.append(ToolCall(item["name"], json_object(item.get("arguments") or "{}")))
            except ValueError as error:
                malformed = f"arguments of {item.get('name')}: {error}"
    text, thought = "\n".join(content), "\n".join(reasoning)
    # Where the thought stands in an item of its own, `</think>` in the answer is text.
    apart = bool(thought.strip()) or any(item.get("encrypted_content") for item in response["output"])
    # An answer that begins with a call, too, is no thought: the tag stands in a value.
    thinking = "</think>" in text and not apart and not text.lstrip().startswith("<tool_call>")
    parsed = parse_response(text, thinking=thinking)
    details = response.get("incomplete_details") or {}
    return Response(
        parsed.content,
        thought or parsed.reasoning,
        tuple(calls) + parsed.tool_calls,
        details.get("reason") != "max_output_tokens",
        malformed or parsed.malformed,
    )


def _message_from_item(item: dict) -> Message:
    """One item of an OpenAI Responses input as a chat message."""
    kind = item.get("type", "message")
    if kind == "function_call":
        call = {"name": item["name"], "arguments": json_object(item.get("arguments") or "{}")}
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
    if kind == "function_call_output":
        return {"role": "tool", "content": text_of(item.get("output"))}
    if "role" not in item:
        raise RowError("no_prompt", f"an input item of type {kind!r} has no role")
    role = "system" if item["role"] == "developer" else item["role"]
    extra = {key: item[key] for key in ("reasoning_content", "tool_calls") if item.get(key)}
    return {"role": role, "content": text_of(item.get("content")), **extra}


def _tool_schema(tool: dict) -> dict:
    """The chat-completions form of a tool, which templates expect; the Responses form is flat."""
    if "function" in tool:
        return tool
    return {"type": "function", "function": {k: tool[k] for k in ("name", "description", "parameters") if k in tool}}
