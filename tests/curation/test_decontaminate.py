import random
import time
from difflib import SequenceMatcher

import numpy as np
import pytest

from cascade.curation.decontaminate import Decontaminator, Text
from cascade.curation.text import normalise, read_words
from cascade.recipe import Decontamination

QUESTION = (
    "A wizard buys seventeen owls at the market for three silver coins each and sells nine of them on the way home "
    "for five silver coins each. How many silver coins has he won or lost at the end of the day?"
)
SHORT = "Name the capital of France."


@pytest.fixture
def benchmarks() -> Decontaminator:
    return Decontaminator(Decontamination(ngram=13, similarity=0.9), [("owls", QUESTION), ("capital", SHORT)])


def compared(text: str, *messages: str, generated: bool = False) -> Text:
    return Text(read_words([normalise(text)])[0].hashes, tuple(map(normalise, messages)), generated)


def codes(benchmarks: Decontaminator, *texts: str, generated: bool = False) -> list[str | None]:
    errors = benchmarks.check([compared(text, text, generated=generated) for text in texts])
    return [error.code if error else None for error in errors]


def test_a_copy_is_dropped_whatever_its_case_and_spacing(benchmarks: Decontaminator):
    assert codes(benchmarks, QUESTION, QUESTION.upper().replace(" ", "  ")) == ["benchmark_overlap"] * 2


def test_a_copy_inside_a_longer_text_is_dropped(benchmarks: Decontaminator):
    padding = "And now for something completely different, told at some length so that the strings differ. " * 5
    assert codes(benchmarks, padding + QUESTION + padding) == ["benchmark_overlap"]


def test_a_copy_in_the_answer_is_dropped(benchmarks: Decontaminator):
    row = compared(f"Tell me a riddle.\n{QUESTION}", "Tell me a riddle.")
    assert benchmarks.check([row])[0].code == "benchmark_overlap"


def test_typing_errors_everywhere_are_caught_by_string_similarity(benchmarks: Decontaminator):
    typos = " ".join(word[:-1] + "e" if i % 4 == 0 else word for i, word in enumerate(QUESTION.split()))
    assert codes(benchmarks, typos) == ["benchmark_similarity"]


def test_a_text_on_the_same_subject_stays(benchmarks: Decontaminator):
    assert codes(benchmarks, "A wizard buys some owls at the market. Why are owls sold at markets at all?") == [None]


def test_part_of_a_benchmark_prompt_below_the_share_stays(benchmarks: Decontaminator):
    words = QUESTION.split()
    assert codes(benchmarks, " ".join(words[: len(words) * 3 // 4])) == [None]


def test_short_prompts_are_compared_whole(benchmarks: Decontaminator):
    inside = "Please name the capital of France. Then name three rivers that flow through the country as well."
    assert codes(benchmarks, "name the Capital of France", inside) == ["benchmark_similarity", None]


def test_prompts_shorter_than_the_ngram_use_their_own_length():
    benchmarks = Decontaminator(Decontamination(ngram=13), [("eight", "how deep is the lake near your house")])
    padding = "There is much that I would like to know about you and where you live."
    assert codes(benchmarks, f"{padding} How deep is the lake near your house {padding}") == ["benchmark_overlap"]
    assert codes(benchmarks, f"{padding} How deep is the lake near our house {padding}") == [None]


def test_of_several_messages_each_is_compared(benchmarks: Decontaminator):
    row = compared("irrelevant", "Hello, who are you and what can you do for me?", SHORT)
    assert benchmarks.check([row])[0].code == "benchmark_similarity"


def test_generated_rows_with_other_quantities_stay_but_copies_do_not():
    task = "Sam has 12 apples and gives 5 of them to his sister, who already had some. How many does Sam have left?"
    benchmarks = Decontaminator(Decontamination(), [("apples", task)])
    other = task.replace("12", "13")
    assert codes(benchmarks, task, other, generated=True) == ["benchmark_overlap", None]
    assert codes(benchmarks, other) == ["benchmark_similarity"], "a stored row with the same wording"


def test_the_message_names_the_benchmark_prompt(benchmarks: Decontaminator):
    assert "owls" in str(benchmarks.check([compared(QUESTION, QUESTION)])[0])


def test_without_benchmarks_everything_stays():
    assert codes(Decontaminator(Decontamination(), []), QUESTION) == [None]


def test_no_rows(benchmarks: Decontaminator):
    assert benchmarks.check([]) == []


def test_strange_texts(benchmarks: Decontaminator):
    assert codes(benchmarks, "", "?", "🙂" * 50, "优化" * 100) == [None] * 4


def test_the_letter_count_filter_misses_no_similar_pair():
    """Against every pair compared one by one."""
    rng = random.Random(0)
    letters = "abcdefgh "
    prompts = ["".join(rng.choices(letters, k=rng.randrange(20, 60))).strip() for _ in range(40)]
    rows = []
    for prompt in prompts * 3:
        text = list(prompt)
        for _ in range(rng.randrange(8)):
            text[rng.randrange(len(text))] = rng.choice(letters)
        rows.append("".join(text))
    benchmarks = Decontaminator(Decontamination(similarity=0.85), [(str(i), p) for i, p in enumerate(prompts)])
    got = [code is not None for code in codes(benchmarks, *rows)]

    def indel(a: str, b: str) -> float:
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        return 2 * table[-1, -1] / (len(a) + len(b))

    def clean(text: str) -> str:
        return " ".join(text.split())

    expected = [
        any(
            SequenceMatcher(None, clean(row), clean(p)).real_quick_ratio() >= 0.85
            and indel(clean(row), clean(p)) >= 0.85
            for p in prompts
        )
        for row in rows
    ]
    assert any(expected)
    assert not all(expected)
    # Overlap of n-grams may drop more, never less.
    assert all(g for g, e in zip(got, expected, strict=True) if e)
    assert sum(got) <= sum(expected) + 3


def test_ten_thousand_rows_against_a_thousand_prompts_take_seconds():
    rng = random.Random(1)

    def task() -> str:
        a, b = rng.randrange(10**6), rng.randrange(10**6)
        return f"Tom counts {a} stars on Monday and {b} on Tuesday. How many stars is that in all?"

    benchmarks = Decontaminator(Decontamination(), [(str(i), task()) for i in range(1000)])
    start = time.process_time()
    assert set(codes(benchmarks, *[task() for _ in range(10_000)], generated=True)) == {None}
    assert time.process_time() - start < 10


SHARES = [0.5, 0.58, 0.7, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99, 0.9975, 1.0]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("lengthened", [False, True])
def test_the_threshold_of_string_similarity_is_inclusive(share: float, lengthened: bool):
    """Of 20,000 characters together: similarity 1 - distance / 20,000."""
    distance = round((1 - share) * 20000)
    if lengthened:  # by insertions alone: the extreme of what differs in length
        prompt, other = "a" * ((20000 - distance) // 2), "a" * ((20000 + distance) // 2)
        beyond = other + "a"
    else:  # by replacements, each a deletion and an insertion
        prompt, other = "a" * 10000, "a" * (10000 - distance // 2) + "b" * (distance // 2)
        beyond = "a" * (10000 - distance // 2 - 1) + "b" * (distance // 2 + 1)
    found = codes(Decontaminator(Decontamination(similarity=share), [("long", prompt)]), other, beyond)
    assert found == ["benchmark_similarity", None]


@pytest.mark.parametrize("share", SHARES)
def test_the_threshold_of_shared_word_runs_is_inclusive(share: float):
    """The prompt has 400 runs of 13 words, all different."""
    prompt = [f"w{n}" for n in range(412)]
    shared = round(share * 400)
    rows = [" ".join(prompt[: count + 12]) + " " + "x" * 9000 for count in (shared, shared - 1)]
    texts = [compared(row) for row in rows]
    found = Decontaminator(Decontamination(similarity=share), [("long", " ".join(prompt))]).check(texts)
    assert [error.code if error else None for error in found] == ["benchmark_overlap", None]
