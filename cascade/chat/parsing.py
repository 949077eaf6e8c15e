"""Text → response: reasoning, tool calls, malformed calls."""

from __future__ import annotations

import re

from cascade.chat.dialects import TOOL_CALL, Dialect
from cascade.chat.messages import Response, ToolCall

_THOUGHT = re.compile(r"\s*<(think|thinking)>")


def parse_response(
    text: str, *, thinking: bool, finished: bool = True, dialect: Dialect = TOOL_CALL, tools: bool = True
) -> Response:
    """Parse the text sampled after the prompt, without the end-of-turn token.

    With `thinking` the prompt has opened a thought, and everything up to `</think>` is reasoning; where it is missing
    there is no answer. A response that starts with `<think>` is reasoning too, whatever `thinking` says, and so is one
    that starts with `<thinking>`, up to `</thinking>`. `dialect` reads the calls; where they have no tags, JSON is a
    call only if the prompt has `tools`.

    A tag within a parameter's value is text: a value ends where the next parameter, or the call's end, follows.
    Ambiguous tags and text between parameters make the call malformed, so that no argument is lost silently."""
    reasoning: str | None = None
    while (opening := _THOUGHT.match(text)) or thinking:
        name = opening[1] if opening and not thinking else "think"
        thought, closed, text = text.lstrip().removeprefix(f"<{name}>").partition(f"</{name}>")
        reasoning = f"{reasoning}\n{thought.strip()}" if reasoning is not None else thought.strip()
        if not closed:
            return Response("", reasoning, finished=finished)
        thinking = False
    calls: list[ToolCall] = []
    content: list[str] = []
    malformed: str | None = None
    at = 0
    while (tools or dialect.tagged) and (opening := dialect.opening.search(text, at)) is not None:
        content.append(text[at : opening.start()])
        try:
            read, at = dialect.read(text, opening.end())
            calls += read
        except ValueError as error:
            malformed = str(error)
            end = text.find(dialect.closing, opening.end()) if dialect.closing else -1
            if end < 0:
                if dialect.closing:
                    malformed = f"a {opening[0]} that is not closed"
                content.append(text[opening.start() :])
                at = len(text)
            else:
                at = end + len(dialect.closing)
    content.append(text[at:])
    return Response("".join(content).strip(), reasoning, tuple(calls), finished, malformed)
