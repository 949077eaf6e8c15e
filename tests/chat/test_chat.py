"""Messages ↔ tokens: Gym rows, the project's template, loss masks, and taking responses apart."""

import copy
import json

import pytest
from transformers import PreTrainedTokenizerFast

from cascade import chat
from cascade.chat import Response, ToolCall, parse_response
from cascade.errors import CascadeError, RowError
from cascade.pretraining.tokenizer import train_tokenizer

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "unit": {"enum": ["°C", "°F"]},
                "days": {"type": ["integer", "null"]},
            },
        },
    },
}


def user(text: str) -> chat.Message:
    return {"role": "user", "content": text}


def assistant(content: str = "", reasoning: str = "", *calls: ToolCall) -> chat.Message:
    message: chat.Message = {"role": "assistant", "content": content}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
        ]
    return message


def result(text: str) -> chat.Message:
    return {"role": "tool", "content": text}


WEATHER = ToolCall("weather", {"city": "Oslo"})
EPISODE = [
    user("Weather in Oslo and Rome?"),
    assistant("", "Two calls.", WEATHER, ToolCall("weather", {"city": "Rome"})),
    result("rain"),
    result("sun"),
    assistant("Rain in Oslo, sun in Rome.", "Both are here."),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["What is the weather in Oslo? The weather is fine."] * 5, 320, 512)


@pytest.fixture
def learned(tokenizer):
    """The trained and the read text of a conversation."""

    def split(messages, tools=None) -> tuple[str, str]:
        found = chat.encode_conversation(tokenizer, messages, tools)
        parts = ([], [])
        for token, trained in zip(found.token_ids, found.trained, strict=True):
            parts[not trained].append(token)
        return tokenizer.decode(parts[0]), tokenizer.decode(parts[1])

    return split


# The template


def test_a_prompt_ends_where_the_assistant_begins(tokenizer):
    thinking = chat.render(tokenizer, [user("Hi")], for_generation=True)
    assert thinking == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    direct = chat.render(tokenizer, [user("Hi")], thinking=False, for_generation=True)
    assert direct == thinking.removesuffix("<think>\n") + "<think></think>"


def test_reasoning_before_the_last_user_message_is_cut(tokenizer):
    messages = [user("One?"), assistant("1", "first thought"), user("Two?"), assistant("2", "second thought")]
    text = chat.render(tokenizer, messages)
    assert "first thought" not in text
    assert "<|im_start|>assistant\n<think></think>1<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n<think>\nsecond thought\n</think>\n2<|im_end|>\n")


def test_reasoning_between_tool_calls_is_kept(tokenizer):
    text = chat.render(tokenizer, EPISODE, [TOOL])
    assert "<think>\nTwo calls.\n</think>" in text
    assert "<think>\nBoth are here.\n</think>" in text


def test_system_messages_and_tools_share_the_first_turn(tokenizer):
    text = chat.render(tokenizer, [{"role": "system", "content": "Be brief."}, user("Hi")], [TOOL])
    system, rest = text.split("<|im_end|>\n", 1)
    assert system == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n<tools>\n<function>\n<name>weather</name>"
        "\n<description>Tells the weather.</description>\n<parameters>"
        "\n<parameter>\n<name>city</name>\n<type>string</type>\n<description>Where.</description>\n</parameter>"
        '\n<parameter>\n<name>unit</name>\n<enum>["°C", "°F"]</enum>\n</parameter>'
        "\n<parameter>\n<name>days</name>\n</parameter>"
        "\n</parameters>\n</function>\n</tools>"
    )
    assert rest == "<|im_start|>user\nHi<|im_end|>\n"


def test_results_of_several_calls_are_one_turn_of_the_user_side(tokenizer):
    text = chat.render(tokenizer, EPISODE, [TOOL])
    assert text.count("<|im_start|>user\n") == 2
    assert (
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response>\n<|im_end|>"
    ) in text


def test_tools_without_parameters_or_description_render(tokenizer):
    text = chat.render(tokenizer, [user("Hi")], [{"type": "function", "function": {"name": "ping"}}])
    assert "<name>ping</name>\n<parameters>\n</parameters>" in text


def test_a_tokenizer_without_template_is_named(tokenizer):
    bare = copy.copy(tokenizer)
    bare.chat_template = None
    with pytest.raises(CascadeError, match="no chat template; add one"):
        chat.render(bare, [user("Hi")])


# Loss masks


@pytest.mark.parametrize("thought", ["", "Some thought."])
def test_sft_trains_on_the_tokens_that_rl_samples(tokenizer, thought):
    messages = [user("Weather?"), assistant("Fine.", thought)]
    found = chat.encode_conversation(tokenizer, messages)
    prompt = chat.encode_prompt(tokenizer, messages[:1], thinking=bool(thought))
    assert found.token_ids[: len(prompt)] == prompt
    assert found.trained == [False] * len(prompt) + [True] * (len(found.token_ids) - len(prompt))
    assert found.token_ids[-1] == tokenizer.eos_token_id
    response = parse_response(tokenizer.decode(found.token_ids[len(prompt) : -1]), thinking=bool(thought))
    assert response == Response("Fine.", thought or None)


def test_every_reply_after_the_last_user_message_is_trained_and_nothing_else(learned):
    trained, read = learned(EPISODE, [TOOL])
    assert trained == (
        "Two calls.\n</think>\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"
        "<|im_end|>Both are here.\n</think>\nRain in Oslo, sun in Rome.<|im_end|>"
    )
    assert "rain" in read
    assert read.count("<think>\n") == 2


def test_earlier_replies_are_context(learned):
    trained, read = learned([user("One?"), assistant("1", "thought"), user("Two?"), assistant("2")])
    assert trained == "2<|im_end|>"
    assert "1<|im_end|>" in read


def test_the_tokens_are_those_of_the_whole_rendering(tokenizer):
    found = chat.encode_conversation(tokenizer, EPISODE, [TOOL])
    assert tokenizer.decode(found.token_ids) + "\n" == chat.render(tokenizer, EPISODE, [TOOL])


def test_thinking_that_comes_and_goes_keeps_the_prefix(learned):
    messages = [user("Weather?"), assistant("", "", WEATHER), result("rain"), assistant("Rain.", "Now I know.")]
    trained, _ = learned(messages, [TOOL])
    assert trained.startswith("<tool_call>\n<function=weather>")
    assert trained.endswith("<|im_end|>Now I know.\n</think>\nRain.<|im_end|>")


@pytest.mark.parametrize("messages", [[user("Hi")], [assistant("Hi"), user("Hi")], []])
def test_a_conversation_without_a_reply_is_rejected(tokenizer, messages):
    with pytest.raises(RowError) as caught:
        chat.encode_conversation(tokenizer, messages)
    assert caught.value.code == "no_reply"


def test_a_template_without_the_prefix_property_is_rejected(tokenizer):
    other = copy.copy(tokenizer)
    other.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>"
    with pytest.raises(RowError) as caught:
        chat.encode_conversation(other, [user("Hi"), assistant("Ho")])
    assert caught.value.code == "template"


def test_a_conversation_is_split_after_each_user_messages_replies():
    first, second = [user("a"), assistant("b")], [user("c"), assistant("d"), result("e"), assistant("f")]
    assert chat.split_turns([*first, *second, user("g")]) == [first, first + second]
    assert chat.split_turns([user("a"), user("b"), assistant("c")]) == [[user("a"), user("b"), assistant("c")]]
    assert chat.split_turns([]) == []


# Taking responses apart


@pytest.mark.parametrize(
    "reply",
    [
        Response("Fine.", "Think."),
        Response("Fine.", None),
        Response("two\n\nlines", "a\nb"),
        Response("", "t", (WEATHER,)),
        Response("First.", None, (WEATHER, ToolCall("ping", {}))),
        Response("", None, (ToolCall("f", {"n": 3, "x": 2.5, "b": True, "z": None, "l": [1, "a"], "o": {"k": "é"}}),)),
        Response("", None, (ToolCall("f", {"text": "two\nlines", "quote": 'say "hi"', "tag": "a < b"}),)),
    ],
)
def test_what_is_rendered_parses_to_what_it_was(tokenizer, reply):
    thinking = reply.reasoning is not None
    messages = [user("Hi"), assistant(reply.content, reply.reasoning or "", *reply.tool_calls)]
    prompt = chat.render(tokenizer, messages[:1], thinking=thinking, for_generation=True)
    text = chat.render(tokenizer, messages, thinking=thinking).removeprefix(prompt).removesuffix("<|im_end|>\n")
    assert parse_response(text, thinking=thinking) == reply
    calls = "\n".join(chat.render_tool_call(call) for call in reply.tool_calls)
    assert text.endswith(calls)


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("no end", True, Response("", "no end")),
        ("<think>again</think>x", True, Response("x", "again")),
        ("a</think>b</think>c", True, Response("b</think>c", "a")),
        ("", True, Response("", "")),
        ("", False, Response("")),
        ("<tool_call>ping</tool_call> thought</think>x", True, Response("x", "<tool_call>ping</tool_call> thought")),
    ],
)
def test_reasoning_ends_at_the_first_end(text, thinking, expected):
    assert parse_response(text, thinking=thinking) == expected


def test_an_unfinished_response_is_marked():
    assert parse_response("half of", thinking=False, finished=False) == Response("half of", finished=False)
    assert not parse_response("half of", thinking=True, finished=False).finished


def test_the_older_json_form_of_a_call_is_read():
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert parse_response(text, thinking=False).tool_calls == (WEATHER,)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>weather Oslo</tool_call>",
        "<tool_call></tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        "<tool_call>[1]</tool_call>",
        "<tool_call>\n<function=weather>\n</tool_call>",
        "<tool_call>\n<function=weather>",
        "x" * 10 + "<tool_call>" * 1000,
    ],
)
def test_a_broken_call_is_malformed_and_no_call(text):
    response = parse_response(text, thinking=False)
    assert response.malformed
    assert response.tool_calls == ()


def test_the_calls_beside_a_broken_one_are_read():
    text = chat.render_tool_call(WEATHER) + "<tool_call>broken</tool_call>"
    response = parse_response(text, thinking=False)
    assert (response.tool_calls, response.content) == ((WEATHER,), "")
    assert response.malformed


# NeMo Gym rows and OpenAI responses


def test_a_gym_rows_input_becomes_messages():
    params = {
        "input": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Wea"}, {"type": "input_text", "text": "ther?"}],
            },
            {"type": "function_call", "name": "weather", "arguments": '{"city": "Oslo"}', "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": "rain"},
        ],
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}, TOOL],
    }
    messages, tools = chat.prompt_of({"responses_create_params": params})
    assert messages == [
        {"role": "system", "content": "Be brief."},
        user("Weather?"),
        assistant("", "", WEATHER),
        result("rain"),
    ]
    assert tools is not None
    assert tools[0] == {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    assert tools[1] == TOOL


def test_an_input_given_as_text_is_a_user_message():
    assert chat.prompt_of({"responses_create_params": {"input": "Hi"}}) == ([user("Hi")], None)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"responses_create_params": None},
        {"responses_create_params": "Hi"},
        {"responses_create_params": {"input": []}},
        {"responses_create_params": {"input": [{"type": "reasoning"}]}},
    ],
)
def test_a_row_without_a_prompt_is_rejected(row):
    with pytest.raises(RowError) as caught:
        chat.prompt_of(row)
    assert caught.value.code == "no_prompt"


def test_an_openai_response_is_taken_apart():
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I think."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Fine."}]},
        {"type": "function_call", "name": "weather", "arguments": json.dumps(WEATHER.arguments)},
    ]
    assert chat.response_from_openai({"output": output}) == Response("Fine.", "I think.", (WEATHER,))
    cut = {"output": output[:2], "incomplete_details": {"reason": "max_output_tokens"}}
    assert not chat.response_from_openai(cut).finished
    broken = {"output": [{"type": "function_call", "name": "weather", "arguments": "{"}]}
    assert "arguments of weather" in (chat.response_from_openai(broken).malformed or "")


def test_a_response_given_as_text_may_hold_its_reasoning():
    assert chat.response_from_openai("<think>t</think>x") == Response("x", "t")
    assert chat.response_from_openai("x") == Response("x")


@pytest.mark.parametrize("response", [None, 3, [], {}, {"output": "x"}])
def test_what_is_no_response_is_rejected(response):
    with pytest.raises(RowError) as caught:
        chat.response_from_openai(response)
    assert caught.value.code == "bad_response"
