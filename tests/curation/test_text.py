import random
import re
from zlib import crc32

import numpy as np
import pytest

from cascade.curation import text as text_module
from cascade.curation.text import mix, normalise, quantities, read_words, words


def test_normalise_unifies_case_spacing_and_compatibility_forms():
    assert normalise("  The\t\uff26\uff35\uff2c\uff2c\n width \u2460 ") == "the full width 1"


def test_words_keep_signs_and_split_chinese_into_characters():
    assert words(normalise("What is 3+4?")) == ["what", "is", "3", "+", "4", "?"]
    assert words("优化 sql") == ["优", "化", "sql"]


def test_quantities_differ_by_number_operator_and_order():
    texts = ["3 + 4", "3 - 4", "4 + 3", "3 + 5", "3 * 4"]
    assert len(set(quantities([*map(normalise, texts)]).tolist())) == len(texts)
    one, other = quantities(["anna has 3 well-kept pears", "anna owns 3 pears"])
    assert one == other


def test_ngrams_stay_within_their_text():
    hashed = read_words(["a b c d", "b c", "x"])[0]
    ngrams, rows = hashed.ngrams(2)
    assert rows.tolist() == [0, 0, 0, 1]
    assert ngrams[1] == ngrams[3], "b c"
    assert len(set(ngrams.tolist())) == 3


def test_ngrams_know_the_order_of_words():
    ngrams, _ = read_words(["a b", "b a"])[0].ngrams(2)
    assert ngrams[0] != ngrams[1]


def test_ngrams_longer_than_everything_are_none():
    ngrams, rows = read_words(["a b"])[0].ngrams(5)
    assert len(ngrams) == len(rows) == 0


def test_short_texts_are_filled_up():
    hashed = read_words(["a", "", "b c d e"])[0]
    filled = hashed.filled(3)
    assert filled.lengths.tolist() == [3, 3, 4]
    assert filled.rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert filled.hashes[[0, 6, 7, 8, 9]].tolist() == hashed.hashes.tolist()
    assert not filled.hashes[1:6].any()


ALPHABET = [*"abz019 .,:-!'\\()<>=+*/^_ |~%#²≤優化七é°′·−½𝟏👍٣\u0301\ud800\u3000", "two ", "a" * 70, "я" * 40, "\\leq "]


def test_words_and_their_hashes_are_those_of_one_text_at_a_time(monkeypatch):
    """Beside regular expressions and zlib, on texts of all scripts, words longer than the table, and none."""
    rng = random.Random(1)
    cjk = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
    pattern = re.compile(rf"[{cjk}]|[^\W{cjk}]+|[^\w\s]")
    for alphabet in (ALPHABET, [sign for sign in ALPHABET if sign.isascii()]):
        texts = [normalise("".join(rng.choices(alphabet, k=rng.randrange(30)))) for _ in range(400)]
        hashed, tasks = read_words(texts)
        parts = hashed.parts()
        for text, part, task in zip(texts, parts, tasks, strict=True):
            expected = pattern.findall(text)
            assert words(text) == expected
            crcs = [crc32(word.encode("utf-8", "surrogatepass")) + 1 for word in expected]
            assert part.tolist() == mix(np.array(crcs, np.uint64)).tolist()
            assert task == quantities([text])[0], "neighbours are those of the same text"
        monkeypatch.setattr(text_module, "_BLOCK", 50)
        assert [found.tolist() for found in read_words(texts)[0].parts()] == [part.tolist() for part in parts]
        assert read_words(texts)[1].tolist() == tasks.tolist()
        again = type(hashed).of(parts)
        assert again.hashes.tolist() == hashed.hashes.tolist()
        assert again.rows.tolist() == hashed.rows.tolist()


SAME = [
    ("2x + 1 ≤ 5", r"2x + 1 \leq 5", "2x + 1 <= 5", r"2x + 1 \le 5"),
    ("x ≠ 3", "x != 3", r"x \neq 3"),
    ("A ∪ B", r"A \cup B"),
    ("x = −5", "x = -5", "x = ﹣5"),
    ("3 × 4", "3 * 4", r"3 \times 4", "3 ⋅ 4", r"3 \cdot 4"),
    ("√2", r"\sqrt{2}"),
    ("seven owls", "7 owls"),
    ("x²", "x^2"),
    ("10⁻³", "10^-3"),
    ("2½ m", "2 1/2 m"),
]
"""Spellings of one task."""


def of(text: str) -> int:
    return int(quantities([normalise(text)])[0])


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_spellings_of_an_operator_or_number_are_one(spellings: tuple[str, ...]):
    assert len({of(text) for text in spellings}) == 1


OTHER = [
    ("3²", "32", "3^3"),
    ("2½", "21/2"),
    ("x₁ + x₂", "x₁ + x₃", "x1 + x₂ + x₃"),
    ("a ≤ b", "a ≥ b", "a < b", "a = b", "a ≈ b"),
    ("A ∪ B", "A ∩ B", "A ⊂ B", "A ⊆ B"),
    (r"a \leq b", r"a \geq b", r"a \in b", r"a \notin b"),
    ("x = −5", "x = 5"),
    ("x - y", "x + y"),
    ("√2", "2"),
    ("∑ 2", "∏ 2", "∫ 2"),
    ("p → q", "p ⇒ q", "p ∧ q", "p ∨ q"),
    ("three owls", "four owls", "thirty owls", "half an owl", "a dozen owls"),
    ("twenty-one owls", "twenty owls"),
    ("两只", "三只"),
    ("3.5", "35", "3,5"),
    ("5!+1", "5+1"),
    ("f'(x)", "f(x)"),
    ("a & b", "a | b"),
    ("5 % of it", "5 of it"),
]


@pytest.mark.parametrize("tasks", OTHER, ids=lambda tasks: tasks[0])
def test_another_operator_number_or_place_is_another_task(tasks: tuple[str, ...]):
    assert len({of(text) for text in tasks}) == len(tasks)


def test_punctuation_counts_nothing():
    texts = ["well-kept owls", "well kept owls!", "owls, well-kept: it's one.", "once - the first owl"]
    assert len({of(text) for text in texts[:3]}) == 1
    assert of("no owl; none?") == of("")
