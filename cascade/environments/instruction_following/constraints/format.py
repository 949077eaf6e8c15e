"""Constraints on the form of an answer: length, layout, case, punctuation, language.

The rules are those of the public checkers (IFEval and its IF-RLVR additions, as NeMo Gym uses them), also where
the wording of a prompt would suggest another. Every check takes time linear in the answer's length.
"""

import json
import re

from cascade.environments.instruction_following.constraints.registry import (
    compare,
    constraint,
    count,
    language,
    phrase,
    position,
    relation,
    word,
)
from cascade.environments.instruction_following.constraints.text import (
    count_words,
    detect_language,
    split_sentences,
    split_words,
)

_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _parts(parts: list[str]) -> list[str] | None:
    """The parts between dividers, the text may begin or end with one; None where two dividers touch."""
    inner = [part for i, part in enumerate(parts) if part.strip() or 0 < i < len(parts) - 1]
    return inner if all(part.strip() for part in inner) else None


@constraint("length_constraints:number_words", num_words=count, relation=relation)
def number_words(text: str, *, num_words: int, relation: str) -> bool:
    """At least, or less than, so many words."""
    return compare(count_words(text), relation, num_words)


@constraint("length_constraints:number_sentences", num_sentences=count, relation=relation)
def number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    """At least, or less than, so many sentences."""
    return compare(len(split_sentences(text)), relation, num_sentences)


@constraint("length_constraints:number_paragraphs", num_paragraphs=position)
def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, `***` between them."""
    return len(_parts(_DIVIDER.split(text)) or []) == num_paragraphs


@constraint("paragraphs:paragraphs")
def two_paragraphs(text: str) -> bool:
    """Two paragraphs, `***` between them."""
    return number_paragraphs(text, num_paragraphs=2)


@constraint("paragraphs:paragraphs2")
def two_paragraphs_blank_line(text: str) -> bool:
    """Two paragraphs, a blank line between them."""
    return len(_parts(text.split("\n\n")) or []) == 2


@constraint(
    "length_constraints:nth_paragraph_first_word", num_paragraphs=position, nth_paragraph=position, first_word=word
)
def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, blank lines between, and the n-th begins with the word, case ignored."""
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    if len(paragraphs) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    first = paragraphs[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", first)[0].lower() == first_word.lower()


@constraint("count:counting_composition", n_sent=position, n_words=position)
def counting_composition(text: str, *, n_sent: int, n_words: int) -> bool:
    """Three paragraphs, `***` between, each of n_sent sentences of n_words words; punctuation marks are words."""
    paragraphs = [split_sentences(paragraph) for paragraph in _DIVIDER.split(text)]
    return len(paragraphs) == 3 and all(
        len(sentences) == n_sent and all(len(split_words(sentence)) == n_words for sentence in sentences)
        for sentences in paragraphs
    )


@constraint("detectable_content:number_placeholders", num_placeholders=count)
def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many stretches in [square brackets]."""
    found = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            found += 1
            start = line.find("[", end)
    return found >= num_placeholders


@constraint("detectable_content:postscript", postscript_marker=phrase)
def postscript(text: str, *, postscript_marker: str) -> bool:
    """The marker of a postscript occurs, case ignored."""
    spaced = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return re.search(spaced.get(postscript_marker, re.escape(postscript_marker.lower())), text.lower()) is not None


@constraint("detectable_format:number_bullet_lists", num_bullets=count)
def number_bullets(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `-`, or with `*` and no second one."""
    lines = [line.lstrip() for line in text.split("\n")]
    return (
        sum(line.startswith("-") or (line[:1] == "*" and line[1:2] not in ("", "*")) for line in lines) == num_bullets
    )


@constraint("detectable_format:constrained_response")
def constrained_response(text: str) -> bool:
    """One of the three fixed answers occurs."""
    return any(answer in text for answer in _ANSWERS)


@constraint("detectable_format:number_highlighted_sections", num_highlights=count)
def number_highlights(text: str, *, num_highlights: int) -> bool:
    """At least so many stretches in *asterisks* or **two of them**."""
    stretches = re.findall(r"\*([^\n*]*)\*", text) + re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(stretch.strip()) for stretch in stretches) >= num_highlights


@constraint("detectable_format:multiple_sections", section_spliter=phrase, num_sections=count)
def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many headings: the given word and a number."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


@constraint("detectable_format:json_format")
def json_format(text: str) -> bool:
    """The answer is JSON, with or without a Markdown fence."""
    body = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```")
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


@constraint("detectable_format:title")
def title(text: str) -> bool:
    """A title in <<double angular brackets>> on one line."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and line[start + 2 : max(end, 0)].strip("<>\t "):
            return True
    return False


@constraint("detectable_format:square_brackets")
def square_brackets(text: str) -> bool:
    """Every word is in [square] [brackets]."""
    return all(token.startswith("[") and token.endswith("]") for token in text.split())


@constraint("detectable_format:bigram_wrapping")
def bigram_wrapping(text: str) -> bool:
    """Every two words are in <<double angular>> <<brackets together>>; an odd last word may stand alone."""
    tokens = text.split()
    pairs = list(zip(tokens[::2], tokens[1::2], strict=False))
    # Without the first condition any single word would pass, as it does in the public checker.
    return bool(pairs) and all(a.startswith("<<") and b.endswith(">>") for a, b in pairs)


@constraint("detectable_format:sentence_hyphens")
def sentence_hyphens(text: str) -> bool:
    """Sentences are joined by hyphens without spaces or line breaks, and there are no other hyphens."""
    return "\n" not in text and split_sentences(text.replace("-", " ")) == text.split("-")


@constraint("combination:two_responses")
def two_responses(text: str) -> bool:
    """Two different answers, six asterisks between."""
    parts = _parts(text.split("******")) or []
    return len(parts) == 2 and parts[0].strip() != parts[1].strip()


@constraint("startend:end_checker", end_phrase=phrase)
def end_phrase(text: str, *, end_phrase: str) -> bool:
    """The answer ends with the phrase, case ignored, quotation marks around the answer left aside."""
    return text.strip().strip('"').lower().endswith(end_phrase.lower())


@constraint("startend:quotation")
def quotation(text: str) -> bool:
    """The whole answer is in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@constraint("change_case:capital_word_frequency", capital_frequency=count, capital_relation=relation)
def capital_words(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """At least, or less than, so many words in capital letters; a hyphenated word is one."""
    return compare(sum(token.isupper() for token in split_words(text)), capital_relation, capital_frequency)


# Where no language can be detected, the public checkers count these three as followed.


@constraint("change_case:english_capital")
def english_capital(text: str) -> bool:
    """English, in capital letters alone."""
    return text.isupper() and detect_language(text) == "en"


@constraint("change_case:english_lowercase")
def english_lowercase(text: str) -> bool:
    """English, in lowercase letters alone."""
    return text.islower() and detect_language(text) == "en"


@constraint("language:response_language", language=language)
def response_language(text: str, *, language: str) -> bool:
    """The answer is in this language."""
    detected = detect_language(text) or ""
    return detected == language or (language == "zh" and detected.startswith("zh"))


@constraint("punctuation:no_comma")
def no_comma(text: str) -> bool:
    """No comma."""
    return "," not in text


@constraint("punctuation:punctuation_dot")
def no_dot(text: str) -> bool:
    """No full stop."""
    return "." not in text


@constraint("punctuation:punctuation_exclamation")
def no_exclamation(text: str) -> bool:
    """No exclamation mark."""
    return "!" not in text
