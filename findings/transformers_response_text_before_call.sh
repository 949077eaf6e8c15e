#!/usr/bin/env bash
# transformers 5.18.0: a Qwen3 reply with text before each of two tool calls, read with the response template that
# `transformers serve` has for Qwen3 (its tokenizer brings none).
# Expected: the content of the message is all text outside of calls. The documentation of response parsing says that
# such a field "captures leftover text" and that finalize() returns "the complete message dict"; and the same parser
# streams all of it.
# Seen: the content is the last stretch alone, and nothing is said. So a reply that is streamed has text that the
# message lacks.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv && venv/bin/pip install --quiet "torch==2.13.0" numpy "transformers==5.18.0"
venv/bin/python - <<'PY'
import json
from types import SimpleNamespace

import transformers
from transformers.cli.serving.utils import get_response_template
from transformers.utils.chat_parsing import ResponseParser

template = get_response_template(SimpleNamespace(), SimpleNamespace(config=SimpleNamespace(model_type="qwen3")))
prompt = "<|im_start|>user\nHow warm is it in Oslo and in Bergen?<|im_end|>\n<|im_start|>assistant\n"


def call(town):
    return "\n<tool_call>\n" + json.dumps({"name": "weather", "arguments": {"town": town}}) + "\n</tool_call>"


parser = ResponseParser(template, prefix=prompt)
reply = "Oslo, where you live, comes first." + call("Oslo") + "\nNow Bergen." + call("Bergen") + "<|im_end|>"
events = parser.feed(reply)
message, last = parser.finalize()
streamed = "".join(e["text"] for e in events + last if e["type"] == "region_chunk" and e["field"] == "content")
print("transformers", transformers.__version__)
print("streamed:", json.dumps(streamed))
print("message: ", json.dumps(message["content"]), "and", len(message["tool_calls"]), "calls")
assert "Oslo" in streamed and "Oslo" not in message["content"], "changed: the message keeps the text that was streamed"
PY
