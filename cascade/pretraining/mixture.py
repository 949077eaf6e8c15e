"""The pretraining corpus: generated tasks of every domain, with answers of mixed quality.

Web text is of mixed quality, and a base model imitates all of it. So some of the answers here are hasty: the reasoning
is truncated and the answer is wrong in a plausible way. SFT on verified demonstrations and RL then have errors to
remove, as they do at full scale.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cascade import chat
from cascade.environments.synthetic.rows import shortened
from cascade.pretraining.sources import GENERATORS
from cascade.utils.seeds import derive_seed

TRAINED = np.uint16(1 << 15)
"""Flag of a token with full weight in the loss; token ids are smaller than this bit."""


@dataclass(frozen=True)
class Part:
    """Part of the mixture: a number of rows of one source, at one level."""

    source: str
    level: int
    rows: int


@dataclass(frozen=True)
class Document:
    """Text in segments, each with a flag: True for assistant text, False for prompts."""

    segments: tuple[tuple[str, bool], ...]


def documents(part: Part, seed: int, *, hasty: float, direct: float) -> Iterator[Document]:
    """The rows of a part as text. `hasty`: share of tasks with a wrong answer after truncated reasoning; `direct`:
    share of tasks that are answered without reasoning."""
    rng = random.Random(derive_seed(seed, "mixture", part.source, part.level))
    previous: dict | None = None
    for row in GENERATORS[part.source](part.rows, derive_seed(seed, "rows", part.source), part.level):
        if "text" in row:
            yield Document(((row["text"] + "</s>", True),))
            continue
        messages, tools = chat.prompt_of(row)
        answer = row["demonstration"]
        if "messages" in answer:
            messages = [*messages, *answer["messages"]]
        else:
            if previous is not None and "quality" not in row and rng.random() < hasty:
                answer = hasty_answer(row, previous, rng)
            previous = row
            messages = [*messages, assistant_message(answer, thinking=rng.random() >= direct)]
        yield Document(tuple(_segments(messages, tools)))


def assistant_message(answer: dict, *, thinking: bool) -> chat.Message:
    message: chat.Message = {"role": "assistant", "content": answer.get("content") or ""}
    if thinking and answer.get("reasoning"):
        message["reasoning_content"] = answer["reasoning"]
    if answer.get("tool_calls"):
        message["tool_calls"] = answer["tool_calls"]
    return message


def hasty_answer(row: dict, other: dict, rng: random.Random) -> dict:
    """A plausible wrong answer: truncated reasoning, and one error in the answer."""
    answer = row["demonstration"]
    reasoning = shortened(answer.get("reasoning") or "", rng)
    content = answer.get("content") or ""
    calls = [
        dict(call["function"], arguments=dict(call["function"]["arguments"])) for call in answer.get("tool_calls") or []
    ]
    if calls:
        if len(calls) > 1 and rng.random() < 0.5:
            calls.pop(rng.randrange(len(calls)))
        else:
            arguments = rng.choice(calls)["arguments"]
            if arguments:
                name = rng.choice(sorted(arguments))
                arguments[name] = _other_value(arguments[name], row, rng)
    elif isinstance(row.get("options"), list):
        letters = [letter for option in row["options"] for letter in option]
        content = f"\\boxed{{{rng.choice(letters)}}}"
    elif re.search(r"\d", content) and rng.random() < 0.7:
        place = rng.choice([m.start() for m in re.finditer(r"\d", content)])
        content = content[:place] + str(rng.randint(1, 9)) + content[place + 1 :]
    else:
        content = other["demonstration"].get("content") or content
    wrapped = [{"type": "function", "function": call} for call in calls]
    return {"reasoning": reasoning, "content": content, "tool_calls": wrapped}


def _other_value(value: object, row: dict, rng: random.Random) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice([-2, -1, 1, 2, 10])
    words = re.findall(r"[A-Za-z]{3,}", str(row["responses_create_params"]["input"]))
    return rng.choice(words) if words else value


def _segments(messages: list[chat.Message], tools: list[dict] | None) -> Iterator[tuple[str, bool]]:
    for context, reply in chat.replies(_tokenizer(), messages, tools):
        yield context, False
        yield reply, True


_STATE: dict[str, PreTrainedTokenizerBase] = {}


def _tokenizer() -> PreTrainedTokenizerBase:
    return _STATE["tokenizer"]


def use_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the tokenizer of this process."""
    _STATE["tokenizer"] = tokenizer


def encode_part(job: tuple[Part, int, float, float]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Token ids of all documents of a part, concatenated and with the TRAINED flag, and the documents' lengths."""
    part, seed, hasty, direct = job
    ids: list[int] = []
    lengths: list[int] = []
    for document in documents(part, seed, hasty=hasty, direct=direct):
        before = len(ids)
        for text, trained in document.segments:
            encoded = chat.encode(_tokenizer(), text)
            ids += [i | int(TRAINED) for i in encoded] if trained else encoded
        lengths.append(len(ids) - before)
    return np.array(ids, np.uint16), np.array(lengths, np.int32)


@dataclass(frozen=True)
class Corpus:
    """All documents, concatenated: `ids` with the TRAINED flag; document i is ids[bounds[i]:bounds[i + 1]]."""

    ids: NDArray[np.uint16]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bounds) - 1


def build_corpus(
    parts: list[Part],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    hasty: float,
    direct: float,
    processes: int,
) -> Corpus:
    """Generate and tokenise all parts in several processes; the result does not depend on their number."""
    step = 2000
    jobs = [
        (Part(part.source, part.level, min(step, part.rows - start)), derive_seed(seed, start), hasty, direct)
        for part in parts
        for start in range(0, part.rows, step)
    ]
    with get_context("fork").Pool(processes, use_tokenizer, (tokenizer,)) as pool:
        encoded = pool.map(encode_part, jobs, chunksize=1)
    lengths = np.concatenate([lengths for _, lengths in encoded])
    return Corpus(np.concatenate([ids for ids, _ in encoded]), np.concatenate([[0], np.cumsum(lengths)]))
