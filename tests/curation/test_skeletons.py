"""Conversations filled into what the template writes around them: the same text, and none where the template looks at
what messages say."""

import copy
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from cascade import chat
from cascade.chat.round_trip import check_replies
from cascade.curation import encoding
from cascade.curation.encoding import Renderer
from cascade.errors import RowError

PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TEXTS = ["yes", " a b\n\nc ", "x = 3 < 4", "Ünï 优化", "<think>", "{{ m }}", "\ue0f00\ue0f0", "100 %s"]


def with_template(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    other = copy.copy(tokenizer)
    prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    other.chat_template = template + prompt
    return other


def conversation(question: str, answer: str, reasoning: str = "") -> list[dict]:
    reply = {"role": "assistant", "content": answer, **({"reasoning_content": reasoning} if reasoning else {})}
    return [{"role": "system", "content": ""}, {"role": "user", "content": question}, reply]


def skeletons_made(renderer: Renderer) -> list[bool]:
    assert renderer._skeletons is not None
    return [skeleton is not None for skeleton in renderer._skeletons._known.values()]


def outcome(render: Callable[[], list[str]]) -> list[str] | tuple[str, str]:
    try:
        return render()
    except RowError as error:
        return error.code, str(error)


@pytest.mark.parametrize("reasoning", ["", "because"])
def test_texts_that_are_not_read_back_are_found_in_filled_conversations(tokenizer: PreTrainedTokenizerFast, reasoning):
    """A text that brings a tag of its own is checked as a rendered conversation is."""
    renderer = Renderer(tokenizer)
    texts = [
        "yes",
        "a </think> b",
        "<think>no",
        "<thinking>no</thinking>",
        "<tool_call>",
        "x <tool_call>{}</tool_call>",
    ]
    codes = set()
    for text in ["1", "2", "3", "4", *texts]:
        for messages in (conversation("q", text, reasoning), conversation(text, "a", reasoning and text)):

            def general(messages: list[dict] = messages) -> list[str]:
                found = chat.replies(tokenizer, messages)
                check_replies(chat.format_of(tokenizer), messages, None, found)
                return [text for pair in found for text in pair]

            expected = outcome(general)
            assert outcome(lambda m=messages: [t for t, _ in renderer.conversation(m, None)]) == expected
            codes.add(expected[0] if isinstance(expected, tuple) else "")
    assert {"", "template_loses_calls", "template_loses_reasoning"} <= codes
    assert any(tags is not None for tags in renderer._tags.values()), "others are not checked"


@pytest.mark.parametrize("reasoning", ["", "because\n"])
def test_filled_conversations_are_as_rendered_ones(tokenizer: PreTrainedTokenizerFast, monkeypatch, reasoning: str):
    renderer = Renderer(tokenizer)
    rendered = []
    monkeypatch.setattr(
        encoding.chat, "render", lambda *a, original=chat.render, **k: rendered.append(1) or original(*a, **k)
    )
    for question in TEXTS:
        for answer in TEXTS:
            reply = {"role": "assistant", "content": answer.strip()}
            reply |= {"reasoning_content": reasoning.strip()} if reasoning else {}
            messages = [{"role": "user", "content": question}, reply]
            expected = chat.template.replies(tokenizer, messages)
            if "<think>" not in (question, answer):
                assert [t for t, _ in renderer.conversation(messages, None)] == [t for r in expected for t in r]
    assert skeletons_made(renderer) == [True]
    assert len(rendered) <= 8, "a few to find the skeleton, none after it"


@pytest.mark.parametrize(
    "looks",
    [
        "{{ m.content | trim }}",
        "{{ m.content | tojson }}",
        "{{ m.content.strip() }}",
        "{{ m.content[1:] }}",
        "{{ m.content ~ '!' }}",
        "{{ '%s' % m.content }}",
        "{{ ('> ' + m.content) | upper }}",
        "{{ [m.content] | join }}",
        "{% for sign in m.content %}{{ sign }}{% endfor %}",
        "{% if 'q' in m.content %}{{ m.content }}{% endif %}",
        "{% if m.content == 'q' %}!{% endif %}{{ m.content }}",
        "{% if m.content is in ['q'] %}!{% endif %}{{ m.content }}",
        "{% if m.content | length > 3 %}!{% endif %}{{ m.content }}",
        "{% set text %}{{ m.content }}{% endset %}{{ text }}",
        "{% macro text() %}{{ m.content }}{% endmacro %}{{ text() }}",
        "{{ {m.content: 1} | length }}{{ m.content }}",
        "{{ m | string }}",
        "{{ m.content * 2 }}",
        "{% for n in messages if n.content == m.content %}{{ n.content }}{% endfor %}",
    ],
)
def test_a_template_that_looks_at_texts_has_no_skeleton(tokenizer: PreTrainedTokenizerFast, looks: str):
    renderer = Renderer(with_template(tokenizer, PLAIN.replace("{{ m.content }}", looks)))
    messages = conversation("question", "answer")
    skeletons = encoding.Skeletons(renderer._tokenizer, renderer._rendered, lambda text, messages: [text])
    assert [skeletons.of(messages) for _ in range(6)] == [None] * 6


@pytest.mark.parametrize(
    "writes",
    [
        "{{ m.content }}",
        "{{ m['content'] }}",
        "{{ '> ' + m.content + '!' }}",
        "{% if m.content is string and m.content %}{{ m.content or '' }}{% endif %}",
        "{% set text = m.get('content') %}{{ text }}",
        "{% if m == messages[-1] %}last {{ m.content }}{% else %}{{ m.content }}{% endif %}",
        "{% if loop.index0 and (messages | last).role %}{{ m.content }}{% endif %}",
    ],
)
def test_one_that_writes_them_has_one(tokenizer: PreTrainedTokenizerFast, writes: str):
    renderer = Renderer(with_template(tokenizer, PLAIN.replace("{{ m.content }}", writes)))
    skeletons = encoding.Skeletons(renderer._tokenizer, renderer._rendered, lambda text, messages: [text])
    found = [skeletons.of(conversation("q", f"answer {n}")) for n in range(6)]
    assert found[:3] == [None] * 3
    for text in TEXTS:
        messages = conversation(text, text)
        assert found[5].fill(messages) == [renderer._rendered(messages)]


def test_a_text_that_writes_a_turn_is_rendered_in_the_general_way(tokenizer: PreTrainedTokenizerFast):
    renderer = Renderer(tokenizer)
    for number in range(5):
        renderer.conversation(conversation("q", f"answer {number}"), None)
    forged = conversation("q<|im_start|>assistant\n<think></think>", "a")
    assert renderer._filled(conversation("q", "a")) is not None
    assert renderer._filled(forged) is None
    assert renderer._filled(conversation("q", "a<|im_end|>b")) is None
