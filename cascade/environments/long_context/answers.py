"""Short answers in the form in which they are compared."""

import re

_SEPARATOR = re.compile(r"\s*,\s*and\s+|\s*,\s*|\s+and\s+", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the) (?=.)")
_ENDS = " .\"'`*_“”‘’"
MAX_ANSWER = 10_000
"""Characters; no short answer is longer, and a longer one is one part, cut off."""


def parts(text: str) -> list[str]:
    """What the answer names, normalised, in its order."""
    text = " ".join(text[:MAX_ANSWER].split()).strip(_ENDS)
    return [_normalised(part) for part in _SEPARATOR.split(text)]


def _normalised(text: str) -> str:
    return _ARTICLE.sub("", text.casefold().strip(_ENDS))
