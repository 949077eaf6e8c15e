"""Our chat encoding against nemo-toolkit's prompt formatter for Nemotron Nano v3, conversation by conversation.

Both must give a model the same tokens. Where their loss masks differ, the difference is this and nothing else:

- The formatter also trains the turn's header `<|im_start|>assistant\\n`, the opening of its reasoning (`<think>\\n` or
  `<think></think>`) and the newline behind `<|im_end|>`. In use the prompt ends with the former two, and sampling stops
  before the newline, so here only what is sampled is trained, in SFT as in RL.
- The formatter trains the last assistant turn alone; here every one after the last user message is, tool calls too.

The formatter knows no tools: their list goes to it inside the system message, calls inside the assistant's, results as
user turns. It then takes a result for the user's next message and cuts the reasoning before it away. The released
template does not, nor do we. It also strips an assistant's text, and so the newlines that the released template puts
before and behind calls: there the texts agree but for those, and in all other conversations the tokens. With the base
model's own template, which strips nothing, replies that end in a blank or in reasoning differ by that.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cascade.chat import encode_conversation, encode_prompt, render

formatter_module = pytest.importorskip(
    "nemo.collections.common.prompts.nemotron_nano_v3",
    reason="nemo-toolkit is not here; `make test-engines` installs it",
)

BASE = Path(__file__).parents[2] / "models" / "base"
RELEASED = (
    "{%- macro listed() %}{% for tool in tools or [] %}{{ '\n' + tool.function | tojson }}{% endfor %}{% endmacro %}"
    "{%- set last = namespace(user=-1) %}"
    "{%- for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\n' + listed() + '<|im_end|>\n' }}{% endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}"
    "{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user\n' }}{% endif %}"
    "{{ '<tool_response>\n' + m.content + '\n</tool_response>\n' }}"
    "{%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{%- elif m.role == 'assistant' %}"
    "{%- set kept = m.reasoning_content and loop.index0 > last.user %}"
    "{%- set opening = '<think>\n' + m.reasoning_content + '</think>' if kept else '<think></think>' %}"
    "{{ '<|im_start|>assistant\n' + (opening + m.content) | trim }}"
    "{%- for call in m.tool_calls or [] %}"
    "{{ ('\n' if loop.first else '') + '<tool_call>\n<function=' + call.function.name + '>\n' }}"
    "{%- for name, value in call.function.arguments.items() %}"
    "{{ '<parameter=' + name + '>\n' + value + '\n</parameter>\n' }}"
    "{%- endfor %}{{ '</function>\n</tool_call>\n' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' + m.content + (listed() if m.role == 'system' else '') }}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' + ('<think>\n' if enable_thinking else '<think></think>') }}{% endif %}"
)
"""The rules of the template released with Nemotron-3-Nano, but tools as JSON."""

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, AGAIN = ({"role": "user", "content": text} for text in ("What is 2 + 3?", "And 4 + 5? "))
PLAIN = {"role": "assistant", "content": "5"}
THOUGHT = {"role": "assistant", "reasoning_content": "2 + 3 = 5\n", "content": "\\boxed{5}"}
LATER = {"role": "assistant", "reasoning_content": "4 + 5 = 9", "content": "It is 9."}


def call(name: str, **arguments: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CALLS = {"role": "assistant", "content": "", "tool_calls": [call("add", a="2", b="3")]}
PARALLEL = {
    "role": "assistant",
    "content": "Two.",
    "tool_calls": [call("add", a="2", b="3"), call("add", a="4", b="5")],
}
RESULT, OTHER = ({"role": "tool", "content": text} for text in ("5", "9"))
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
    },
}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [ASK, PLAIN],
    "system": [SYSTEM, ASK, PLAIN],
    "thinking": [ASK, THOUGHT],
    "system, thinking": [SYSTEM, ASK, THOUGHT],
    "two turns": [ASK, PLAIN, AGAIN, PLAIN],
    "two turns, thinking": [SYSTEM, ASK, THOUGHT, AGAIN, LATER],
    "thinking, then not": [ASK, THOUGHT, AGAIN, PLAIN],
    "not thinking, then so": [ASK, PLAIN, AGAIN, LATER],
    "a call": [ASK, CALLS],
    "a call and its result": [ASK, CALLS, RESULT, PLAIN],
    "a result thought about": [SYSTEM, ASK, CALLS, RESULT, LATER],
    "parallel calls": [ASK, PARALLEL],
    "parallel calls and results": [ASK, PARALLEL, RESULT, OTHER, PLAIN],
    "calls in turn": [ASK, CALLS, RESULT, CALLS, OTHER, PLAIN],
    "a call in an earlier turn": [ASK, CALLS, RESULT, PLAIN, AGAIN, LATER],
}


@pytest.fixture(scope="module", params=["base", "released"])
def ours(request: pytest.FixtureRequest) -> Any:
    """The tokenizer, with the base model's own template and with the released one's rules."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    if request.param == "released":
        tokenizer.chat_template = RELEASED
    return tokenizer


@pytest.fixture(scope="module")
def formatter() -> Any:
    from nemo.collections.common.tokenizers import AutoTokenizer as NemoTokenizer

    return formatter_module.NemotronNanoV3PromptFormatter(NemoTokenizer(str(BASE)))


def turns(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict] | None) -> list[dict[str, str]]:
    """The conversation as the formatter takes it, reasoning of earlier turns and all.

    What a turn says is read off our rendering of it, as if it were the last: the formatter is to cut it down itself.
    """
    found = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            body = f"<tool_response>\n{message['content']}\n</tool_response>\n"
            if messages[index - 1]["role"] == "tool":
                found[-1]["content"] += body
            else:
                found.append({"role": "user", "content": body})
            continue
        if message["role"] == "assistant":
            text = render(tokenizer, [ASK, message], tools)
        else:
            text = render(tokenizer, [message], tools)
        body = text[text.rindex("<|im_start|>") :].removeprefix(f"<|im_start|>{message['role']}\n")
        found.append({"role": message["role"], "content": body.removesuffix("<|im_end|>\n")})
    if tools and found[0]["role"] != "system":
        text = render(tokenizer, [ASK], tools)
        found.insert(0, {"role": "system", "content": text.removeprefix("<|im_start|>system\n").split("<|im_end|>")[0]})
    return found


def same(tokenizer: Any, mine: list[int], theirs: list[int], messages: list[dict[str, Any]]) -> bool:
    """Equal tokens; with calls in the released template's form equal texts, but for newlines that stripping takes."""
    if tokenizer.chat_template != RELEASED or not any(message.get("tool_calls") for message in messages):
        return mine == theirs
    text, other = tokenizer.decode(mine), tokenizer.decode(theirs)
    text = text.replace("</tool_call>\n<|im_end|>", "</tool_call><|im_end|>")
    before, user, after = text.rpartition("<|im_start|>user\n")
    return before.replace("<think></think>\n", "<think></think>") + user + after == other


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [TOOL]], ids=["no tools", "tools"])
def test_tokens_and_mask(name: str, tools: list[dict] | None, ours: Any, formatter: Any) -> None:
    messages = CONVERSATIONS[name]
    mine = encode_conversation(ours, messages, tools)
    theirs = formatter.encode_dialog(turns(ours, messages, tools))
    ids, mask = theirs["input_ids"].tolist(), theirs["mask"].tolist()
    assert same(ours, mine.token_ids + ours("\n", add_special_tokens=False)["input_ids"], ids, messages)

    start, header = ours.convert_tokens_to_ids("<|im_start|>"), "<|im_start|>assistant\n"
    last = max(i for i, token in enumerate(ids) if token == start)
    assert mask == [i >= last for i in range(len(ids))]
    header += "<think>\n" if messages[-1].get("reasoning_content") else "<think></think>"
    opening = len(ours(header, add_special_tokens=False)["input_ids"])
    last = max(i for i, token in enumerate(mine.token_ids) if token == start)
    assert mine.trained[last:] == [False] * opening + [True] * (len(mine.trained) - last - opening)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_reply_after_the_last_user_message_is_trained(name: str, ours: Any) -> None:
    messages = CONVERSATIONS[name]
    mine = encode_conversation(ours, messages)
    text = ours.decode([token for token, trained in zip(mine.token_ids, mine.trained, strict=True) if trained])
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    replies = [message for message in messages[last:] if message["role"] == "assistant"]
    assert text.count("<|im_end|>") == len(replies)
    assert len(re.findall("<tool_call>", text)) == sum(len(reply.get("tool_calls", [])) for reply in replies)
    assert "<tool_response>" not in text


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("thinking", [True, False])
def test_prompts(name: str, thinking: bool, ours: Any, formatter: Any) -> None:
    messages = CONVERSATIONS[name][:-1]
    theirs = formatter.encode_dialog(turns(ours, messages, None), enable_thinking=thinking)
    assert same(ours, encode_prompt(ours, messages, thinking=thinking), theirs["input_ids"].tolist(), messages)


def test_reasoning_before_a_tool_s_result_is_kept(ours: Any, formatter: Any) -> None:
    """The one difference in tokens: to the formatter a result is the user's next message."""
    thoughtful = {**CALLS, "reasoning_content": "I shall add."}
    messages = [ASK, thoughtful, RESULT, PLAIN]
    mine = encode_conversation(ours, messages)
    text, other = (
        ours.decode(ids) for ids in (mine.token_ids, formatter.encode_dialog(turns(ours, messages, None))["input_ids"])
    )
    assert "I shall add." in text
    assert "I shall add." not in other
    trained = ours.decode([token for token, is_trained in zip(mine.token_ids, mine.trained, strict=True) if is_trained])
    assert trained.startswith("I shall add.")
    assert "<tool_response>" not in trained


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ({**THOUGHT, "content": ""}, "\n"),
        ({**PLAIN, "content": "5 "}, " "),
        ({**PLAIN, "content": "5\n"}, "\n"),
        ({**THOUGHT, "content": "\\boxed{5} "}, " "),
    ],
    ids=["no answer", "blank", "newline", "blank after reasoning"],
)
@pytest.mark.parametrize("later", [[], [AGAIN, PLAIN]], ids=["last", "earlier"])
def test_blanks_at_the_end_of_a_reply(
    reply: dict[str, Any], kept: str, later: list[dict[str, Any]], ours: Any, formatter: Any
) -> None:
    """The formatter strips them, as the released template does; the base model's own does so only after reasoning that
    it cuts."""
    messages = [ASK, reply, *later]
    mine = ours.decode(encode_conversation(ours, messages).token_ids) + "\n"
    theirs = ours.decode(formatter.encode_dialog(turns(ours, messages, None))["input_ids"])
    if ours.chat_template == RELEASED:
        assert mine == theirs
        return
    end = mine.index("<|im_end|>", mine.index("<|im_start|>assistant"))
    stripped = mine[:end].removesuffix(kept) + mine[end:]
    assert theirs == stripped
    assert (stripped != mine) or (bool(later) and "reasoning_content" in reply)
