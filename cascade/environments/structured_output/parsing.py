"""Text → data in the formats that NeMo Gym's rows ask for."""

import csv
import io
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import xmltodict
import yaml

from cascade.chat import read_json

MAX_CHARACTERS = 200_000
MAX_NODES = 200_000
MAX_DEPTH = 100
MAX_BITS = 10_000
"""Of an integer: YAML's hexadecimal ones escape Python's own limit, and longer ones cannot be written again."""


def parse(
    schema_type: str, text: str, parsers: Mapping[str, Callable[[str], Any]] | None = None, *, finite: bool = True
) -> Any:
    """Raises ValueError, in words, for anything that is not `schema_type` or is too large to look at. `parsers`: others
    than PARSERS; `finite`: see `check_size`."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    try:
        value = (parsers or PARSERS)[schema_type](text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except Exception as error:
        # Each format's library has its own errors; all of them are about what the model wrote.
        raise ValueError(f"not {schema_type.upper()}: {' '.join(str(error).split())[:200]}") from None
    check_size(value, finite=finite)
    return value


def check_size(value: Any, *, finite: bool = True) -> None:
    """Raises ValueError where walking through the value would take too long (aliases make YAML exponential), and for a
    number that is none to JSON Schema: YAML and TOML have nan and inf. `finite` False lets them be."""
    stack, seen = [(value, 0)], 0
    while stack:
        item, depth = stack.pop()
        seen += 1
        if seen > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError("too large or nested too deep")
        if isinstance(item, str):
            continue
        if finite and isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{item} is no number")
        if isinstance(item, int) and item.bit_length() > MAX_BITS:
            raise ValueError("a number that is too long")
        if isinstance(item, dict):
            if not all(isinstance(key, str | int | float | None) for key in item):
                raise ValueError("a key that JSON cannot write")
            stack += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, list | tuple | set):
            stack += [(child, depth + 1) for child in item]


class _Loader(yaml.SafeLoader):
    """YAML 1.2, core schema: PyYAML reads version 1.1, to which a date is no text, `no` is false and 012 is ten."""


_Loader.yaml_implicit_resolvers = {}
_NULL, _BOOL = re.compile(r"~|null|Null|NULL|"), re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
for _tag, _pattern, _firsts in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    # Not of YAML 1.2 any more, but read everywhere.
    ("merge", re.compile("<<"), ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})\Z"), _firsts)


def _yaml_int(loader: yaml.SafeLoader, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _yaml_int)


def _yaml(text: str) -> Any:
    # No safe_load: the loader above is one.
    return yaml.load(text, Loader=_Loader)


PARSERS: dict[str, Callable[[str], Any]] = {
    "json": read_json,
    "yaml": _yaml,
    "xml": xmltodict.parse,
    "toml": tomllib.loads,
    "csv": lambda text: list(csv.DictReader(io.StringIO(text))),
}
