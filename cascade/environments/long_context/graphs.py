"""Lists of graph nodes, and how much of a trace is copied from its prompt (NeMo Gym's `lc_niah`)."""

import json
import re

import numpy as np
from numpy.typing import NDArray

from cascade.chat import Response, Row, prompt_of
from cascade.environments.base import Verdict
from cascade.errors import RowError

_OPENING = re.compile(r"Final Answer:\s*\[")
_CODES = 0x110000
"""One more than the largest code point."""


def judge(row: Row, response: Response) -> Verdict:
    expected = expected_nodes(row)
    nodes = answered_nodes(response.content)
    if nodes is None:
        return Verdict(0.0, reason="the last line is not `Final Answer: [node, node]`")
    f1 = f1_score(nodes, expected)
    copied = copied_share(response.reasoning or "", prompt_text(row))
    reason = f"{len(nodes & expected)} of {len(expected)} nodes among {len(nodes)}; {copied:.2f} of the trace is copied"
    return Verdict(f1 * (1 - copied), extracted=sorted(nodes), reason=reason)


def expected_nodes(row: Row) -> set[str]:
    """Raises RowError (`no_answer`) where `expected_answer` is not a JSON list of nodes."""
    try:
        nodes = json.loads(row["expected_answer"])
    except (KeyError, TypeError, ValueError):
        nodes = None
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise RowError("no_answer", "long_context: `expected_answer` of an lc_niah row is no JSON list of node names")
    return set(nodes)


def prompt_text(row: Row) -> str:
    """What is said in the prompt, messages joined by line breaks. Raises RowError (`no_prompt`)."""
    return "\n".join(message["content"] for message in prompt_of(row)[0])


def answered_nodes(text: str) -> set[str] | None:
    """The nodes of `Final Answer: [a, "b"]` in the last line that is not blank; None where there is no such thing."""
    line = next((line for line in reversed(text.split("\n")) if line.strip()), "")
    opening = _OPENING.search(line)
    end = line.rfind("]")
    if opening is None or end < opening.end():
        return None
    items = (item.strip().strip("\"'").strip() for item in line[opening.end() : end].split(","))
    return {item for item in items if item}


def f1_score(given: set[str], expected: set[str]) -> float:
    """2·|both| / (|given| + |expected|), the harmonic mean of precision and recall; 1 where both are empty."""
    if not given and not expected:
        return 1.0
    return 2 * len(given & expected) / (len(given) + len(expected))


def copied_share(trace: str, prompt: str) -> float:
    """Longest run of characters that the trace shares with the prompt, over the trace's length, in [0, 1]."""
    trace, prompt = (" ".join(text.lower().split()) for text in (trace, prompt))
    return longest_common_run(trace, prompt) / len(trace) if trace else 0.0


def longest_common_run(left: str, right: str) -> int:
    """Characters of the longest string that occurs in both. O(n log² n) for n characters in all.

    Every place of left + right gets a number for the run that begins there, equal for equal runs: first for runs of
    1, then 2, 4, … characters while some run occurs in both texts. Two overlapping runs of such a length make
    one of any length up to twice it, among which the longest is found by bisection.
    """
    split, shortest = len(left), min(len(left), len(right))
    # Half of a surrogate pair is a character to Python, and a model's text may hold one.
    runs = np.frombuffer((left + right).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    if not _in_both(runs, split, 1):
        return 0
    length = 1
    while 2 * length <= shortest:
        longer = _joined(runs, length, 2 * length)
        if not _in_both(longer, split, 2 * length):
            break
        runs = np.unique(longer, return_inverse=True)[1]
        length *= 2
    low, high = length, min(2 * length - 1, shortest)
    while low < high:
        middle = (low + high + 1) // 2
        if _in_both(_joined(runs, length, middle), split, middle):
            low = middle
        else:
            high = middle - 1
    return low


def _joined(runs: NDArray[np.int64], length: int, wanted: int) -> NDArray[np.int64]:
    """Numbers of the runs of `wanted` characters, from those of `length`; length < wanted <= 2 · length."""
    shift = wanted - length
    return runs[:-shift] * max(_CODES, len(runs)) + runs[shift:]


def _in_both(runs: NDArray[np.int64], split: int, length: int) -> bool:
    """Whether a run that lies in the first `split` characters also lies in the others."""
    inside = runs[: max(split - length + 1, 0)]
    return bool(np.isin(inside, runs[split:]).any())
