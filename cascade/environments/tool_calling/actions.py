"""Single-step tool use against an expected action, by NeMo Gym's rules for comparing arguments."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cascade.chat import ToolCall
from cascade.environments.tool_calling.calls import Score, read_call
from cascade.errors import RowError

WORD_SIMILARITY = 0.1
"""Words in common, as a share of the words of both texts, from which two texts match; rows' agents may have another."""
FLOAT_TOLERANCE = 1e-6


def compare(
    action: dict[str, Any], made: Sequence[ToolCall], *, f1: bool = False, similarity: float = WORD_SIMILARITY
) -> Score:
    """Reward and reason. `similarity` is the least share of words that two texts must have in common to match.

    Raises RowError (`bad_ground_truth`).
    """
    # Imported here: it takes half a second, which whoever has no such call to judge need not pay.
    from scipy.optimize import linear_sum_assignment

    expected = expected_calls(action)
    if expected is None:
        return (0.0, "a call was made where a message was expected") if made else (1.0, "a message, as expected")
    if not made:
        return 0.0, "no call, where one was expected"
    differences = [[_difference(want, got, similarity) for got in made] for want in expected]
    # A call may match several expected ones (words are compared loosely): count the best assignment.
    matches = np.array([[difference is None for difference in row] for row in differences], dtype=float)
    matched = int(matches[linear_sum_assignment(matches, maximize=True)].sum())
    reason = f"{matched} of {len(expected)} expected calls among {len(made)}"
    if matched < len(expected) and len(made) == 1:
        reason = next((row[0] for row in differences if row[0] is not None), reason)
    if f1:
        return 2 * matched / (len(expected) + len(made)), reason
    return float(matched == len(expected)), reason


def expected_calls(action: Any) -> list[ToolCall] | None:
    """None where a message is expected. Raises RowError (`bad_ground_truth`)."""
    match action:
        case {"type": "message"}:
            return None
        case {"type": "function_call"}:
            return [read_call(action)]
        case {"type": "function_call_batch", "calls": [_, *_] as calls}:
            return [read_call(call) for call in calls]
    raise RowError(
        "bad_ground_truth",
        "tool_calling: expected_action is not a message, a function_call or a function_call_batch with calls",
    )


def _difference(want: ToolCall, got: ToolCall, similarity: float) -> str | None:
    if want.name != got.name:
        return f"called {got.name}, expected {want.name}"
    return _value_difference(want.arguments, got.arguments, want.name, similarity)


def _value_difference(want: Any, got: Any, where: str, similarity: float) -> str | None:
    # True is an instance of int, and not a number.
    if not isinstance(got, type(want)) or isinstance(got, bool) != isinstance(want, bool):
        return f"{where}: {type(got).__name__}, expected {type(want).__name__}"
    if isinstance(want, dict):
        if want.keys() != got.keys():
            return f"{where}: keys {sorted(got)}, expected {sorted(want)}"
        parts = ((want[key], got[key], f"{where}.{key}") for key in want)
    elif isinstance(want, list):
        if len(want) != len(got):
            return f"{where}: {len(got)} items, expected {len(want)}"
        parts = ((w, g, f"{where}[{i}]") for i, (w, g) in enumerate(zip(want, got, strict=True)))
    else:
        return None if _same(want, got, similarity) else f"{where}: {got!r}, expected {want!r}"
    return next(filter(None, (_value_difference(*part, similarity) for part in parts)), None)


def _same(want: Any, got: Any, similarity: float) -> bool:
    if isinstance(want, float):
        return abs(got - want) < FLOAT_TOLERANCE
    if isinstance(want, str):
        wanted, given = Counter(want.lower().split()), Counter(got.lower().split())
        if wanted.total() < 2 or given.total() < 2:
            return bool(want == got)
        return (wanted & given).total() / (wanted.total() + given.total()) >= similarity
    return bool(want == got)
