"""Responses on which public parsers were reported to be wrong: what is the answer, and what a thought."""

from typing import Any

import pytest

from cascade.chat import parse_response, response_from_openai


def message(text: str, thought: str | None = None) -> dict[str, Any]:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]}
    return {"output": [item] if thought is None else [reasoning, item]}


@pytest.mark.parametrize(
    "text",
    [
        "<think>Perhaps \\boxed{7}? Let me",
        "<think>\nPerhaps \\boxed{7}? Let me",
        "  <think>Perhaps \\boxed{7}",
        "\n\n<think>\\boxed{7}",
        "<think>",
        "<think>One.</think>\n<think>Perhaps \\boxed{7}",
        "<thinking>Perhaps \\boxed{7}? Let me",
        "\n<thinking>Perhaps \\boxed{7}, or",
    ],
)
def test_a_thought_that_is_not_closed_is_no_answer(text: str) -> None:
    """PrimeIntellect-ai/verifiers#213."""
    for response in (
        response_from_openai(text),
        response_from_openai(message(text)),
        response_from_openai(message(text, "hm")),
        parse_response(text, thinking=True),
        parse_response(text, thinking=False),
    ):
        assert response.content == ""
        assert not response.tool_calls


@pytest.mark.parametrize(
    "text", ["It is \\boxed{7}: it holds </think> seven times.", '{"tag": "</think>"}', "</think>"]
)
def test_a_closing_tag_in_an_answer_whose_thought_stands_apart(text: str) -> None:
    """vllm-project/vllm#51679."""
    response = response_from_openai(message(text, "hm"))
    assert (response.content, response.reasoning) == (text, "hm")


def test_a_thought_before_the_answer_of_one_item() -> None:
    for response in (
        response_from_openai("Hm.</think>7"),
        response_from_openai(message("<think>Hm.</think>7")),
        response_from_openai(message(" <think>Hm.</think>\n7", "")),
        parse_response("Hm.</think>7", thinking=True),
        parse_response("<think>Hm.</think>7", thinking=False),
    ):
        assert (response.content, response.reasoning) == ("7", "Hm.")


def test_thinking_is_another_name_of_the_tag() -> None:
    """Models without a tag of their template are often asked for `<thinking>`; it closes by the same name."""
    for response in (
        response_from_openai("<thinking>Hm.</thinking>7"),
        response_from_openai(message("<thinking>\nHm.\n</thinking>\n\n7")),
        parse_response("<thinking>Hm.</thinking>7", thinking=False),
        parse_response("<think>Hm.</think>7", thinking=False),
    ):
        assert (response.content, response.reasoning) == ("7", "Hm.")
    assert parse_response("<think>Hm.</thinking>7", thinking=False).content == ""
    # The template's own thought ends with its own tag.
    assert parse_response("<thinking>Hm.</thinking>7", thinking=True).content == ""
    text = "A prompt may ask for <thinking>…</thinking>."
    assert parse_response(text, thinking=False).content == text
    assert parse_response(f"Hm.</think>{text}", thinking=True).content == text


def test_a_tag_later_in_the_answer_is_text() -> None:
    text = "The tag <think> opens a thought."
    assert response_from_openai(text).content == text
    assert parse_response(f"Hm.</think>{text} And </think> closes it.", thinking=True).content.endswith("closes it.")


def test_a_closing_tag_in_a_value_of_a_call_that_begins_the_answer() -> None:
    text = "<tool_call>\n<function=f>\n<parameter=body>\n</think>\n</parameter>\n</function>\n</tool_call>"
    response = response_from_openai(message(text))
    assert [call.arguments for call in response.tool_calls] == [{"body": "</think>"}]


def test_a_thought_that_is_not_shown_stands_apart_too() -> None:
    given = message("7: it holds </think>", "")
    given["output"][0]["encrypted_content"] = "abc"
    assert response_from_openai(given).content == "7: it holds </think>"
