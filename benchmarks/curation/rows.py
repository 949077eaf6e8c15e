"""Generated conversations with the columns of nvidia/Nemotron-Cascade-2-SFT-Data, and planted pairs."""

import json
import random
from collections.abc import Iterator
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "br",
    "ch",
    "cl",
    "dr",
    "fl",
    "gr",
    "pl",
    "pr",
    "sh",
    "sl",
    "st",
    "th",
    "tr",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "ou", "oo"]
_CODAS = ["", "", "n", "r", "s", "t", "l", "nd", "ng", "ck", "st"]
WORDS = 20_000
"""Size of the vocabulary; frequencies fall as 1 / rank."""
DUPLICATES = 0.05
"""Share of the rows that copy an earlier one, and as large a share that copy one but for a few words."""
WORDS_A_ROW = 300
EARLIER = 2_000
"""Copies are of one of so many rows before."""


def vocabulary() -> list[str]:
    """WORDS different words of one to three syllables, short ones first, as in a language."""
    rng = random.Random(0)
    words: dict[str, None] = {}
    while len(words) < WORDS:
        syllables = 1 if len(words) < 1_000 else 2 if len(words) < 8_000 else 3
        parts = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
        words["".join(parts)] = None
    return list(words)


class Text:
    """Sentences of words drawn by rank."""

    def __init__(self) -> None:
        self._words = vocabulary()
        self._weights = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))

    def sentences(self, rng: random.Random, words: int) -> str:
        drawn = rng.choices(self._words, cum_weights=self._weights, k=words)
        lines = []
        at = 0
        while at < words:
            length = rng.randrange(8, 20)
            line = drawn[at : at + length]
            if rng.random() < 0.3:
                line[rng.randrange(len(line))] = str(rng.randrange(1, 1000))
            lines.append(" ".join(line).capitalize() + ".")
            at += length
        return " ".join(lines)

    def word(self, rng: random.Random) -> str:
        return rng.choice(self._words)


def conversation(text: Text, rng: random.Random, words: int) -> dict[str, Any]:
    """A question (a fifth of the words), reasoning and answer."""
    question = text.sentences(rng, words // 5)
    reasoning, answer = text.sentences(rng, words // 2), text.sentences(rng, words * 3 // 10)
    return _row([_user(question), {"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n{answer}"}])


def agentic(text: Text, rng: random.Random, words: int) -> dict[str, Any]:
    """A long conversation with tools: calls and their results until `words` words are written."""
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
    function = {"name": "search", "description": "Searches the files.", "parameters": parameters}
    messages = [_user(text.sentences(rng, 60))]
    written = 60
    while written < words:
        call = {"function": {"name": "search", "arguments": {"query": text.sentences(rng, 8)}}}
        thought = text.sentences(rng, 60)
        messages.append({"role": "assistant", "content": "", "reasoning_content": thought, "tool_calls": [call]})
        messages.append({"role": "tool", "content": text.sentences(rng, 500)})
        written += 570
    messages.append({"role": "assistant", "content": text.sentences(rng, 100)})
    return {**_row(messages), "tools": [{"type": "function", "function": function}]}


def rows(count: int, words: int = WORDS_A_ROW, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Conversations of about `words` words: DUPLICATES exact copies, as many near ones."""
    text, rng = Text(), random.Random(seed)
    earlier: list[dict[str, Any]] = []
    for _ in range(count):
        draw = rng.random()
        if earlier and draw < 2 * DUPLICATES:
            row = json.loads(json.dumps(rng.choice(earlier)))
            if draw < DUPLICATES:
                _replace_words(row["messages"][-1], text, rng, 3)
        elif words > 2_000:
            row = agentic(text, rng, words)
        else:
            row = conversation(text, rng, max(40, round(rng.gauss(words, words / 4))))
        if len(earlier) < EARLIER:
            earlier.append(row)
        else:
            earlier[rng.randrange(EARLIER)] = row
        yield row


def write(folder: Path, count: int, words: int = WORDS_A_ROW, rows_a_file: int = 50_000, processes: int = 1) -> int:
    """Write JSONL files of generated rows, each with its own seed; returns the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, rows_a_file)
    parts = [(folder, part, min(rows_a_file, count - start), words) for part, start in enumerate(starts)]
    if processes == 1:
        return sum(map(_write_part, parts))
    with get_context("fork").Pool(processes) as pool:
        return sum(pool.imap(_write_part, parts))


def _write_part(arguments: tuple[Path, int, int, int]) -> int:
    folder, part, count, words = arguments
    with open(folder / f"part-{part:05d}.jsonl", "w", encoding="utf-8") as file:
        return sum(file.write(json.dumps(row, ensure_ascii=False) + "\n") for row in rows(count, words, seed=part + 1))


def _row(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"messages": messages, "domain": "chat", "source": "generated", "generator": "benchmarks.curation"}


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _replace_words(message: dict[str, Any], text: Text, rng: random.Random, count: int) -> None:
    words = message["content"].split(" ")
    for _ in range(count):
        at = rng.randrange(len(words))
        if words[at].isalpha():
            words[at] = text.word(rng)
    message["content"] = " ".join(words)
