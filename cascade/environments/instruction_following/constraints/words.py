"""Constraints on which words and letters an answer has.

The rules are those of the public checkers (IFEval and its IF-RLVR additions, as NeMo Gym uses them), also where
the wording of a prompt would suggest another. Where one of theirs cannot fail, the comment says what is done.
Keywords are literal text here, never patterns.
"""

import re
from collections import Counter
from itertools import pairwise

from cascade.environments.instruction_following.constraints.registry import (
    compare,
    constraint,
    count,
    letter,
    phrase,
    position,
    relation,
    text,
    word,
    words,
)
from cascade.environments.instruction_following.constraints.text import split_sentences, split_words


def _occurrences(text: str, keyword: str) -> int:
    """Non-overlapping occurrences, within words too, case ignored."""
    return text.lower().count(keyword.lower())


def _bare(word: str) -> str:
    return re.sub(r"[^\w\s]", "", word).lower()


@constraint("keywords:existence", keywords=words)
def existence(text: str, *, keywords: list[str]) -> bool:
    """Every keyword occurs."""
    return all(_occurrences(text, keyword) for keyword in keywords)


@constraint("keywords:forbidden_words", forbidden_words=words)
def forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in forbidden_words)


@constraint("keywords:frequency", keyword=word, frequency=count, relation=relation)
def frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs at least, or less than, so many times."""
    return compare(_occurrences(text, keyword), relation, frequency)


@constraint(
    "keywords:word_count_different_numbers", keyword=word, frequency=count, relation=relation, optional=("relation",)
)
def word_count(text: str, *, keyword: str, frequency: int, relation: str | None = None) -> bool:
    """The keyword occurs so many times: at least, less than, or without a relation exactly."""
    actual = _occurrences(text, keyword)
    return actual == frequency if relation is None else compare(actual, relation, frequency)


@constraint("keywords:word_once", keyword=word)
def word_once(text: str, *, keyword: str) -> bool:
    """The keyword occurs exactly once."""
    return _occurrences(text, keyword) == 1


@constraint("keywords:exclude_word_harder", keyword=word)
def exclude_word(text: str, *, keyword: str) -> bool:
    """The keyword does not stand between two spaces, in this case of its letters."""
    return f" {keyword} " not in text


@constraint(
    "keywords:letter_frequency", "letters:letter_counting2", letter=letter, let_frequency=count, let_relation=relation
)
def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter occurs at least, or less than, so many times, case ignored."""
    return compare(text.lower().count(letter), let_relation, let_frequency)


@constraint("letters:letter_counting", N=count, relation=relation)
def letter_count(text: str, *, N: int, relation: str) -> bool:
    """At least, or less than, N letters from A to Z in all."""
    return compare(len(re.findall(r"[a-zA-Z]", text)), relation, N)


@constraint("count:lowercase_counting", N=count)
def lowercase_count(text: str, *, N: int) -> bool:
    """At most N words written in lowercase letters alone."""
    return len(re.findall(r"\b[a-z]+\b", text)) <= N


@constraint("count:count_unique")
def all_unique(text: str) -> bool:
    """No word twice; a punctuation mark is a word too, and case counts."""
    return max(Counter(split_words(text)).values(), default=1) == 1


@constraint("count:count_increment_word", keyword1=word, keyword2=word)
def increment_word(text: str, *, keyword1: str, keyword2: str) -> bool:
    """The first keyword once, the second twice."""
    return _occurrences(text, keyword1) == 1 and _occurrences(text, keyword2) == 2


@constraint("keywords:palindrome")
def palindrome(text: str) -> bool:
    """A word that reads the same backwards."""
    # The public checker also takes "a", "I" and any lone punctuation mark, so that hardly an answer fails:
    # here it is a word of at least three letters, case ignored.
    return any(word == word[::-1] for word in re.findall(r"[^\W\d_]{3,}", text.lower()))


@constraint("keywords:no_adjacent_consecutive")
def no_adjacent_consecutive(text: str) -> bool:
    """No word begins with the letter that follows the first letter of the word before it."""
    firsts = [token[0].lower() for token in text.split()]
    return not any(
        ord(second[0]) - ord(first[0]) == 1 and first.isalpha() and second.isalpha()
        for first, second in pairwise(firsts)
    )


@constraint("keywords:keyword_specific_position", keyword=word, n=position, m=position)
def keyword_position(text: str, *, keyword: str, n: int, m: int) -> bool:
    """The m-th word of the n-th sentence is the keyword, case included; punctuation marks count as words."""
    sentences = split_sentences(text)
    return len(sentences) >= n and split_words(sentences[n - 1])[m - 1 : m] == [keyword]


@constraint("keywords:start_end")
def start_end(text: str) -> bool:
    """The first word is also the last, with nothing after it, case ignored."""
    tokens = split_words(text)
    return len(tokens) > 1 and tokens[0].lower() == tokens[-1].lower()


@constraint("first_word:first_word_answer", first_word=word)
def first_word_of_answer(text: str, *, first_word: str) -> bool:
    """The first word, punctuation attached to it included, is this one, case ignored."""
    return text.split(maxsplit=1)[0].lower() == first_word.lower()


@constraint("first_word:first_word_sent", first_word=word)
def first_word_of_sentences(text: str, *, first_word: str) -> bool:
    """Every sentence begins with this word, case ignored."""
    return all(sentence.split(maxsplit=1)[0].lower() == first_word.lower() for sentence in split_sentences(text))


@constraint("last_word:last_word_answer", last_word=word)
def last_word_of_answer(text: str, *, last_word: str) -> bool:
    """The last word, punctuation removed, is this one, case ignored."""
    return _bare(text.split()[-1]) == last_word.lower()


@constraint("last_word:last_word_sent", last_word=word)
def last_word_of_sentences(text: str, *, last_word: str) -> bool:
    """Every sentence ends with this word, punctuation removed, case ignored."""
    return all(_bare(sentence.split()[-1]) == last_word.lower() for sentence in split_sentences(text))


@constraint("copy:copy", "copy:copying_simple", prompt_to_repeat=phrase)
def copy(text: str, *, prompt_to_repeat: str) -> bool:
    """The answer is the given text and nothing else, case ignored."""
    return text.strip().lower() == prompt_to_repeat.lower()


@constraint("copy:copying_multiple", prompt_to_repeat=phrase, N=position)
def copy_multiple(text: str, *, prompt_to_repeat: str, N: int) -> bool:
    """The answer is the given text N times, six asterisks between, case ignored."""
    copies = text.split("******")
    return len(copies) == N and all(copy(part, prompt_to_repeat=prompt_to_repeat) for part in copies)


@constraint("new:copy_span_idx", prompt_to_repeat=text, n_start=count, n_end=position)
def copy_span(text: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The answer is the characters from n_start up to before n_end of the given text, case ignored."""
    return text.strip().lower() == prompt_to_repeat[n_start:n_end].strip().lower()


@constraint("combination:repeat_prompt", prompt_to_repeat=phrase)
def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the given text, case ignored."""
    return text.strip().lower().startswith(prompt_to_repeat.lower())


@constraint("copy:repeat_phrase", phrase=phrase, small_n=position)
def repeat_phrase(text: str, *, phrase: str, small_n: int) -> bool:
    """The phrase occurs so many times, each time with exactly one inner word replaced."""
    # Some versions of the public checker ask for the replacement in the last occurrence only.
    reference = phrase.split()
    found = [span.split() for line in text.split("\n") for span in _spans(line, reference[0], reference[-1])]
    return len(found) == small_n and all(
        len(span) == len(reference) and sum(a != b for a, b in zip(span, reference, strict=True)) == 1 for span in found
    )


def _spans(line: str, first: str, last: str) -> list[str]:
    """The shortest stretches from the word `first` to the word `last`, from left to right."""
    spans = []
    start = line.find(f"{first} ")
    while start >= 0:
        end = line.find(f" {last}", start + len(first) + 1)
        if end < 0:
            break
        end += len(last) + 1
        spans.append(line[start:end])
        start = line.find(f"{first} ", end)
    return spans
