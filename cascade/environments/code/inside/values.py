"""Python values as JSON, so that nothing but plain data crosses between processes.

`None`, booleans, strings, lists and integers that fit a double are themselves; all else is `{kind: content}`.
Subclasses become what they extend: what a candidate's class claims about equality ends here.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from typing import Any

FITS = 1 << 53


def encode(value: Any) -> Any:
    """Raises TypeError for a value that is not plain data, RecursionError for one that is too deep."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int.__int__(value)
        return number if -FITS < number < FITS else {"int": hex(number)}
    if isinstance(value, float):
        return {"float": float.__repr__(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in dict.items(value)]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item) for item in value]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    raise TypeError(f"a value of type {type(value).__name__} is not plain data")


def decode(encoded: Any) -> Any:
    """Raises ValueError for what `encode` does not make, TypeError for an unhashable key or element."""
    if isinstance(encoded, list):
        return [decode(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if len(encoded) != 1:
        raise ValueError("an encoded value has one kind")
    [(kind, content)] = encoded.items()
    if isinstance(content, str):
        if kind == "int":
            return int(content, 16)
        if kind == "float":
            return float(content)
        if kind == "bytes":
            return bytes.fromhex(content)
    if isinstance(content, list):
        if kind in ("tuple", "set", "frozenset"):
            return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](map(decode, content))
        if kind == "dict":
            return {decode(key): decode(item) for key, item in content}
        if kind == "complex":
            return complex(*map(float.fromhex, content))
    raise ValueError(f"there is no encoded kind {kind!r}")


def same(expected: Any, encoded: Any, tolerance: float = 1e-6) -> bool:
    """Whether an encoded value is the expected one, which comes from JSON. Raises ValueError for a malformed one.

    Types must agree, but for what JSON does not have: a tuple is a list, and a key that is an integer its digits.
    Where one of two numbers is a float they may differ by `tolerance`, relative or absolute.
    """
    kind = next(iter(encoded)) if isinstance(encoded, dict) and len(encoded) == 1 else ""
    if isinstance(expected, list):
        items = encoded[kind] if kind == "tuple" else encoded
        return (
            isinstance(items, list)
            and len(items) == len(expected)
            and all(same(one, other, tolerance) for one, other in zip(expected, items, strict=True))
        )
    if isinstance(expected, dict):
        # The length first: a dictionary of many keys with equal hashes takes long to build.
        if kind != "dict" or len(encoded["dict"]) != len(expected):
            return False
        found = {_key(key): item for key, item in encoded["dict"]}
        return found.keys() == expected.keys() and all(same(expected[k], found[k], tolerance) for k in expected)
    if isinstance(encoded, list) or kind not in ("", "int", "float"):
        return False
    value = decode(encoded)
    if isinstance(expected, (bool, type(None))) or isinstance(value, (bool, type(None))):
        return value is expected
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        both_whole = isinstance(expected, int) and isinstance(value, int)
        return value == expected if both_whole else _close(expected, value, tolerance)
    return isinstance(expected, str) and isinstance(value, str) and value == expected


def _key(encoded: Any) -> Any:
    if isinstance(encoded, str):
        return encoded
    if isinstance(encoded, int) and not isinstance(encoded, bool):
        return str(encoded)
    return None  # JSON has no such key


def _close(one: float, other: float, tolerance: float) -> bool:
    try:
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) or (one != one and other != other)
    except OverflowError:
        return False
