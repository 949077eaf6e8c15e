"""Lists of graph nodes, and how much of a trace is copied from its prompt (NeMo Gym's `lc_niah`)."""

import json
import re

from cascade.chat import Response, Row, prompt_of
from cascade.environments.base import Verdict
from cascade.errors import RowError

_OPENING = re.compile(r"Final Answer:\s*\[")
COPIED_WORDS = 16
"""Length of the runs of words by which NeMo Gym (0.7) tells what was copied."""


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
    """Share of the trace's runs of COPIED_WORDS words that the prompt has, too, in [0, 1]; each run counts once."""
    copied, told = (_runs(text.lower().split()) for text in (trace, prompt))
    return len(copied & told) / len(copied) if copied else 0.0


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + COPIED_WORDS]) for start in range(len(words) - COPIED_WORDS + 1)}
