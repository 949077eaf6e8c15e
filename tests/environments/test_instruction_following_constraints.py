"""Every constraint type: an answer that keeps it, one that does not, and hostile ones."""

import time

import pytest

from cascade.environments.instruction_following.constraints import CONSTRAINTS, bind
from cascade.environments.instruction_following.constraints.text import (
    count_words,
    detect_language,
    split_sentences,
    split_words,
)
from cascade.errors import RowError

# id, kwargs, accepted, rejected
CASES = [
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "The Cat met a dog.", "The cat met a cow."),
    ("keywords:existence", {"keywords": ["c++ (x"]}, "I like C++ (x) a lot.", "I like c (x) a lot."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "Cat and cat.", "One cat."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, "One cat.", "Cat and cat."),
    ("keywords:forbidden_words", {"forbidden_words": ["part", "a.b"]}, "Partly axb.", "A Part of it."),
    ("keywords:forbidden_words", {"forbidden_words": ["(x)"]}, "It is x.", "It is (x)."),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, "Ever.", "End."),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "less than"}, "One.", "#1"),
    ("letters:letter_counting2", {"letter": "e", "let_frequency": 2, "let_relation": "less than"}, "End.", "Ever."),
    ("letters:letter_counting", {"N": 4, "relation": "at least"}, "a b c 1 d", "abc 1234"),
    ("letters:letter_counting", {"N": 4, "relation": "less than"}, "abc 1234", "abcd"),
    (
        "language:response_language",
        {"language": "de"},
        "Das ist eine ganz einfache Antwort auf die Frage.",
        "This is a simple answer.",
    ),
    (
        "language:response_language",
        {"language": "en"},
        "The answer is simple.",
        "La respuesta es muy sencilla para todos.",
    ),
    ("language:response_language", {"language": "zh"}, "今天的天气非常好我们去公园。", "The weather is fine."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "One. Two!",
        "Dr. Who has 3.5 cats.",
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Only one", "One? Two."),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "at least"},
        "one two-three four",
        "one two three",
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "less than"},
        "one two three",
        "one two three four",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "a\n***\nb\n***\nc", "a\n\nb\n\nc"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "***\na", "a\n***\n***\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Crash"},
        'One.\n\n"crash, it went.',
        "One.\n\nCrash\u2014it went.",
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        "[name] lives in [place].",
        "[name lives] here.",
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi.\n\nP. S. more", "Hi. PS more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Hi.\nP.P.S more", "Hi.\nP.S. more"),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, "Hi. n.b. more", "Hi. nxby more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "Hi\n* a\n - b\n**bold**", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", None, "Well: My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and ** ** and * "),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "Section 1\na\nSection 2\nb",
    ),
    ("detectable_format:json_format", None, '```json\n{"a": [1]}\n```', '{"a": [1]'),
    ("detectable_format:title", None, "<<My day>>\nText", "<< >>\n<My day>"),
    ("detectable_format:square_brackets", None, "[I] [am] [here.]", "[I am] [here]"),
    ("detectable_format:bigram_wrapping", None, "<<I am>> <<at home>> now", "<<I>> <<am at>> <<home>>"),
    ("detectable_format:bigram_wrapping", None, "<<I am>>", "hello"),
    ("detectable_format:sentence_hyphens", None, "It rains.-We run.", "It rains. We run."),
    ("detectable_format:sentence_hyphens", None, "It rains.-We run.", "It rains. -We run."),
    ("combination:two_responses", None, "Yes.\n******\nNo.", "Yes.\n******\nYes."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi! Say hi."),
    ("startend:end_checker", {"end_phrase": "That is all."}, '"Hi. that is all."', "That is all. Bye."),
    ("startend:quotation", None, ' "Hi there." ', '"Hi" there.'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NASA said NO.",
        "NASA said no.",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "WELL-KNOWN thing",
        "I say NO",
    ),
    ("change_case:english_capital", None, "THE CAT SLEEPS AND IT IS HAPPY.", "THE CAT SLEEPS AND It IS HAPPY."),
    (
        "change_case:english_capital",
        None,
        "APPLY SORTING LATER IN EVERY QUERY.",
        "DAS IST EINE GANZ EINFACHE ANTWORT AUF DIE FRAGE.",
    ),
    ("change_case:english_lowercase", None, "the cat sleeps and it is happy.", "The cat sleeps and it is happy."),
    (
        "change_case:english_lowercase",
        None,
        "we often play music after lunch.",
        "das ist eine ganz einfache antwort auf die frage.",
    ),
    ("punctuation:no_comma", None, "One and two", "One, two"),
    ("punctuation:punctuation_dot", None, "One!", "One."),
    ("punctuation:punctuation_exclamation", None, "One.", "One!"),
    (
        "copy:repeat_phrase",
        {"phrase": "the old dog sleeps", "small_n": 2},
        "the red dog sleeps, the old cat sleeps",
        "the old dog sleeps, the red dog sleeps",
    ),
    (
        "copy:repeat_phrase",
        {"phrase": "the (old) dog sleeps", "small_n": 1},
        "the (old) cat sleeps",
        "the (new) cat sleeps",
    ),
    ("copy:copy", {"prompt_to_repeat": "Say hi. "}, "say hi.", "say hi. hi"),
    ("copy:copying_simple", {"prompt_to_repeat": "Say hi."}, "Say hi.", "Hi."),
    ("copy:copying_multiple", {"prompt_to_repeat": "Say hi.", "N": 2}, "Say hi.\n******\nsay hi.", "Say hi."),
    ("new:copy_span_idx", {"prompt_to_repeat": "long example", "n_start": 0, "n_end": 4}, "Long", "ong"),
    ("keywords:word_once", {"keyword": "cat"}, "A Cat.", "A cat and a cat."),
    (
        "keywords:word_count_different_numbers",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        "cat cat cat",
        "cat",
    ),
    ("keywords:word_count_different_numbers", {"keyword": "cat", "frequency": 2}, "cat cat", "cat cat cat"),
    ("keywords:exclude_word_harder", {"keyword": "cat"}, "The cats sleep.", "The cat sleeps."),
    ("keywords:no_adjacent_consecutive", None, "Cats bring apples", "A big cat"),
    ("keywords:palindrome", None, "They saw a Level.", "I saw a dog - and more."),
    (
        "keywords:keyword_specific_position",
        {"keyword": "cat", "n": 2, "m": 3},
        "Hi. See, cat there.",
        "Hi. See the, cat.",
    ),
    ("keywords:start_end", None, "Dogs are not dogs", "Dogs are not dogs."),
    ("keywords:start_end", None, "Dogs are not dogs", '"Dogs are not dogs"'),
    ("paragraphs:paragraphs", None, "a\n***\nb", "a\n\nb"),
    ("paragraphs:paragraphs", {}, "a *** b", "a *** b *** c"),
    ("paragraphs:paragraphs2", None, "a\n\nb", "a\n***\nb"),
    ("first_word:first_word_sent", {"first_word": "well"}, "Well it is. Well I know.", "Well it is. I know."),
    ("first_word:first_word_answer", {"first_word": "Well"}, "well it is", "It is well"),
    ("last_word:last_word_sent", {"last_word": "it"}, "I see it. You have it!", "I see it. You do."),
    ("last_word:last_word_answer", {"last_word": ["contest"]}, 'It was a new "Contest."', "A contest it was."),
    ("count:lowercase_counting", {"N": 2}, "Big Cats are HERE now.", "The cat is here."),
    ("count:count_unique", None, "Every word differs here.", "Here is one. There is two."),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 3},
        "We run. I sit.\n***\nYou eat. He did.\n***\nIt is. So be it",
        "We run. I sit.\n***\nYou eat. He did.",
    ),
    ("count:count_increment_word", {"keyword1": "cat", "keyword2": "dog"}, "A cat, a dog, a dog.", "A cat, a dog."),
]


@pytest.mark.parametrize(("name", "kwargs", "accepted", "rejected"), CASES)
def test_constraint_accepts_and_rejects(name, kwargs, accepted, rejected):
    check = bind(name, kwargs)
    assert check(accepted)
    assert not check(rejected)


def test_all_54_types_are_there_and_tested():
    assert len(CONSTRAINTS) == 54
    assert {name for name, *_ in CASES} == set(CONSTRAINTS)


@pytest.mark.parametrize(("name", "kwargs"), {name: kwargs for name, kwargs, *_ in CASES}.items())
@pytest.mark.parametrize("text", ["", "  \n\t ", "\u00a0\u2003"])
def test_empty_answers_keep_nothing(name, kwargs, text):
    assert not bind(name, kwargs)(text)


HOSTILE = [
    "a" * 60_000,
    "\n" * 60_000 + "x",
    "*" * 60_000,
    "[" * 60_000,
    "<" * 60_000 + ">",
    "." * 60_000 + "x",
    '."' * 30_000 + "x",
    "the " * 20_000,
    " " * 60_000 + "x",
    "x" + "!" * 60_000 + "x",
    "- " * 30_000,
    '{"a":' * 20_000,
    "it's n't 's" * 6_000,
    "\ud83d\ude00\u0130\u00df \u0645\u0631\u062d\u0628\u0627 \x00 \ufffd",
    "\ud800 a lone surrogate",
]


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text[:6]) for text in HOSTILE])
def test_hostile_answers_are_judged_quickly(text):
    for name, kwargs, *_ in CASES:
        start = time.process_time()
        assert bind(name, kwargs)(text) in (True, False)
        assert time.process_time() - start < 2, name


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("keywords:nothing", {}, "keywords:nothing"),
        ("length_constraints:number_words", {"num_words": 5}, "relation is missing"),
        ("length_constraints:number_words", {"num_words": None, "relation": "at least"}, "num_words is missing"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "num_words = -1"),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}, "num_words = True"),
        ("length_constraints:number_words", {"num_words": float("nan"), "relation": "at least"}, "num_words = nan"),
        ("length_constraints:number_words", {"num_words": float("inf"), "relation": "at least"}, "num_words = inf"),
        ("length_constraints:number_words", {"num_words": 5, "relation": "about"}, "relation = 'about'"),
        ("keywords:existence", {"keywords": []}, "keywords = []"),
        ("keywords:existence", {"keywords": ["a", " "]}, "keywords"),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}, "letter"),
        ("language:response_language", {"language": "xx"}, "language = 'xx'"),
        ("language:response_language", {"language": ["en"]}, "language"),
        ("punctuation:no_comma", {"num_words": 5}, "takes no 'num_words'"),
        ("punctuation:no_comma", ["x"], "not an object"),
        ("keywords:exclude_word_harder", {"instruction": "red blue"}, "'instruction'"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"},
            "nth_paragraph = 0",
        ),
    ],
)
def test_unusable_constraints_are_bad_rows(name, kwargs, said):
    with pytest.raises(RowError) as error:
        bind(name, kwargs)
    assert error.value.code == "bad_row"
    assert said in str(error.value)


def test_absent_values_may_be_given_as_none_and_whole_floats_are_numbers():
    check = bind("length_constraints:number_words", {"num_words": 2.0, "relation": "at least", "keyword": None})
    assert check("two words")
    assert bind("punctuation:no_comma", {"relation": None})("no comma")


def test_sentences_end_where_the_reader_sees_an_end():
    text = 'Mr. Fox paid 3.50 to J. R. Lee of example.com. "Why?" **He smiled.** Then... e.g. nothing!'
    assert split_sentences(text) == [
        "Mr. Fox paid 3.50 to J. R. Lee of example.com.",
        '"Why?"',
        "**He smiled.**",
        "Then...",
        "e.g. nothing!",
    ]
    assert split_sentences("one line\nanother line") == ["one line\nanother line"]
    assert split_sentences("1. First\n2. Second") == ["1.", "First\n2.", "Second"]


def test_words_are_those_of_the_penn_treebank():
    assert split_words("Don't stop, it's 3,000 well-known (cats).") == [
        *("Do", "n't", "stop", ",", "it", "'s", "3,000", "well-known", "(", "cats", ")", "."),
    ]
    assert split_words('He said "go." Now') == ["He", "said", "``", "go", ".", "''", "Now"]
    assert count_words("It's two-fold: 3.5") == 6


def test_language_is_the_same_at_every_call_and_capitals_do_not_hide_it():
    text = "Kurz und gut."
    assert len({detect_language(text) for _ in range(5)}) == 1
    assert detect_language("WE RELEASE OUR SCRIPTS FOR MEASURING OVERLAP BETWEEN DATASETS.") == "en"
    assert detect_language("123 456") is None
