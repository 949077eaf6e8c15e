"""Python values as JSON, so that nothing but plain data crosses between processes.

`None`, booleans, strings, lists and integers that fit a double are themselves; all else is `{kind: content}`.
Subclasses become what they extend: what a candidate's class claims about equality ends here.

With a `Crossing` more crosses, as `check(candidate)` needs it: a list that stands in two places arrives as one list,
the standard library's containers keep their type, and what is no data at all crosses as a reference (see `peer`).
"""

from __future__ import annotations

import math

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from typing import Any

FITS = 1 << 53
DICTS = ("dict", "OrderedDict", "Counter", "defaultdict")
_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float, str, tuple, bool)}


class Crossing:
    """What has crossed in one message: its mutable containers in the order in which they were met."""

    def __init__(self) -> None:
        self.met: list[Any] = []
        self.numbers: dict[int, int] = {}

    def number(self, container: Any) -> int | None:
        """The container's number where it was met before; else it has one from now on."""
        known = self.numbers.get(id(container))
        if known is None:
            self.add(container)
        return known

    def add(self, container: Any) -> Any:
        self.numbers[id(container)] = len(self.met)
        self.met.append(container)
        return container

    def refer(self, value: Any) -> Any:
        """A reference to a value that is no data. Raises TypeError."""
        raise TypeError(f"a value of type {type(value).__name__} is not plain data")

    def follow(self, reference: Any) -> Any:
        """What a reference from the other side stands for here. Raises ValueError."""
        raise ValueError(f"{reference!r} refers to nothing")


_PLAIN = Crossing()


def encode(value: Any, crossing: Crossing | None = None) -> Any:
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
    if isinstance(value, (list, dict, set, bytearray)) or (crossing is not None and _kind(value) == "deque"):
        if crossing is not None:
            known = crossing.number(value)
            if known is not None:
                return {"same": known}
        return contents(value, crossing)
    if crossing is not None and isinstance(value, tuple) and (fields := _fields(value)):
        return {"namedtuple": [type(value).__name__, fields, [encode(item, crossing) for item in value]]}
    for kind in (tuple, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, crossing) for item in value]}
    if isinstance(value, bytes):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    kind_name = _kind(value)
    if kind_name == "Fraction":
        return {"Fraction": [hex(value.numerator), hex(value.denominator)]}
    if kind_name == "Decimal":
        return {"Decimal": str(value)}
    if kind_name in ("date", "time", "datetime") and getattr(value, "tzinfo", None).__class__.__name__ in (
        "NoneType",
        "timezone",
    ):
        return {kind_name: value.isoformat()}
    if kind_name == "timedelta":
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if type(value) in (range, slice) and crossing is not None:
        return {type(value).__name__: [encode(part) for part in (value.start, value.stop, value.step)]}
    if crossing is not None and type(value) in _VIEWS.values():
        return {type(value).__name__: [encode(item, crossing) for item in value]}
    if type(value) is memoryview and crossing is not None and value.format == "B":
        return {"memoryview": value.tobytes().hex()}
    return (_PLAIN if crossing is None else crossing).refer(value)


def contents(value: Any, crossing: Crossing | None = None) -> Any:
    """A mutable container, encoded as what it holds now."""
    if isinstance(value, list):
        return [encode(item, crossing) for item in value]
    if isinstance(value, dict):
        kind = _kind(value) if crossing is not None else "dict"
        items = [[encode(key, crossing), encode(item, crossing)] for key, item in dict.items(value)]
        if kind == "defaultdict":
            return {"defaultdict": [getattr(getattr(value, "default_factory", None), "__name__", None), items]}
        return {kind if kind in DICTS else "dict": items}
    if isinstance(value, set):
        return {"set": [encode(item, crossing) for item in value]}
    if isinstance(value, bytearray):
        return {"bytes" if crossing is None else "bytearray": bytes(value).hex()}
    return {"deque": [value.maxlen, [encode(item, crossing) for item in value]]}


def decode(encoded: Any, crossing: Crossing | None = None) -> Any:
    """Raises ValueError for what `encode` does not make, TypeError for an unhashable key or element."""
    crossing = crossing or Crossing()
    if isinstance(encoded, list):
        values = crossing.add([])
        values += [decode(item, crossing) for item in encoded]
        return values
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
        if kind == "bytearray":
            return crossing.add(bytearray.fromhex(content))
        if kind == "memoryview":
            return memoryview(bytes.fromhex(content))
        if kind == "Decimal":
            from decimal import Decimal, InvalidOperation

            try:
                return Decimal(content)
            except InvalidOperation:
                raise ValueError(f"{content[:80]!r} is no decimal number") from None
        if kind in ("date", "time", "datetime"):
            import datetime

            return getattr(datetime, kind).fromisoformat(content)
    if isinstance(content, list):
        if kind in ("tuple", "frozenset"):
            return {"tuple": tuple, "frozenset": frozenset}[kind](decode(item, crossing) for item in content)
        if kind == "set":
            members = crossing.add(set())
            members.update([decode(item, crossing) for item in content])
            return members
        if kind in ("dict", "OrderedDict", "Counter") or (kind == "defaultdict" and len(content) == 2):
            factory, items = content if kind == "defaultdict" else (None, content)
            mapping = crossing.add({} if kind == "dict" else _collection(kind, factory))
            mapping.update({decode(key, crossing): decode(item, crossing) for key, item in items})
            return mapping
        if kind == "deque" and len(content) == 2 and isinstance(content[1], list):
            from collections import deque

            queue: Any = crossing.add(deque(maxlen=content[0]))
            queue.extend([decode(item, crossing) for item in content[1]])
            return queue
        if kind == "namedtuple" and len(content) == 3 and isinstance(content[2], list):
            import collections

            name, fields, items = content
            make: Any = collections.namedtuple
            return make(name, fields)._make([decode(item, crossing) for item in items])
        if kind in _VIEWS:
            members = [decode(item, crossing) for item in content]
            if kind == "dict_values":
                return dict(enumerate(members)).values()
            return dict.fromkeys(members).keys() if kind == "dict_keys" else dict(members).items()
        if kind == "complex":
            return complex(*map(float.fromhex, content))
        if kind == "Fraction" and len(content) == 2:
            from fractions import Fraction

            return Fraction(*(int(part, 16) for part in content))
        if kind == "timedelta":
            from datetime import timedelta

            return timedelta(*content)
        if kind in ("range", "slice"):
            return {"range": range, "slice": slice}[kind](*(decode(part) for part in content))
    if kind == "same" and isinstance(content, int) and 0 <= content < len(crossing.met):
        return crossing.met[content]
    return crossing.follow(encoded)


def renew(container: Any, now: Any) -> None:
    """Let a mutable container hold what another of its kind holds."""
    if isinstance(container, (list, bytearray)):
        container[:] = now
    else:
        container.clear()
        (container.extend if hasattr(container, "extend") else container.update)(now)


_EMPTY: dict[Any, Any] = {}
_VIEWS: dict[str, Any] = {type(view).__name__: type(view) for view in (_EMPTY.keys(), _EMPTY.values(), _EMPTY.items())}


def _fields(value: Any) -> list[str] | None:
    """The names of a named tuple's members; None for any other tuple."""
    names = getattr(type(value), "_fields", None)
    if type(names) is tuple and len(names) == len(value) and all(type(name) is str for name in names):
        return list(names)
    return None


def _kind(value: Any) -> str:
    """The name of a type of the standard library whose values are data; empty for any other type."""
    kind = type(value)
    name = kind.__name__
    return name if _MODULES.get(name) == kind.__module__ else ""


_MODULES = {
    "Fraction": "fractions", "Decimal": "decimal", "date": "datetime", "time": "datetime", "datetime": "datetime",
    "timedelta": "datetime", "deque": "collections", "Counter": "collections", "OrderedDict": "collections",
    "defaultdict": "collections",
}  # fmt: skip


def _collection(kind: str, factory: Any) -> Any:
    import collections

    if kind == "defaultdict":
        return collections.defaultdict(_FACTORIES.get(factory))
    return getattr(collections, kind)()


def same(expected: Any, encoded: Any, tolerance: float = 1e-6) -> bool:
    """Whether an encoded value is the expected one, which comes from JSON. Raises ValueError for a malformed one.

    Types must agree, but for what JSON does not have: a tuple is a list, a key that is an integer its digits, and a
    fraction or decimal a number. Where one of two numbers is a float they may differ by `tolerance`, relative or
    absolute.
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
    if isinstance(encoded, list) or kind not in ("", "int", "float", "Fraction", "Decimal"):
        return False
    value = decode(encoded)
    if isinstance(expected, (bool, type(None))) or isinstance(value, (bool, type(None))):
        return value is expected
    if kind in ("Fraction", "Decimal") and isinstance(expected, (int, float)):
        return bool(value == expected) or (isinstance(expected, float) and _close(expected, float(value), tolerance))
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
