"""One rendering a conversation, many texts at once: the same tokens as one by one."""

import copy
import random

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from cascade import chat
from cascade.curation.encoding import Encoder, Renderer, Tokenizer
from cascade.errors import CascadeError

CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "it\nnow", "n": 3}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}, "n": {"type": "integer"}}},
    },
}


def made_conversation(rng: random.Random) -> list[dict]:
    """One that passes the form filter: up to three user messages, calls with results, reasoning here and there."""

    def text() -> str:
        return rng.choice(["yes", "a b\n\nc", "x = 3 < 4", "Ünï 优化", "- one\n- two"])

    messages = [{"role": "system", "content": rng.choice(["", "Be brief."])}] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 4)):
        messages.append({"role": "user", "content": text()})
        for _ in range(rng.randrange(3)):
            messages.append({"role": "assistant", "content": rng.choice(["", "let me see"]), "tool_calls": [CALL]})
            messages += [{"role": "tool", "content": text()}] * rng.randrange(1, 3)
        messages.append({"role": "assistant", "content": text()})
        for message in messages[-4:]:
            if message["role"] == "assistant" and rng.random() < 0.5:
                message["reasoning_content"] = text()
    return messages


def test_the_tokens_are_those_of_one_conversation_at_a_time(tokenizer: PreTrainedTokenizerFast, base):
    rng = random.Random(0)
    rows = [(made_conversation(rng), rng.choice([None, [TOOL]])) for _ in range(60)]
    rows = [
        (messages, tools or ([TOOL] if any("tool_calls" in m for m in messages) else None)) for messages, tools in rows
    ]
    assert Renderer(tokenizer).at_once
    for (messages, tools), examples in zip(rows, Encoder(tokenizer, base).conversations(rows), strict=True):
        expected = [chat.encode_conversation(tokenizer, turn, tools) for turn in chat.split_turns(messages)]
        assert [(e.token_ids.tolist(), e.trained.tolist()) for e in examples] == [
            (e.token_ids, e.trained) for e in expected
        ]


def test_a_template_that_looks_at_what_follows_is_rendered_in_the_general_way(tokenizer: PreTrainedTokenizerFast):
    """This one counts the messages in each prompt: the prompts of a conversation are not parts of its text."""
    counting = copy.copy(tokenizer)
    counting.chat_template = str(tokenizer.chat_template).replace(
        "{{- '<|im_start|>system\\n' }}", "{{- '<|im_start|>system\\n' }}{{ messages | length }}"
    )
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert counting.chat_template != tokenizer.chat_template
    renderer = Renderer(counting)
    assert not renderer.at_once
    pieces = renderer.conversation([*messages], None)
    replies = chat.replies(counting, messages, None)
    assert [text for text, _ in pieces] == [text for reply in replies for text in reply]


def test_prompts_and_rows_that_cannot_be_rendered(tokenizer: PreTrainedTokenizerFast, base):
    good = ([{"role": "user", "content": "q"}], None)
    bad = ([{"role": "user", "content": "q"}], [{"name": "no function"}])
    length, error = Encoder(tokenizer, base).prompts([good, bad])
    assert length == len(chat.encode_prompt(tokenizer, *good))
    assert error.code == "template"


def test_other_tokens_from_fastokens_stop_curation(tokenizer: PreTrainedTokenizerFast, base, monkeypatch):
    pytest.importorskip("fastokens")
    found = Tokenizer(tokenizer, base)
    assert found._fast is not None
    texts = ["The quick brown fox", "", "seven wizards"]
    ids, bounds = found.encode(texts)
    expected = [chat.encode(tokenizer, text) for text in texts]
    assert [part.tolist() for part in np.split(ids, bounds[1:-1])] == expected
    other = (np.zeros(len(texts), np.int32), np.arange(len(texts) + 1))
    monkeypatch.setattr(found, "_ids", lambda texts: other)
    with pytest.raises(CascadeError, match=r"tokenises 'The quick brown fox' otherwise"):
        found.encode(texts)
