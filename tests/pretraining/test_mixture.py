"""The base model's text: what is learned and what is only read, hasty and direct answers, the encoded corpus."""

import copy
import multiprocessing
import random

import numpy as np
import pytest

from cascade import chat, environments
from cascade.pretraining import mixture
from cascade.pretraining.mixture import TRAINED, Part, build_corpus, documents, encode_part, hasty_answer
from cascade.pretraining.sources import GENERATORS
from cascade.utils.seeds import derive_seed

SINGLE_TURN = ["math", "mcqa", "tool_calling"]


@pytest.fixture(autouse=True)
def of_this_process(tokenizer, monkeypatch):
    monkeypatch.setattr(mixture, "_STATE", {"tokenizer": tokenizer})


def answer_of(document: mixture.Document) -> chat.Response:
    """What the last segment says, taken apart as a sampled response would be."""
    prompt, answer = document.segments[-2][0], document.segments[-1][0]
    return chat.parse_response(answer.removesuffix("<|im_end|>"), thinking=prompt.endswith("<think>\n"))


def response(answer: dict) -> chat.Response:
    calls = [call["function"] for call in answer.get("tool_calls") or []]
    return chat.Response(
        answer["content"], answer["reasoning"], tuple(chat.ToolCall(c["name"], c["arguments"]) for c in calls)
    )


def made(source: str, rows: int, level: int = 2, *, hasty: float = 0, direct: float = 0) -> list[mixture.Document]:
    return list(documents(Part(source, level, rows), 5, hasty=hasty, direct=direct))


@pytest.mark.parametrize("source", SINGLE_TURN)
def test_careful_answers_are_right_and_hasty_ones_mostly_wrong(source):
    environment = environments.get(source)
    rows = list(GENERATORS[source](80, 1, 2))
    rng = random.Random(0)
    before = copy.deepcopy(rows)
    hasty = [hasty_answer(row, other, rng) for row, other in zip(rows[1:], rows, strict=False)]
    assert rows == before, "the demonstration itself is left as it was"
    rewards = [environment.verify(row, response(answer)).reward for row, answer in zip(rows[1:], hasty, strict=True)]
    assert None not in rewards
    # A letter drawn at random is sometimes the right one.
    assert sum(rewards) / len(rewards) < (0.4 if source == "mcqa" else 0.2)
    for row, answer in zip(rows[1:], hasty, strict=True):
        assert answer["reasoning"] == "ok." or len(answer["reasoning"]) <= len(row["demonstration"]["reasoning"])


@pytest.mark.parametrize("source", SINGLE_TURN)
def test_without_haste_every_document_ends_with_a_right_answer(source):
    environment = environments.get(source)
    seeds = derive_seed(5, "rows", source)
    for row, document in zip(GENERATORS[source](40, seeds, 2), made(source, 40), strict=True):
        answer = answer_of(document)
        assert answer.reasoning == row["demonstration"]["reasoning"]
        assert environment.verify(row, answer).reward == 1


def test_the_share_of_hasty_answers_is_as_asked():
    careful, some = made("math", 600), made("math", 600, hasty=0.3)
    changed = sum(a != b for a, b in zip(careful, some, strict=True))
    assert 0.24 < changed / 600 < 0.36


@pytest.mark.parametrize(("direct", "low", "high"), [(0, 0, 0), (0.3, 0.24, 0.36), (1, 1, 1)])
def test_the_share_of_direct_answers_is_as_asked(direct, low, high):
    found = [document.segments[-2][0].endswith("<think></think>") for document in made("math", 600, direct=direct)]
    assert low <= sum(found) / 600 <= high


def test_direct_answers_keep_what_is_answered():
    for thought, direct in zip(made("mcqa", 30), made("mcqa", 30, direct=1), strict=True):
        assert answer_of(direct).reasoning is None
        assert answer_of(direct).content == answer_of(thought).content


@pytest.mark.parametrize("source", ["math", "tool_calling", "swe_agentic", "human_preference", "code"])
def test_what_the_assistant_writes_is_learned_and_all_else_only_read(source):
    for document in made(source, 15, 1, hasty=0.5, direct=0.5):
        assert [trained for _, trained in document.segments] == [False, True] * (len(document.segments) // 2)
        for text, trained in document.segments:
            assert text.endswith("<|im_end|>" if trained else ("<think>\n", "<think></think>"))
        assert document.segments[0][0].startswith("<|im_start|>system\n")
        assert "<|im_start|>" not in "".join(text for text, trained in document.segments if trained)


def test_of_conversation_the_base_reads_replies_of_every_quality():
    rows = list(GENERATORS["human_preference"](60, derive_seed(5, "rows", "human_preference"), 1))
    assert {row["quality"] for row in rows} == {"good", "curt", "padded", "offtopic"}
    written = [answer_of(document).content for document in made("human_preference", 60, 1, hasty=1)]
    assert written == [row["demonstration"]["content"] for row in rows]


def test_an_episode_is_one_document_with_every_turn_learned():
    assert max(len(document.segments) for document in made("swe_agentic", 5, 1)) >= 6


def test_plain_text_is_learned_whole_and_ends():
    for document in made("text", 10, 1):
        ((text, trained),) = document.segments
        assert trained
        assert text.endswith("</s>")


def test_encoded_parts_decode_to_their_documents(tokenizer):
    part = Part("math", 1, 12)
    ids, lengths = encode_part((part, 5, 0.3, 0.3))
    assert lengths.sum() == len(ids)
    expected = list(documents(part, 5, hasty=0.3, direct=0.3))
    for document, piece in zip(expected, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        trained = (piece & TRAINED) > 0
        plain = piece & ~TRAINED
        assert tokenizer.decode(plain) == "".join(text for text, _ in document.segments)
        assert tokenizer.decode(plain[trained]) == "".join(text for text, learned in document.segments if learned)


def test_the_corpus_does_not_depend_on_the_number_of_processes(tokenizer):
    parts = [Part("math", 1, 30), Part("mcqa", 2, 20), Part("text", 1, 10)]

    def corpus(processes: int, seed: int = 1) -> mixture.Corpus:
        return build_corpus(parts, tokenizer, seed=seed, hasty=0.3, direct=0.2, processes=processes)

    one, three = corpus(1), corpus(3)
    assert one.ids.tobytes() == three.ids.tobytes()
    assert one.bounds.tobytes() == three.bounds.tobytes()
    assert len(one) == 60
    assert one.bounds[0] == 0
    assert one.bounds[-1] == len(one.ids)
    assert corpus(1, seed=2).ids.tobytes() != one.ids.tobytes()


def test_a_long_part_is_written_in_pieces_that_differ(tokenizer):
    corpus = build_corpus([Part("text", 1, 2100)], tokenizer, seed=1, hasty=0, direct=0, processes=1)
    assert len(corpus) == 2100
    pieces = [corpus.ids[corpus.bounds[i] : corpus.bounds[i + 1]].tobytes() for i in range(2100)]
    assert pieces[:100] != pieces[2000:]


def test_the_processes_that_write_the_corpus_are_forks_where_spawning_is_the_default(tokenizer, monkeypatch):
    """Spawned ones import torch first, one after another."""
    monkeypatch.setitem(GENERATORS, "only_here", lambda rows, seed, level: [{"text": "word"}] * rows)
    default = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        corpus = build_corpus([Part("only_here", 1, 3)], tokenizer, seed=1, hasty=0, direct=0, processes=2)
    finally:
        multiprocessing.set_start_method(default, force=True)
    assert len(corpus) == 3
