"""Types for XML and CSV, which know only text: the schema says what a text, an element or a row is to be.

A text becomes the number, boolean or null that the schema wants in its place, where it is written as JSON writes one
(signs and leading zeros apart): `1_000`, `nan` and digits of other scripts are no numbers. Of several branches (anyOf,
oneOf, a list of types) the first counts into which the value fits. A text that is nothing of what is wanted stays as
it is, and validation says so.

An element that stands once may be a list of one. <team><member><name>Ida</name></member></team> is a team of one member
where members are objects with a name; where members are texts, the elements within are the items.
"""

import math
import re
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from cascade.environments.shared.json_schema import misfit

Pointer = tuple[str, ...]
"""The way from the schema's root to one of its nodes."""

_ROOT = "urn:cascade:row"
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_OF_TEXT = ("string", "integer", "number", "boolean")
MAX_REFERENCES = 20


def with_types(schema_type: str, value: Any, schema: dict[str, Any]) -> Any:
    """The value with the schema's types; of formats that have their own, unchanged."""
    if schema_type == "xml":
        return _Typing(schema, empty_is_text=True).document(value)
    if schema_type == "csv":
        typing = _Typing(schema, empty_is_text=False)
        items = (schema["items"], ("items",)) if isinstance(schema.get("items"), dict) else (schema, ())
        return [typing.convert(row, *items) for row in value]
    return value


class _Typing:
    """Nodes of the schema come with their JSON pointer, by which a branch can be tried."""

    def __init__(self, root: dict[str, Any], empty_is_text: bool):
        self.root = root
        self.empty_is_text = empty_is_text
        """Whether what is empty is the empty text: an element without content, but not a cell that is missing."""
        self._registry: Registry | None = None

    def document(self, value: Any) -> Any:
        """A document has one root element: the schema's only property, or, where it has others, any name."""
        properties = self._names(self.root, ())
        if isinstance(value, dict) and len(value) == 1 and properties and not value.keys() & properties:
            child = next(iter(value.values()))
            value = child if isinstance(child, dict) else value
        return self.convert(value, self.root, ())

    def convert(self, value: Any, node: Any, pointer: Pointer) -> Any:
        if isinstance(value, str) and isinstance(node, dict) and node.get("type") in _OF_TEXT:
            # Most of what there is: a text in whose place one type is wanted.
            return value if node["type"] == "string" else _scalar(value, node["type"])
        node, pointer = self._followed(node, pointer)
        if not isinstance(node, dict):
            return value
        kind = node.get("type") or ("object" if "properties" in node else "array" if "items" in node else None)
        if kind is None:
            return self._by_branch(value, node, pointer)
        kinds = kind if isinstance(kind, list) else [kind]
        if "null" in kinds and value in (None, ""):
            return None
        for one in kinds:
            found = self._as_kind(value, one, node, pointer)
            if Draft202012Validator.TYPE_CHECKER.is_type(found, one):
                return found
        return self._as_kind(value, kinds[0], node, pointer) if kinds else value

    def _by_branch(self, value: Any, node: dict[str, Any], pointer: Pointer) -> Any:
        for key in ("anyOf", "oneOf"):
            if isinstance(node.get(key), list) and node[key]:
                found = [self.convert(value, branch, (*pointer, key, str(i))) for i, branch in enumerate(node[key])]
                fitting = (one for i, one in enumerate(found) if self._fits(one, (*pointer, key, str(i))))
                return next(fitting, found[0])
        for i, branch in enumerate(node["allOf"] if isinstance(node.get("allOf"), list) else ()):
            value = self.convert(value, branch, (*pointer, "allOf", str(i)))
        wanted = node["enum"] if isinstance(node.get("enum"), list) else [node["const"]] if "const" in node else []
        return next((one for one in wanted if _reads_as(value, one)), value)

    def _as_kind(self, value: Any, kind: str, node: dict[str, Any], pointer: Pointer) -> Any:
        if kind == "object":
            return self._object(value, node, pointer)
        if kind == "array":
            return self._array(value, node, pointer)
        if kind == "string":
            return "" if value is None and self.empty_is_text else value
        return _scalar(value, kind)

    def _object(self, value: Any, node: dict[str, Any], pointer: Pointer) -> Any:
        if value is None and self.empty_is_text:
            return {}
        if not isinstance(value, dict):
            return value
        properties = node.get("properties")
        if not isinstance(properties, dict):
            properties = {}
        other = node.get("additionalProperties")
        return {
            name: self.convert(child, properties[name], (*pointer, "properties", name))
            if name in properties
            else self.convert(child, other, (*pointer, "additionalProperties"))
            for name, child in value.items()
        }

    def _array(self, value: Any, node: dict[str, Any], pointer: Pointer) -> Any:
        items = node.get("items", {})
        names = self._names(items, (*pointer, "items"))
        # The root's own element, and one for all the items.
        for _ in range(1 if pointer else 2):
            if isinstance(value, dict) and len(value) == 1 and not value.keys() & names:
                value = next(iter(value.values()))
        values = value if isinstance(value, list) else [] if value is None else [value]
        return [self.convert(item, items, (*pointer, "items")) for item in values]

    def _names(self, node: Any, pointer: Pointer) -> set[str]:
        """The properties that an object of this schema can have."""
        node, pointer = self._followed(node, pointer)
        if not isinstance(node, dict):
            return set()
        names = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        for key in ("anyOf", "oneOf", "allOf"):
            for i, branch in enumerate(node[key] if isinstance(node.get(key), list) else ()):
                if isinstance(branch, dict) and branch.get("$ref") != "#":
                    names |= self._names(branch, (*pointer, key, str(i)))
        return names

    def _followed(self, node: Any, pointer: Pointer) -> tuple[Any, Pointer]:
        for _ in range(MAX_REFERENCES):
            reference = node.get("$ref") if isinstance(node, dict) else None
            if not isinstance(reference, str) or not reference.startswith("#"):
                return node, pointer
            parts = filter(None, reference[1:].split("/"))
            pointer = tuple(unquote(part).replace("~1", "/").replace("~0", "~") for part in parts)
            node = self.root
            for name in pointer:
                node = node[int(name)] if isinstance(node, list) else node.get(name) if isinstance(node, dict) else None
        return None, pointer

    def _fits(self, value: Any, pointer: Pointer) -> bool:
        if self._registry is None:
            self._registry = Registry().with_resource(_ROOT, DRAFT202012.create_resource(self.root))
        place = "".join(f"/{_escaped(part)}" for part in pointer)
        validator = Draft202012Validator({"$ref": f"{_ROOT}#{place}"}, registry=self._registry)
        return misfit(validator, value) is None


def _scalar(text: Any, kind: str) -> Any:
    if kind == "null":
        return None if text in (None, "") else text
    if not isinstance(text, str):
        return text
    bare = text.strip()
    if kind == "integer" and _INTEGER.fullmatch(bare):
        return int(bare)
    if kind == "number" and _NUMBER.fullmatch(bare):
        number = float(bare)
        return number if math.isfinite(number) else text
    return _BOOLEANS.get(text.lower(), text) if kind == "boolean" else text


def _reads_as(text: Any, wanted: Any) -> bool:
    """Whether the text is how this value is written."""
    if wanted is None:
        return text in (None, "")
    if isinstance(wanted, str):
        return bool(text == wanted) or (wanted == "" and text is None)
    kind = "boolean" if isinstance(wanted, bool) else "number"
    found = _scalar(text, kind)
    return bool(found == wanted) and isinstance(found, bool) == isinstance(wanted, bool) and not isinstance(found, str)


def _escaped(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1").replace("%", "%25")
