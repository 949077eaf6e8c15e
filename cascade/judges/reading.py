"""Parse JSON verdicts out of a model's answer. A ValueError says what is wrong with the answer."""

import json
from typing import Any

OBJECTS_TRIED = 64
"""Opening braces from the end of an answer at which its verdict is looked for: a verdict comes last."""


def last_object(text: str, *keys: str) -> tuple[dict[str, Any], str, str]:
    """The last JSON object of the answer that has all the keys, and what was written before and after it."""
    decoder = json.JSONDecoder()
    at = len(text)
    for _ in range(OBJECTS_TRIED):
        if (at := text.rfind("{", 0, at)) < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            continue
        except RecursionError:
            raise ValueError("a JSON object nested too deeply") from None
        if isinstance(value, dict) and all(key in value for key in keys):
            return value, text[:at].strip(), text[end:].strip()
    raise ValueError(f"no JSON object with {', '.join(keys)}")


def number(verdict: dict[str, Any], key: str, lowest: float, highest: float) -> float:
    """`verdict[key]`, a number in the range, bounds included."""
    value = verdict[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ValueError(f"{key} is {value!r:.100}, not a number from {lowest:g} to {highest:g}")
    return float(value)
