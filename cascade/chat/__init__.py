"""Messages ↔ tokens: the tokenizer's own template, thinking modes, loss masks, tool-call parsing.

A conversation is a list of OpenAI-style messages (`role`, `content`, and for assistants optionally
`reasoning_content` and `tool_calls`). The template is the checkpoint's own; what it does is found by rendering
(`format`). A reply must continue the prompt that is rendered for generation. The response is what follows the prompt
up to and including the end-of-turn token: the same tokens are sampled in RL and trained on in SFT. What a template
does not show, or shows so that it does not come back, is an error of the row (`round_trip`).
"""

from cascade.chat.dialects import json_object, read_json, render_tool_call
from cascade.chat.format import ChatFormat, format_of, message_call
from cascade.chat.gym import prompt_of, response_from_openai
from cascade.chat.messages import Message, Response, Row, ToolCall, text_of
from cascade.chat.parsing import parse_response
from cascade.chat.round_trip import check_prompt, check_replies
from cascade.chat.template import (
    Conversation,
    encode,
    encode_checked_prompt,
    encode_conversation,
    encode_prompt,
    render,
    replies,
    split_turns,
    turn_markers,
)

__all__ = [
    "ChatFormat",
    "Conversation",
    "Message",
    "Response",
    "Row",
    "ToolCall",
    "check_prompt",
    "check_replies",
    "encode",
    "encode_checked_prompt",
    "encode_conversation",
    "encode_prompt",
    "format_of",
    "json_object",
    "message_call",
    "parse_response",
    "prompt_of",
    "read_json",
    "render",
    "render_tool_call",
    "replies",
    "response_from_openai",
    "split_turns",
    "text_of",
    "turn_markers",
]
