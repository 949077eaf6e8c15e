"""Which option a text names: by its letter, in whatever it is wrapped, or by its own words.

A letter counts as one where it cannot be something else: not the "A" of "A decrease in pressure", not the "E" of
"E. coli", and not those that the text rules out behind its answer ("B, since A and C are not metals").
"""

import regex

Options = dict[str, str]
"""Letter → text."""

FOREIGN = str.maketrans(
    {
        **dict(zip("أبجد", (" A", " B", " C", " D"), strict=True)),
        **dict(zip("অবডঢ", (" A", " B", " C", " D"), strict=True)),
        **dict(zip("\uff21\uff22\uff23\uff24", (" A", " B", " C", " D"), strict=True)),
    }
)
"""Option letters as other scripts write them (Arabic, Bengali, full-width)."""

_COMMANDS = (
    *("text", "textbf", "textit", "textrm", "textsf", "texttt", "emph", "underline", "mbox", "hbox", "fbox", "boxed"),
    *("mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathcal", "mathbb", "mathfrak", "boldsymbol", "bm", "pmb"),
    *("operatorname", "boldmath", "Large", "large", "textsc"),
)
_WRAP = regex.compile(rf"\\(?:{'|'.join(_COMMANDS)}|(?:text)?color\{{\w*\}})\*?\s*\{{([^{{}}]*)\}}")
_SWITCH = regex.compile(
    r"\\(?:bf|rm|it|sf|tt|em|[lL]arge|LARGE|[hH]uge|bfseries|itshape|displaystyle|left|right|[,;:! ]|q?quad)"
    r"(?![A-Za-z])\s*"
)
_OUTER = regex.compile(r"\A(?:\{|\\[(\[])(.*)(?:\}|\\[)\]])\Z", regex.DOTALL)
_MARKS = " \t\n\r.,;:!*_`$\"'“”‘’{}"
BRACKETS = _MARKS + "()[]<>"

_LABEL = regex.compile(r"\(?([A-Z])\s*(?:[:)\]]|\.(?!\w)|-(?=\s|$)|[.-](?=\w))\s*(.*)", regex.DOTALL)
_LEAD = regex.compile(
    r"[(\[{\s*_\"'“]*(?:(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:option|choice|letter|answer)(?:\s+is)?[\s:]+)?"
    r"[(\[{\s*_\"'“]*([A-Za-z])(?![A-Za-z0-9]|['’]\w)",
    regex.IGNORECASE,
)
_NEXT = regex.compile(
    r"[)\]}]?(\s*[/|&,;]\s*(?:(?:or|and)\s+)?|\s+\(?(?:or|and)\s+|\s+(?!\())"
    r"(?:(?i:maybe|perhaps|possibly|probably)\s+(?:even\s+)?)?\(?([A-Za-z])(?![A-Za-z0-9'’])[)\]}]?"
)
_RULED_OUT = regex.compile(
    r"\s+(?:is|are|was|were|do|does|can|could|cannot|have|has|would|being)?\s*(?:both|all)?\s*"
    r"(?:n[o']t|not|never|wrong|incorrect|false|no|ruled|eliminated|excluded|impossible|cannot|out)\b|n't\b",
    regex.IGNORECASE,
)
_REASON = regex.compile(
    r"\b(?:since|because|as|while|whereas|unlike|although|though|given|for|due|not|rather|instead|but|so|whilst)\b",
    regex.IGNORECASE,
)
_NEGATED = regex.compile(
    r"(?:(?i:it\s+)?(?i:is\s+not|not|isn['’]t|cannot\s+be|can['’]t\s+be)\s+\(?[A-Z]\)?(?:\s*(?:,|or|nor|and)\s*\(?[A-Z]\)?)*"
    r"|\(?[A-Z]\)?(?:\s*(?:or|and|&)\s*\(?[A-Z]\)?)?\s+(?:is|are|was|were)"
    r"\s*(?:n['’]t|not|wrong|incorrect|false|out|ruled\s+out)\b[^,;.]*)(?!\w)[\s,;.]*"
)
"""An answer that begins with what it rules out."""
_ALONE = regex.compile(r"(?<![A-Za-z0-9])([A-Z])(?![A-Za-z0-9'’])")
_STOP = regex.compile(r"(?<=[^\W\d_])\.(?=[^\W\d_]{2})")
_TEXT_GOES_ON = regex.compile(
    r"\s+(?!(?:and|or|but|because|since|as|is|was|are|for|due|given|if|that|which|it|with|would|seems|fits|holds|not|while"
    r"|whereas|so|though|although|by|from|only|alone|the|has|can)\b)[a-z]"
)
"""A word that can follow an article, and hardly a letter."""

LONGEST = 2_000
"""Characters of an answer that are read: a letter stands at its beginning."""
MOST_WRAPPERS = 20


def normal(text: str) -> str:
    """In small letters, with one blank between words; a stop between two words ends the first: E.coli is E. coli."""
    if "." in text:
        text = _STOP.sub(". ", text)
    return " ".join(text.lower().split())


def unwrapped(text: str) -> str:
    """Without \\textbf{…}, \\mathrm{…} and their like, \\bf and blanks of LaTeX, delimiters and Markdown emphasis."""
    if len(text) == 1 and text.isascii():
        return text
    text = text.translate(FOREIGN)[:LONGEST]
    for _ in range(MOST_WRAPPERS):
        plain = _WRAP.sub(r"\1", text)
        if plain == text:
            plain = _OUTER.sub(r"\1", _SWITCH.sub(" ", text).strip("$*_` \n\t")).strip()
        if plain == text:
            break
        text = plain
    return text


def by_text(text: str, options: Options) -> str | None:
    """The option whose text this is."""
    shown = {normal(text), normal(text.strip(_MARKS)), normal(text.strip(BRACKETS))}
    found = [
        letter for letter, option in options.items() if shown & {normal(option), normal(option.strip(_MARKS))} - {""}
    ]
    return found[0] if len(found) == 1 else None


def beginning(text: str, options: Options) -> str | None:
    """The option with whose text, the longest of them, this begins."""
    shown = normal(text.strip(_MARKS))
    found = [
        (len(option), letter)
        for letter, option in ((letter, normal(option.strip(_MARKS))) for letter, option in options.items())
        if option and shown.startswith(option) and not shown[len(option) : len(option) + 1].isalnum()
    ]
    return max(found)[1] if found else None


def within(text: str, options: Options) -> str | None:
    """The one option whose text stands in this, as whole words and not as a part of another option's."""
    shown = normal(text)
    texts = {letter: normal(option) for letter, option in options.items() if normal(option)}
    longest = sorted(texts.values(), key=len, reverse=True)
    if not longest:
        return None
    pattern = regex.compile(rf"(?<![\w.+/^−-]|\bnot )(?:{'|'.join(map(regex.escape, longest))})(?!\w|[.,]\d|\s*[/^])")
    found = {match[0] for match in pattern.finditer(shown)}
    letters = [letter for letter, option in texts.items() if option in found]
    return letters[0] if len(letters) == 1 else None


def only_letter(text: str, options: Options) -> str | None:
    """The letter that (unwrapped) text is: alone, or as a label before the option's text."""
    bare = text if len(text) == 1 else text.strip(BRACKETS)
    if len(bare) == 1:
        return bare if bare in options and bare.isupper() else None
    named = beginning(text, options)
    letters = regex.findall(r"[A-Za-z]", text)
    if len(letters) == 1 and letters[0] in options and named in (None, letters[0]):
        return str(letters[0])
    label = _LABEL.match(text.strip())
    if label is None or label[1] not in options or named not in (None, label[1]):
        return None
    if text.strip()[label.start(2) - 1 : label.start(2)] in (".", "-") and beginning(label[2], options) != label[1]:
        # B-copper is a label where copper is B, else a word; and so is E.coli.
        return None
    return str(label[1])


def chosen(text: str, options: Options) -> str | None:
    """The option that what follows "Answer:" names; None where it names several, or none."""
    shown = unwrapped(text).strip(_MARKS)
    bare = shown.strip(BRACKETS).upper()
    if len(bare) == 1:
        return bare if bare in options else None
    named = by_text(shown, options) or beginning(shown, options)
    if named is not None:
        return named
    if negated := _NEGATED.match(shown):
        shown = shown[negated.end() :]
    lead = _LEAD.match(shown)
    if lead and lead[1].upper() in options and not _is_word(shown, lead[1], lead.end(), options):
        letter = lead[1].upper()
        # A label and its own option's text are one answer, though the text may begin as another label does.
        labelled = beginning(shown[lead.end() :].lstrip(BRACKETS + "-"), options) == letter
        return letter if labelled or not _goes_on(shown, lead, options) else None
    reason = _REASON.search(shown)
    head = _letters(shown[: reason.start()] if reason else shown, options)
    if len(set(head)) == 1:
        return head[0]
    alone = _letters(shown, options)
    if not alone or len(set(head)) > 1:
        return None
    return alone[-1]


def _letters(text: str, options: Options) -> list[str]:
    return [m[1] for m in _ALONE.finditer(text) if m[1] in options and not _is_word(text, m[1], m.end(), options)]


def _is_word(text: str, letter: str, end: int, options: Options) -> bool:
    """Whether the letter is the article "a" or the pronoun "I", by what follows it."""
    if letter not in "AaIi":
        return False
    return _TEXT_GOES_ON.match(text, end) is not None and beginning(text[end:], options) != letter.upper()


def _goes_on(text: str, lead: regex.Match[str], options: Options) -> bool:
    """Whether other options follow the first one as a list, as in "A or B"; not where they are ruled out."""
    at, first = lead.end(), ""
    others: set[str] = set()
    while (more := _NEXT.match(text, at)) and more[2].upper() in options:
        if more[2].islower() and lead[1].isupper():
            break
        first = first or more[1]
        others.add(more[2].upper())
        at = more.end()
    others.discard(lead[1].upper())
    return bool(others) and not (first.strip()[:1] in (",", ";") and _RULED_OUT.match(text, at))
