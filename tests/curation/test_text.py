import numpy as np
import pytest

from cascade.curation.text import hash_words, normalise, quantities, words


def test_normalise_unifies_case_spacing_and_compatibility_forms():
    assert normalise("  The\t\uff26\uff35\uff2c\uff2c\n width \u2460 ") == "the full width 1"


def test_words_keep_signs_and_split_chinese_into_characters():
    assert words(normalise("What is 3+4?")) == ["what", "is", "3", "+", "4", "?"]
    assert words("优化 sql") == ["优", "化", "sql"]


def test_quantities_differ_by_number_operator_and_order():
    texts = ["3 + 4", "3 - 4", "4 + 3", "3 + 5", "3 * 4"]
    assert len({quantities(words(normalise(text))) for text in texts}) == len(texts)
    assert quantities(words("anna has 3 well-kept pears")) == quantities(words("anna owns 3 pears"))


def test_ngrams_stay_within_their_text():
    hashed = hash_words([words(text) for text in ("a b c d", "b c", "x")])
    ngrams, rows = hashed.ngrams(2)
    assert rows.tolist() == [0, 0, 0, 1]
    assert ngrams[1] == ngrams[3], "b c"
    assert len(set(ngrams.tolist())) == 3


def test_ngrams_know_the_order_of_words():
    ngrams, _ = hash_words([["a", "b"], ["b", "a"]]).ngrams(2)
    assert ngrams[0] != ngrams[1]


def test_ngrams_longer_than_everything_are_none():
    ngrams, rows = hash_words([["a", "b"]]).ngrams(5)
    assert len(ngrams) == len(rows) == 0


def test_short_texts_are_filled_up():
    hashed = hash_words([["a"], []], at_least=3)
    assert hashed.lengths.tolist() == [3, 3]
    assert hashed.hashes.dtype == np.uint64


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
    return quantities(words(normalise(text)))


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
