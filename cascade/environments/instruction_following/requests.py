"""What nano prompts ask for: constraint types in several wordings, and what each demands of the answer's plan."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cascade.environments.instruction_following.grammar import WORDS

NUMBERS = ("zero", "one", "two", "three", "four", "five")
ENDINGS = (
    "That is all.", "I hope this helps.", "Have a nice day.", "See you soon.", "Thank you for asking.",
    "That is my answer.", "Now you know.", "Take care.", "What do you think?", "Please ask me more.",
)  # fmt: skip
OPENERS = ("Today", "Often", "Sometimes", "Now", "Here", "Usually", "Clearly", "Indeed", "Yes", "Sure")


@dataclass
class Plan:
    """What the answer must be. Filled by the asks, read by the writer."""

    topic: str
    required: list[str] = field(default_factory=list)
    """Words that must occur, one a sentence; a word may be listed more than once."""
    avoid: set[str] = field(default_factory=set)
    sentences: tuple[int, int] = (1, 3)
    words: tuple[int, int] = (0, 99)
    bullets: int | None = None
    paragraphs: int | None = None
    first: str | None = None
    last: str | None = None
    ending: str | None = None
    blanks: int = 0
    commas: bool = True
    title: bool = False
    quotes: bool = False
    postscript: bool = False
    case: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Ask:
    """One constraint: its id and kwargs, the request in words, and the short note of it in the reasoning."""

    id: str
    kwargs: dict[str, Any] | None
    wording: str
    note: str


def _pick(rng: Random, *wordings: str) -> str:
    return wordings[int(rng.random() * len(wordings))]


def _number(rng: Random, n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) and rng.random() < 0.5 else str(n)


def _content_word(rng: Random, plan: Plan) -> str:
    """A word of the grammar that no other ask speaks of."""
    while True:
        word = rng.choice(WORDS[rng.choice(tuple(WORDS))])
        if word not in plan.required and word not in plan.avoid and word != plan.last and word != plan.topic:
            return word


def existence(rng: Random, plan: Plan) -> Ask:
    first = _content_word(rng, plan)
    plan.required.append(first)
    keywords = [first]
    if rng.random() < 0.4:
        keywords.append(_content_word(rng, plan))
        plan.required.append(keywords[1])
        a, b = keywords
        wording = _pick(
            rng, f"include the words {a} and {b}", f"mention both {a} and {b}", f"use the words {a} and {b}",
            f"make sure that {a} and {b} both appear", f'work in "{a}" and "{b}"',
        )  # fmt: skip
    else:
        wording = _pick(
            rng, f"include the word {first}", f"use the word {first}", f"mention {first} somewhere",
            f'work in "{first}"', f"make sure the word {first} appears", f"let the word {first} appear",
        )  # fmt: skip
    return Ask("keywords:existence", {"keywords": keywords}, wording, f"word {' and '.join(keywords)}")


def frequency(rng: Random, plan: Plan) -> Ask:
    word, n = _content_word(rng, plan), 2 if rng.random() < 0.6 else 3
    plan.required += [word] * n
    times = "twice" if n == 2 and rng.random() < 0.5 else f"{_number(rng, n)} times"
    wording = _pick(
        rng, f"use the word {word} at least {times}", f"say {word} {times} or more",
        f"repeat the word {word} at least {times}", f'let "{word}" appear {times} or more',
        f"mention {word} no less than {times}",
    )  # fmt: skip
    return Ask(
        "keywords:frequency", {"keyword": word, "frequency": n, "relation": "at least"}, wording, f"{word} {n} times"
    )


def forbidden(rng: Random, plan: Plan) -> Ask:
    pool = [
        word for word in (plan.topic.lower(), "it", "and", "near", "very", "likes", "the") if word not in plan.avoid
    ]
    words = [rng.choice(pool) if rng.random() < 0.6 else _content_word(rng, plan)]
    plan.avoid.add(words[0])
    if rng.random() < 0.4:
        words.append(_content_word(rng, plan))
        plan.avoid.add(words[1])
        a, b = words
        wording = _pick(
            rng, f"do not use the words {a} or {b}", f"avoid the words {a} and {b}", f"leave out both {a} and {b}",
            f"never say {a} or {b}", f'skip the words "{a}" and "{b}"',
        )  # fmt: skip
    else:
        (a,) = words
        wording = _pick(
            rng, f"do not use the word {a}", f"avoid the word {a}", f"leave out the word {a}", f'never say "{a}"',
            f"keep the word {a} out of it", f"write without the word {a}",
        )  # fmt: skip
    return Ask("keywords:forbidden_words", {"forbidden_words": words}, wording, f"no {' no '.join(words)}")


def lowercase(rng: Random, plan: Plan) -> Ask:
    plan.case = str.lower
    wording = _pick(
        rng, "write everything in lowercase", "use only lowercase letters", "use no capital letters at all",
        "answer in all lowercase", "keep every letter lowercase", "do not use any capital letter",
    )  # fmt: skip
    return Ask("change_case:english_lowercase", None, wording, "all lowercase")


def capitals(rng: Random, plan: Plan) -> Ask:
    plan.case = str.upper
    wording = _pick(
        rng, "write in all capital letters", "use only capital letters", "answer in capitals only",
        "make every letter a capital", "put every word in upper case", "write the whole answer in capitals",
    )  # fmt: skip
    return Ask("change_case:english_capital", None, wording, "all capitals")


def sentences(rng: Random, plan: Plan) -> Ask:
    if rng.random() < 0.6:
        n = rng.randint(2, 5)
        plan.sentences, relation = (n, n + (n < 4)), "at least"
        wording = _pick(
            rng, f"write at least {_number(rng, n)} sentences", f"use {_number(rng, n)} or more sentences",
            f"give no fewer than {_number(rng, n)} sentences", f"make it {_number(rng, n)} sentences or longer",
        )  # fmt: skip
    else:
        n = rng.randint(2, 4)
        plan.sentences, relation = (1, n - 1), "less than"
        single = ("use one sentence only", "answer in a single sentence", "write just one sentence")
        most = f"{_number(rng, n - 1)} sentences"
        several = (f"write at most {most}", f"keep it to {most} or fewer", f"use no more than {most}")
        wording = _pick(rng, f"use fewer than {_number(rng, n)} sentences", *(single if n == 2 else several))
    kwargs = {"num_sentences": n, "relation": relation}
    return Ask("length_constraints:number_sentences", kwargs, wording, f"{relation} {n} sentences")


def words(rng: Random, plan: Plan) -> Ask:
    if rng.random() < 0.5:
        n, relation = rng.randint(8, 20), "at least"
        plan.words, plan.sentences = (n, n + 8), (1, 5)
        wording = _pick(
            rng, f"write at least {n} words", f"use {n} or more words", f"make it {n} words or longer",
            f"give no fewer than {n} words", f"do not write less than {n} words",
        )  # fmt: skip
    else:
        n, relation = rng.randint(7, 20), "less than"
        plan.words = (0, n - 1)
        wording = _pick(
            rng, f"use fewer than {n} words", f"stay under {n} words", f"use at most {n - 1} words",
            f"keep it to {n - 1} words or fewer", f"write less than {n} words",
        )  # fmt: skip
    return Ask(
        "length_constraints:number_words", {"num_words": n, "relation": relation}, wording, f"{relation} {n} words"
    )


def bullets(rng: Random, plan: Plan) -> Ask:
    n = plan.bullets = rng.randint(2, 5)
    plan.sentences = (n, n)
    wording = _pick(
        rng, f"give exactly {_number(rng, n)} bullet points", f"list exactly {_number(rng, n)} points with *",
        f"write it as {_number(rng, n)} bullet points", f"use {_number(rng, n)} lines that each start with *",
        f"answer with {_number(rng, n)} points marked by *",
    )  # fmt: skip
    return Ask("detectable_format:number_bullet_lists", {"num_bullets": n}, wording, f"{n} bullets")


def paragraphs(rng: Random, plan: Plan) -> Ask:
    n = plan.paragraphs = rng.randint(2, 4)
    plan.sentences = (n, n + (n < 3))
    wording = _pick(
        rng, f"write {_number(rng, n)} paragraphs with *** between them",
        f"split it into {_number(rng, n)} parts divided by ***", f"separate {_number(rng, n)} paragraphs with ***",
        f"make {_number(rng, n)} paragraphs and put *** between them",
    )  # fmt: skip
    return Ask("length_constraints:number_paragraphs", {"num_paragraphs": n}, wording, f"{n} parts")


def ending(rng: Random, plan: Plan) -> Ask:
    plan.ending = phrase = rng.choice(ENDINGS)
    wording = _pick(
        rng, f'end with "{phrase}"', f'finish with the exact words "{phrase}"', f'close with "{phrase}"',
        f'let the last sentence be "{phrase}"', f'make "{phrase}" the very end',
    )  # fmt: skip
    return Ask("startend:end_checker", {"end_phrase": phrase}, wording, f"end {phrase.rstrip('.?')}")


def last_word(rng: Random, plan: Plan) -> Ask:
    plan.last = word = _content_word(rng, plan)
    wording = _pick(
        rng, f"make {word} the last word", f"end with the word {word}", f"let the last word be {word}",
        f"finish on the word {word}", f'put "{word}" as the final word',
    )  # fmt: skip
    return Ask("last_word:last_word_answer", {"last_word": word}, wording, f"last word {word}")


def first_word(rng: Random, plan: Plan) -> Ask:
    plan.first = word = rng.choice(OPENERS)
    wording = _pick(
        rng, f"start with the word {word}", f"begin with {word}", f"make {word} the first word",
        f"let the first word be {word}", f'open with "{word}"',
    )  # fmt: skip
    return Ask("first_word:first_word_answer", {"first_word": word}, wording, f"first word {word}")


def title(rng: Random, plan: Plan) -> Ask:
    plan.title = True
    wording = _pick(
        rng, "give it a title in double angle brackets like <<this>>", "put a title inside << and >>",
        "add a title such as <<my day>>", "start with a title wrapped in << >>", "write a <<title>> above it",
    )  # fmt: skip
    return Ask("detectable_format:title", None, wording, "title")


def quotes(rng: Random, plan: Plan) -> Ask:
    plan.quotes = True
    wording = _pick(
        rng, "wrap the whole answer in double quotes", "put double quotes around everything", "quote the entire answer",
        "open and close with a double quote mark", "put your full answer inside double quotes",
    )  # fmt: skip
    return Ask("startend:quotation", None, wording, "quotes around all")


def postscript(rng: Random, plan: Plan) -> Ask:
    plan.postscript = True
    wording = _pick(
        rng, "add a postscript that starts with P.S.", "finish with a P.S. line", "put a P.S. at the end",
        "close with P.S. and one more remark", "include a P.S. after the text",
    )  # fmt: skip
    return Ask("detectable_content:postscript", {"postscript_marker": "P.S."}, wording, "P.S. line")


def placeholders(rng: Random, plan: Plan) -> Ask:
    n = plan.blanks = rng.randint(1, 3)
    plural = "s" if n > 1 else ""
    wording = _pick(
        rng, f"include at least {_number(rng, n)} placeholder{plural} in square brackets like [name]",
        f"leave {_number(rng, n)} or more blanks such as [place]",
        f"use at least {_number(rng, n)} placeholder{plural} like [date]",
        f"put {_number(rng, n)} or more fields like [name] in it",
    )  # fmt: skip
    return Ask("detectable_content:number_placeholders", {"num_placeholders": n}, wording, f"{n} blank{plural}")


def no_comma(rng: Random, plan: Plan) -> Ask:
    plan.commas = False
    wording = _pick(
        rng, "do not use any commas", "use no commas", "avoid commas", "leave out every comma",
        "write without commas", "skip all commas",
    )  # fmt: skip
    return Ask("punctuation:no_comma", None, wording, "no commas")


ASKS = (
    existence, frequency, forbidden, lowercase, capitals, sentences, words, bullets, paragraphs, ending, last_word,
    first_word, title, quotes, postscript, placeholders, no_comma,
)  # fmt: skip

# Asks that cannot be kept together, or not within a short answer.
_RIVALS = (
    {lowercase, capitals},
    {sentences, words, bullets, paragraphs},
    {ending, last_word, postscript},
    {first_word, title, quotes},
    {first_word, bullets},
    {quotes, bullets},
    {postscript, sentences},
    {ending, sentences},
    {words, ending, postscript, title},
    {existence, frequency, placeholders},
)


def draw_asks(rng: Random, count: int) -> list[Callable[[Random, Plan], Ask]]:
    """That many asks that go together, in random order."""
    chosen: list[Callable[[Random, Plan], Ask]] = []
    while len(chosen) < count:
        ask = rng.choice(ASKS)
        if ask not in chosen and not any(ask in group and group.intersection(chosen) for group in _RIVALS):
            chosen.append(ask)
    return chosen
