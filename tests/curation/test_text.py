import numpy as np

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
