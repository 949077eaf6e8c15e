import random
import time

import numpy as np
import pytest

from cascade.curation import dedupe
from cascade.curation.dedupe import Deduplicator, minhash, rows_a_band
from cascade.curation.text import read_words

STORY = (
    "Once upon a time there was a miller who had a daughter so beautiful that the whole country spoke of her, and a "
    "mill so old that nobody could say who had built it, or why it stood so far from any river, road or village."
)


@pytest.fixture
def duplicates() -> Deduplicator:
    return Deduplicator(0.8)


def codes(errors: list) -> list[str | None]:
    return [error.code if error else None for error in errors]


def test_exact_duplicates_but_for_case_and_spacing(duplicates: Deduplicator):
    texts = ["What is two plus two?", "what is  TWO plus two?", "What is two plus three?"]
    assert codes(duplicates.check(texts)) == [None, "exact_duplicate", None]


def test_duplicates_are_remembered_across_calls(duplicates: Deduplicator):
    assert codes(duplicates.check([STORY, "another text altogether"])) == [None, None]
    assert codes(duplicates.check([STORY.replace("beautiful", "lovely"), STORY, "a third one"])) == [
        "near_duplicate",
        "exact_duplicate",
        None,
    ]


def test_near_duplicates_within_one_call_keep_the_first(duplicates: Deduplicator):
    variants = [STORY, STORY.replace("beautiful", "lovely"), STORY.replace("miller", "baker")]
    assert codes(duplicates.check(variants)) == [None, "near_duplicate", "near_duplicate"]


def test_a_chain_of_changes_is_compared_with_what_was_kept_only():
    words = [f"word{a}{b}" for a in "abcdefg" for b in "hijklmn"]
    chain = [words, ["x", "y", *words[2:]], ["x", "y", *words[2:-3], "z", "z", "z"]]
    # Jaccard 45 / 49 = 0.92 one to two, 44 / 50 = 0.88 two to three, 42 / 52 = 0.81 one to three.
    duplicates = Deduplicator(0.86)
    assert codes(duplicates.check([" ".join(text) for text in chain])) == [None, "near_duplicate", None]


def test_another_number_or_operator_is_another_task(duplicates: Deduplicator):
    task = "A farmer has 12 cows and buys 7 more at the market in the old town by the sea. How many has he now?"
    others = [task, task.replace("7", "8"), task.replace("12", "13"), task.replace("buys 7", "buys - 7")]
    assert codes(duplicates.check(others)) == [None] * 4
    assert codes(duplicates.check([task.replace("farmer", "peasant")])) == ["near_duplicate"]


def test_texts_below_the_threshold_stay(duplicates: Deduplicator):
    half = STORY[: len(STORY) // 2]
    assert codes(
        duplicates.check([STORY, half + " but everything else is told in quite other words than before."])
    ) == [
        None,
        None,
    ]


def test_short_and_strange_texts(duplicates: Deduplicator):
    texts = ["a", "b", "?", "a", "", "优化", "🙂", "word " * 5000]
    assert codes(duplicates.check(texts)) == [None, None, None, "exact_duplicate", None, None, None, None]


def test_nothing_in_nothing_out(duplicates: Deduplicator):
    assert duplicates.check([]) == []


def test_minhash_estimates_the_jaccard_similarity_of_shingles():
    rng = random.Random(1)
    errors = []
    for _ in range(60):
        first = [f"w{rng.randrange(10**6)}" for _ in range(80)]
        second = list(first)
        for at in rng.sample(range(80), rng.randrange(1, 12)):
            second[at] = "changed"
        shingles = [{tuple(text[i : i + 3]) for i in range(78)} for text in (first, second)]
        true = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
        one, two = minhash(read_words([" ".join(first), " ".join(second)])[0])
        errors.append((one == two).mean() - true)
    assert abs(np.mean(errors)) < 0.015, "biased"
    assert np.std(errors) < 0.06, "wider than 128 hashes allow"


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_reach_the_stated_recall_at_the_threshold(threshold: float):
    recall = 1 - (1 - threshold ** rows_a_band(threshold)) ** dedupe.BANDS
    assert recall >= dedupe.RECALL
    longer = 1 - (1 - threshold ** (rows_a_band(threshold) + 1)) ** dedupe.BANDS
    assert longer < dedupe.RECALL or rows_a_band(threshold) == dedupe.HASHES // dedupe.BANDS


def test_recall_on_pairs_just_above_the_threshold():
    rng = random.Random(2)
    vocabulary = [a + b + c for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    originals = [rng.choices(vocabulary, k=150) for _ in range(300)]
    duplicates = Deduplicator(0.9)
    assert codes(duplicates.check([" ".join(words) for words in originals])) == [None] * 300
    changed = [[*words[:70], "changed", *words[71:]] for words in originals]
    # 148 shingles, 3 of them changed: Jaccard 145 / 151 = 0.96.
    assert codes(duplicates.check([" ".join(words) for words in changed])).count("near_duplicate") >= 295


def test_the_same_rows_give_the_same_result():
    rng = random.Random(3)
    texts = [" ".join(rng.choices(["red", "green", "blue"], k=12)) for _ in range(400)]
    one = Deduplicator(0.7).check(texts)
    two = Deduplicator(0.7).check(texts)
    assert [str(error) for error in one] == [str(error) for error in two]


def test_twenty_thousand_short_rows_take_seconds():
    rng = random.Random(4)
    texts = [
        f"Sam has {rng.randrange(10**6)} apples and gives {rng.randrange(10**6)} of them away. How many are left?"
        for _ in range(20_000)
    ]
    duplicates = Deduplicator(0.9)
    start = time.process_time()
    kept = duplicates.check(texts).count(None)
    assert time.process_time() - start < 15
    assert kept == len(set(texts)), "rows that differ in a number are different"


def test_the_same_question_with_other_tools_is_another_task():
    tools = ['[{"name": "search"}]', '[{"name": "calculate"}]', '[{"name": "search"}]', ""]
    assert codes(Deduplicator(0.8).check([STORY] * 4, tools)) == [None, None, "exact_duplicate", None]
    near = STORY.replace("beautiful", "lovely")
    assert codes(Deduplicator(0.8).check([STORY, near, near], ["a", "b", "a"])) == [None, None, "near_duplicate"]
