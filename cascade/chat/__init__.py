"""Messages ↔ tokens: the tokenizer's own template, thinking modes, loss masks, tool-call parsing.

A conversation is a list of OpenAI-style messages (`role`, `content`, and for assistants optionally
`reasoning_content` and `tool_calls`). The template is the checkpoint's own; what it must have is the
prefix property: the prompt rendered for generation is a prefix of the finished conversation. Nemotron's
template has it. The response is what follows the prompt up to and including the end-of-turn token: the
same tokens are sampled in RL and trained on in SFT.
"""

from cascade.chat.gym import prompt_of, response_from_openai
from cascade.chat.messages import Message, Response, Row, ToolCall, text_of
from cascade.chat.parsing import json_object, parse_response, read_json, render_tool_call
from cascade.chat.template import (
    Conversation,
    conversation_pieces,
    encode,
    encode_conversation,
    encode_prompt,
    render,
    split_turns,
    turn_markers,
)

__all__ = [
    "Conversation",
    "Message",
    "Response",
    "Row",
    "ToolCall",
    "conversation_pieces",
    "encode",
    "encode_conversation",
    "encode_prompt",
    "json_object",
    "parse_response",
    "prompt_of",
    "read_json",
    "render",
    "render_tool_call",
    "response_from_openai",
    "split_turns",
    "text_of",
    "turn_markers",
]
