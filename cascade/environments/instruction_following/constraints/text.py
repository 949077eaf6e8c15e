"""Sentences, words and language of a text, counted as the public IFEval checkers count them."""

import re
from functools import cache

from langdetect import PROFILES_DIRECTORY, DetectorFactory, LangDetectException

# What stands before a full stop without ending the sentence.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'\u201c\u2018])(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|Lt|Inc|Ltd|Jr|Sr|Co|vs|etc|[Pp]h\.D|[A-Za-z](?:\.[A-Za-z])*)\.$"
)
# Possessive and anchored at the first mark: linear on any text.
_SENTENCE_END = re.compile(r"(?<![.?!…])[.?!…]++[\"'\u201d\u2019)\]}»*]*+(?=\s|$)")

# Penn Treebank words: punctuation is a word of its own, a contraction is two, `"` differs by which side it is on.
_MARKS = r"""\s;@\#$%&?!()\[\]{}<>*"`\u201c\u201d\u2018\u2019«»„…—:,"""
_TOKEN = re.compile(
    rf"""
    \.{{2,}} | -- | '' | `+
  | (?P<opening>(?<![^\s(\[{{<])")
  | (?P<closing>")
  | (?:n't|'(?:s|m|d|ll|re|ve))(?!\w)
  | [:,](?!\d)
  | (?:(?!n't(?!\w)|--|\.\.)[^{_MARKS}'] | [:,](?=\d) | '(?!(?:s|m|d|ll|re|ve)(?!\w)|'|\s|$))+
  | [^\s]
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CLOSING = "\"'\u201d\u2019)]}»>"

_LANGUAGE_SAMPLE = 10_000  # characters; more does not change the answer
# Frequent English words that other languages in Latin letters do not have.
_ENGLISH = re.compile(
    r"\b(?:the|and|it|you|that|with|are|has|this|they|she|his|its|your|which|from|were|been|there|would|their|what|who"
    r"|about|because|could|every|people|then|very|when)\b"
)


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores."""
    return len(re.findall(r"\w+", text))


def split_sentences(text: str) -> list[str]:
    """Sentences end with `.`, `?` or `!` before white space; abbreviations and initials do not end one.

    A number with a full stop before white space, as in a numbered list, does. Line breaks alone do not.
    """
    sentences = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if end[0] == "." and _ABBREVIATION.search(text, max(start, end.end() - 12), end.end()):
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    if rest := text[start:].strip():
        sentences.append(rest)
    return sentences


def split_words(text: str) -> list[str]:
    """Words as in the Penn Treebank: the final full stop of a sentence is a word of its own."""
    words: list[str] = []
    for sentence in split_sentences(text):
        body = sentence.rstrip(_CLOSING)
        if body.endswith(".") and not body.endswith(".."):
            words += [*_tokens(body[:-1]), ".", *_tokens(sentence[len(body) :], "closing")]
        else:
            words += _tokens(sentence)
    return words


def _tokens(text: str, side: str = "opening") -> list[str]:
    """`side` is the side of a quotation mark that begins the text."""
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = side if match.lastgroup == "opening" and match.start() == 0 else match.lastgroup
        tokens.append({"opening": "``", "closing": "''"}.get(kind or "", match[0]))
    return tokens


@cache
def _detectors() -> DetectorFactory:
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = 0  # the detector samples n-grams: seeded, the same text has always the same language
    return factory


def known_languages() -> list[str]:
    return list(_detectors().get_lang_list())


def detect_language(text: str) -> str | None:
    """ISO 639-1 code (`zh-cn`, `zh-tw` for Chinese), or None where nothing can be read off the text."""
    sample = text[:_LANGUAGE_SAMPLE]
    if _is_plain_english(sample):
        return "en"
    detector = _detectors().create()
    # The detector leaves out words in capitals, taking them for acronyms.
    detector.append(sample.lower() if sample.isupper() else sample)
    try:
        language: str = detector.detect()
    except LangDetectException:
        return None
    return None if language == "unknown" else language


def _is_plain_english(text: str) -> bool:
    """The detector needs some 20 words to be sure; in shorter answers common words tell more, and faster."""
    return text.isascii() and len(_ENGLISH.findall(text.lower())) > 0.15 * count_words(text)
