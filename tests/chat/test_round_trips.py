"""Fifteen chat templates × twelve kinds of conversation: rendered and parsed back, or refused; nothing lost.

The templates in templates/ have the structure of the published ones, in few words; where TRL is installed, those that
it brings are held against the same table.
"""

import gc
import weakref
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from benchmarks.chat_templates import (
    ASKED,
    KINDS,
    NOTE,
    OSLO,
    ROME,
    TOOLS,
    assistant,
    outcome,
    result,
    tokenizer_of,
    user,
)
from cascade import chat
from cascade.chat import Response, ToolCall, format_of
from cascade.errors import CascadeError, RowError
from cascade.rollout.torch_engine.sampler import stop_tokens
from cascade.rollout.transcript import render_answer

TEMPLATES = Path(__file__).parent / "templates"
HARMONY = {
    "start_anchor": "<|start|>assistant",
    "fields": {
        "thinking": {"open": "<|channel|>analysis<|message|>", "close": "<|end|>"},
        "content": {"open": "<|channel|>final<|message|>", "close": "<|return|>"},
        "tool_calls": {
            "open_pattern": r"(?:<\|start\|>assistant)? to=functions\.(?P<name>\w+)"
            r"<\|channel\|>commentary json<\|message\|>",
            "close": "<|call|>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
    },
}
K, TOOL, CALL, THOUGHT, TEXT = "kept", "tools", "calls", "reasoning", "content"
EXPECTED = {
    # one, system, several, awkward, thinking, tools, call, text+call, calls, arguments, results, thinking+results
    "nemotron": [K] * 12,
    "nemotron3": [K] * 12,
    "qwen3": [K] * 12,
    "glm4_moe": [K] * 12,
    "hermes": [K, K, K, K, THOUGHT, K, K, K, K, K, K, THOUGHT],
    "lfm2": [K, K, K, K, THOUGHT, K, K, K, K, K, K, THOUGHT],
    "deepseek_v3_1": [K, K, K, K, K, K, K, K, K, K, K, THOUGHT],
    "llama3_1": [K, K, K, K, THOUGHT, K, K, TEXT, "template", K, K, THOUGHT],
    "mistral": [K, K, K, K, THOUGHT, K, K, TEXT, K, K, K, THOUGHT],
    "deepseek_r1": [K, K, K, K, K, *[TOOL] * 7],
    "llama3": [K, K, K, K, THOUGHT, *[TOOL] * 7],
    "smollm2": [K, K, K, K, THOUGHT, *[TOOL] * 7],
    "phi3": [K, K, K, K, THOUGHT, *[TOOL] * 7],
    "gemma": [K, "template", K, K, THOUGHT, TOOL, TOOL, TOOL, TOOL, TOOL, "template", "template"],
    "harmony": [K, K, K, K, K, K, K, TEXT, CALL, K, K, K],
}
ENDS = {
    "gemma": ("<eos>", "<end_of_turn>", "<end_of_turn>"),
    "phi3": ("<|endoftext|>", "<|end|>", "<|end|>"),
    "glm4_moe": ("<|endoftext|>", "<|user|>", "<|observation|>"),
    "qwen3": ("<|endoftext|>", "<|im_end|>", "<|im_end|>"),
    "llama3_1": ("<|end_of_text|>", "<|eot_id|>", "<|eot_id|>"),
    "mistral": ("</s>", "</s>", "</s>"),
    "deepseek_r1": ("<｜end▁of▁sentence｜>",) * 3,
    "harmony": ("<|endoftext|>", "<|return|>", "<|call|>"),
}
"""The tokenizer's eos, as published (Qwen3: of the base models), what ends a turn, and what ends one with calls."""
PUBLISHED = {
    "hermes": "qwen2_5",
    "qwen3": "qwen3",
    "nemotron3": "nemotron_3_nano",
    "llama3": "llama3",
    "llama3_1": "llama3_1",
    "gemma": "gemma",
    "phi3": "phi3",
    "glm4_moe": "glm4moe",
    "lfm2": "lfm2_v2",
}


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    nemotron = Path(chat.__file__).parents[1] / "pretraining" / "chat_template.jinja"
    text = (nemotron if name == "nemotron" else TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    eos = ENDS.get(name, ("<|im_end|>",))[0]
    return tokenizer_of(text, eos, HARMONY if name == "harmony" else None)


@pytest.mark.parametrize("kind", range(12), ids=list(KINDS))
@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_conversation_comes_back_or_is_refused(name: str, kind: int) -> None:
    messages, tools = list(KINDS.values())[kind]
    found = outcome(tokenizer(name), messages, tools)
    assert (found or "kept").removeprefix("template_loses_") == EXPECTED[name][kind]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_published_template_gives_the_same(name: str) -> None:
    found = find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("TRL is not installed, which brings the templates")
    path = Path(found.origin).parent / "chat_templates" / f"{PUBLISHED[name]}.jinja"
    made = tokenizer_of(path.read_text(encoding="utf-8"), ENDS.get(name, ("<|im_end|>",))[0])
    outcomes = [(outcome(made, *kind) or "kept").removeprefix("template_loses_") for kind in KINDS.values()]
    # The messages of roles that Gemma does not have, and Phi-3 leaves out, are refused for another reason alike.
    assert outcomes == EXPECTED[name]


@pytest.mark.parametrize("name", list(ENDS))
def test_the_end_of_a_turn_is_the_templates_whatever_the_eos_is(name: str) -> None:
    eos, end, call_end = ENDS[name]
    made = tokenizer(name)
    assert (made.eos_token, format_of(made).end, format_of(made).call_end) == (eos, end, call_end)
    stops = {made.convert_tokens_to_ids(token) for token in ENDS[name]}
    assert stop_tokens(Model(), made) == stops
    conversation = chat.encode_conversation(made, [ASKED, assistant("Rain.")])
    written = [token for token, trained in zip(conversation.token_ids, conversation.trained, strict=True) if trained]
    assert made.decode(written).endswith(f"Rain.{end}")
    assert made.decode(conversation.token_ids[-1]) == end


class Model:
    generation_config = None


DIALECTS = {
    "nemotron": "tool_call",
    "hermes": "tool_call",
    "qwen3": "tool_call",
    "nemotron3": "python xml",
    "glm4_moe": "glm",
    "llama3_1": "llama",
    "mistral": "mistral",
    "deepseek_v3_1": "deepseek",
    "lfm2": "lfm",
    "llama3": None,
    "phi3": None,
}


@pytest.mark.parametrize("name", list(DIALECTS))
def test_how_a_template_writes_calls_is_found(name: str) -> None:
    dialect = format_of(tokenizer(name)).dialect
    assert (dialect and dialect.name) == DIALECTS[name]


# What is written, by hand.

REPLIES = {
    "qwen3": ("<think>\nHm.\n</think>\n\nYes.<|im_end|>", "Yes.<|im_end|>"),
    "deepseek_r1": ("Hm.\n</think>\n\nYes.<｜end▁of▁sentence｜>", "\n</think>\n\nYes.<｜end▁of▁sentence｜>"),
    "deepseek_v3_1": ("Hm.</think>Yes.<｜end▁of▁sentence｜>", "Yes.<｜end▁of▁sentence｜>"),
    "glm4_moe": ("\n<think>Hm.</think>\nYes.<|user|>", "\nYes.<|user|>"),
    "harmony": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "<|channel|>final<|message|>Yes.<|return|>",
    ),
}


@pytest.mark.parametrize("name", list(REPLIES))
def test_replies_with_and_without_a_thought(name: str) -> None:
    thought = chat.replies(tokenizer(name), [user("Hm?"), assistant("Yes.", thought="Hm.")])
    plain = chat.replies(tokenizer(name), [user("Hm?"), assistant("Yes.")])
    assert (thought[0][1], plain[0][1]) == REPLIES[name]


CALLS = {
    "hermes": '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
    "llama3_1": '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>',
    "mistral": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call00000"}]</s>',
    "deepseek_v3_1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
    '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
    "glm4_moe": "\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>"
    "<|observation|>",
    "lfm2": "<|tool_call_start|>[weather(city='Oslo')]<|tool_call_end|><|im_end|>",
    "harmony": ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_call_as_the_model_is_to_write_it(name: str) -> None:
    [(context, reply)] = chat.replies(tokenizer(name), [ASKED, assistant("", OSLO)], TOOLS)
    # Qwen2.5 breaks the line behind its header only where text or a call follows.
    assert reply.removeprefix("\n") == CALLS[name].removeprefix("\n")
    read = format_of(tokenizer(name)).parse(
        reply.removesuffix(format_of(tokenizer(name)).call_end), context, tools=TOOLS
    )
    assert (read.content, read.tool_calls, read.malformed) == ("", (OSLO,), None)


def test_qwen3_without_thinking_keeps_each_turn_as_it_was_sampled() -> None:
    """Rendered whole, the template takes the empty thought out of the first reply, which the prompt has put there."""
    messages = [ASKED, assistant("", OSLO), result("rain"), assistant("Rain.")]
    (_, call), (context, answer) = chat.replies(tokenizer("qwen3"), messages, TOOLS)
    assert call.startswith("<tool_call>\n{")
    assert context == (
        "\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert answer == "Rain.<|im_end|>"


def test_mistrals_system_text_stays_where_the_prompt_has_it() -> None:
    """The template writes it at the last message alone, so that a finished conversation has none."""
    messages = [
        {"role": "system", "content": "Be brief."},
        ASKED,
        assistant("", OSLO),
        result("rain"),
        assistant("Rain."),
    ]
    (prompt, _), (context, answer) = chat.replies(tokenizer("mistral"), messages, TOOLS)
    assert prompt.endswith("[/AVAILABLE_TOOLS][INST]Be brief.\n\nWeather in Oslo?[/INST]")
    assert context == '[TOOL_RESULTS]{"content": rain, "call_id": "call00000"}[/TOOL_RESULTS]'
    assert answer == "Rain.</s>"
    with pytest.raises(RowError) as caught:
        chat.encode_checked_prompt(tokenizer("mistral"), messages[:4], TOOLS)
    assert caught.value.code == "template_loses_content"


def test_what_is_found_does_not_keep_the_tokenizer() -> None:
    made = tokenizer_of((TEMPLATES / "hermes.jinja").read_text(), "<|im_end|>")
    assert format_of(made) is format_of(made)
    seen = weakref.ref(made)
    del made
    gc.collect()
    assert seen() is None


def test_another_template_is_looked_at_anew() -> None:
    made = tokenizer_of((TEMPLATES / "hermes.jinja").read_text(), "<|im_end|>")
    assert format_of(made).reasoning_key is None
    made.chat_template = (TEMPLATES / "qwen3.jinja").read_text()
    assert format_of(made).reasoning_key == "reasoning_content"


def test_the_date_of_a_template_does_not_change_with_the_day() -> None:
    assert "Today Date: 26 Jul 2024" in chat.render(tokenizer("llama3_1"), [ASKED], for_generation=True)


# Training on demonstrations and on rollouts: the same tokens.

EPISODES = {
    "two calls in turn": [
        ASKED,
        assistant("", OSLO),
        result("rain"),
        assistant("", ROME),
        result("sun"),
        assistant("Both."),
    ],
    "two results": [ASKED, assistant("", OSLO, ROME), result("rain"), result("sun"), assistant("Both.")],
    "a result without a call": [ASKED, assistant("I try."), result("no such tool"), assistant("Sorry.")],
}


THINKING = ["nemotron", "nemotron3", "qwen3", "glm4_moe", "deepseek_v3_1"]
DIRECT = [*THINKING, "hermes", "lfm2", "mistral"]


@pytest.mark.parametrize("episode", list(EPISODES))
@pytest.mark.parametrize(
    ("name", "thinking"), [*((name, True) for name in THINKING), *((name, False) for name in DIRECT)]
)
def test_an_episode_is_the_stream_that_is_sampled(name: str, thinking: bool, episode: str) -> None:
    made = tokenizer(name)
    messages = [dict(message) for message in EPISODES[episode]]
    after_results = name == "deepseek_v3_1"  # It thinks only after the user.
    for index, message in enumerate(messages):
        if thinking and message["role"] == "assistant" and not (after_results and index > 1):
            message["reasoning_content"] = "Hm."
    found = chat.replies(made, messages, TOOLS)
    stream = chat.render(made, messages[:1], TOOLS, thinking=thinking, for_generation=True) + found[0][1]
    at = 2
    for before, (_, reply) in pairwise(found):
        end = format_of(made).call_end if messages[at - 1].get("tool_calls") else format_of(made).end
        calls = format_of(made).parse(before[1].removesuffix(end), before[0], tools=TOOLS).tool_calls
        following = at
        while messages[following]["role"] == "tool":
            following += 1
        stream += render_answer(made, messages[at:following], thinking=thinking, calls=calls) + reply
        at = following + 1
    assert stream == "".join(context + reply for context, reply in found)


def test_results_carry_the_ids_that_the_model_wrote() -> None:
    call = ToolCall("weather", {"city": "Oslo"}, id="Ab3dEf6hI")
    read = format_of(tokenizer("mistral")).parse(
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}, "id": "Ab3dEf6hI"}]', "[/INST]", tools=TOOLS
    )
    assert [c.id for c in read.tool_calls] == [call.id]
    assert '"call_id": "Ab3dEf6hI"' in render_answer(
        tokenizer("mistral"), [result("rain")], thinking=False, calls=[call]
    )


@pytest.mark.parametrize(
    ("name", "calls", "expected"),
    [
        ("llama3_1", (OSLO, ROME), '<|start_header_id|>ipython<|end_header_id|>\n\n"rain"<|eot_id|>'),
        ("mistral", (ToolCall("weather", {}, id="x"),), '[TOOL_RESULTS]{"content": rain, "call_id": "call00000"}'),
        ("harmony", (), '<|start|>functions.tool to=assistant<|channel|>commentary<|message|>"rain"<|end|>'),
        (
            "harmony",
            (OSLO, ROME),
            '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"rain"<|end|>',
        ),
        ("hermes", (ToolCall("<|im_end|>", {"text": "<|im_end|>"}),), "\n<|im_start|>user\n<tool_response>\nrain\n"),
    ],
)
def test_what_a_model_calls_does_not_stop_its_episode(name: str, calls: tuple[ToolCall, ...], expected: str) -> None:
    assert render_answer(tokenizer(name), [result("rain")], thinking=False, calls=calls).startswith(expected)


@pytest.mark.parametrize("name", ["gemma", "phi3"])
def test_a_template_without_results_cannot_carry_an_episode(name: str) -> None:
    with pytest.raises(CascadeError, match="episodes need a template that does"):
        render_answer(tokenizer(name), [result("rain")], thinking=False)


# Reading


@pytest.mark.parametrize("name", ["smollm2", "hermes", "llama3_1", "mistral", "gemma", "phi3", "lfm2", "qwen3"])
def test_an_answer_without_a_thought_is_an_answer_where_the_prompt_opens_none(name: str) -> None:
    """`thinking: true` is the recipe's default: an evaluation of these models was 0."""
    chat_format = format_of(tokenizer(name))
    prompt = chat_format.render([ASKED], thinking=True, for_generation=True)
    assert chat_format.parse("It is \\boxed{7}.", prompt) == Response("It is \\boxed{7}.")
    assert chat_format.parse("<think>Hm.</think>7", prompt) == Response("7", "Hm.")


@pytest.mark.parametrize("name", ["nemotron", "nemotron3", "deepseek_r1", "deepseek_v3_1"])
def test_an_answer_in_an_open_thought_is_none(name: str) -> None:
    chat_format = format_of(tokenizer(name))
    prompt = chat_format.render([ASKED], thinking=True, for_generation=True)
    assert chat_format.parse("It is \\boxed{7}.", prompt) == Response("", "It is \\boxed{7}.")


def test_json_is_a_call_only_where_the_prompt_has_tools() -> None:
    chat_format = format_of(tokenizer("llama3_1"))
    text = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    assert chat_format.parse(text, "", tools=TOOLS).tool_calls == (OSLO,)
    assert chat_format.parse(text, "") == Response(text)
    other = '{"name": "Ann", "age": 7}'
    assert chat_format.parse(other, "", tools=TOOLS) == Response(other)


def test_transformers_parser_reads_what_the_tokenizer_brings() -> None:
    chat_format = format_of(tokenizer("harmony"))
    assert chat_format.response_template is HARMONY
    assert chat_format.reasoning_key == "thinking"
    text = "<|channel|>analysis<|message|>Hm.<|end|>"
    text += "<|start|>assistant to=functions.note<|channel|>commentary json<|message|>"
    assert chat_format.parse(f'{text}{{"text": "umbrella"}}', "<|start|>assistant", tools=TOOLS) == Response(
        "", "Hm.", (NOTE,)
    )
    broken = chat_format.parse(text + '{"text": ', "<|start|>assistant", tools=TOOLS)
    assert broken.malformed
    assert broken.tool_calls == ()


# What is refused, and how it is said

LOST = {
    "smollm2": [
        (KINDS["thinking"], "template_loses_reasoning", "the reasoning of message 1"),
        (KINDS["tools"], "template_loses_tools", "'weather' of the tool weather"),
        (([ASKED, assistant("", OSLO)], None), "template_loses_calls", "a call of message 1"),
    ],
    "phi3": [
        (
            ([ASKED, assistant("Wait."), result("rain"), assistant("Rain.")], None),
            "template_loses_results",
            "message 2",
        ),
    ],
    "llama3_1": [(KINDS["text and call"], "template_loses_content", "the text of message 1")],
}


@pytest.mark.parametrize(("name", "case"), [(name, i) for name, cases in LOST.items() for i in range(len(cases))])
def test_what_is_lost_is_named_with_what_to_do(name: str, case: int) -> None:
    (messages, tools), code, words = LOST[name][case]
    with pytest.raises(RowError, match=r"the chat template loses .*; give the base model") as caught:
        chat.encode_conversation(tokenizer(name), messages, tools)
    assert caught.value.code == code
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["smollm2", "llama3", "gemma", "phi3", "deepseek_r1"])
def test_a_prompt_that_does_not_show_its_tools_is_refused(name: str) -> None:
    with pytest.raises(RowError) as caught:
        chat.encode_checked_prompt(tokenizer(name), [ASKED], TOOLS)
    assert caught.value.code == "template_loses_tools"
    assert chat.encode_checked_prompt(tokenizer(name), [ASKED]) == chat.encode_prompt(tokenizer(name), [ASKED])


def test_a_prompt_that_does_not_show_earlier_calls_or_results_is_refused() -> None:
    called = [ASKED, assistant("", OSLO), result("rain"), user("And now?")]
    for name, code in (("smollm2", "template_loses_calls"), ("phi3", "template_loses_calls"), ("hermes", None)):
        try:
            chat.encode_checked_prompt(tokenizer(name), called)
            found = None
        except RowError as error:
            found = error.code
        assert found == code
    with pytest.raises(RowError) as caught:
        chat.encode_checked_prompt(tokenizer("phi3"), [ASKED, assistant("Wait."), result("rain"), user("Now?")])
    assert caught.value.code == "template_loses_results"


def test_parameters_of_parameters_count() -> None:
    inner = {"type": "object", "properties": {"deep": {"type": "string", "description": "Deep down."}}}
    schema = {"type": "object", "properties": {"outer": {"type": "array", "items": inner}}}
    tools = [{"type": "function", "function": {"name": "dig", "description": "Digs.", "parameters": schema}}]
    chat.encode_checked_prompt(tokenizer("hermes"), [ASKED], tools)
    with pytest.raises(RowError, match="'deep' of the tool dig"):
        chat.encode_checked_prompt(tokenizer("nemotron"), [ASKED], tools)


def test_texts_that_the_parser_takes_for_something_else_are_refused() -> None:
    for text in ("<tool_call>\nno call\n</tool_call>", "<think>not a thought</think>rest"):
        with pytest.raises(RowError) as caught:
            chat.encode_conversation(tokenizer("hermes"), [ASKED, assistant(text)])
        assert caught.value.code.startswith("template_loses_")


@pytest.mark.parametrize("name", list(EXPECTED))
def test_markers_are_the_tokens_around_turns(name: str) -> None:
    markers = chat.turn_markers(tokenizer(name))
    assert markers.search(format_of(tokenizer(name)).end)
    assert not markers.search("<think>Hm.</think> <b>[1]</b> {'a': 1}")
