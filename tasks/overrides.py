"""Changes to a recipe, each KEY=VALUE as of `dvc exp run -S` (Hydra's grammar)."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, to_hydra_overrides

from cascade.errors import RecipeError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def override_recipe(path: Path, overrides: Iterable[str]) -> None:
    """Change the recipe's file, one override after the other. Raises RecipeError where one cannot be applied, or where
    the recipe then differs in anything but the key that it names."""
    for override in overrides:
        before = _read(path)
        try:
            apply_overrides(path, [override])
        except DvcException as error:
            raise _refused(override, str(error.__cause__ or error), _remedy(before, override)) from None
        except Exception as error:  # of the libraries below DVC: a sweep, a missing value, a place in a list
            raise _refused(override, str(error), "give one plain value for one key") from None
        after = _read(path)
        for key in _differences(_expected(before, after, to_hydra_overrides([override])[0]), after):
            found = _at(after, key)
            told = "" if isinstance(found, dict | list) else f", but {found!r}"
            raise _refused(override, f"{key} would not be what it says{told}", _remedy(before, override))


def _refused(override: str, reason: str, remedy: str) -> RecipeError:
    first = " ".join(reason.split("\n")[0].split()).rstrip(".")
    return RecipeError(f"override {override!r}: {first}; {remedy}")


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _expected(before: Any, after: Any, override: "Override") -> Any:
    """The recipe with this one change, made in a tree that shares nothing."""
    tree = _copy(before)
    *parents, last = override.key_or_group.split(".")
    section = tree
    for part in parents:
        section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
        if not isinstance(section, dict | list):
            return tree
    if override.is_delete():
        section.pop(last, None)
        return tree
    value = override.value()
    # What Hydra takes from elsewhere (`${seed}`) only Hydra knows.
    value = _at(after, override.key_or_group) if "${" in str(value) else value
    if isinstance(section, dict):
        # Hydra would put the text '2' beside the number 2.
        section[int(last) if last.isdecimal() and int(last) in section else last] = value
    else:
        section[int(last)] = value
    return tree


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Dotted keys in which two trees differ. A float that YAML 1.2 writes as YAML 1.1 reads text, 1e-05, is the same:
    so the recipe's types take it."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {**one, **other}
        return [
            found
            for key in keys
            for found in (
                _differences(one[key], other[key], f"{at}.{key}".lstrip("."))
                if key in one and key in other
                else [f"{at}.{key}".lstrip(".")]
            )
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for place, pair in pairs for found in _differences(*pair, f"{at}.{place}")]
    if isinstance(one, float) and isinstance(other, str):
        try:
            other = float(other)
        except ValueError:
            return [at]
    return [] if one == other and isinstance(one, bool) == isinstance(other, bool) else [at]


def _at(tree: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    for part in key.split("."):
        if isinstance(tree, dict):
            tree = tree.get(part, tree.get(int(part)) if part.isdecimal() else None)
        else:
            tree = tree[int(part)] if isinstance(tree, list) and part.isdecimal() and int(part) < len(tree) else None
    return tree


def _remedy(recipe: Any, override: str) -> str:
    """What to write instead, in the override's own words where it is about a mapping: Hydra merges one into another,
    and cannot name keys that are numbers."""
    name, _, value = override.lstrip("~+").partition("=")
    key = name.rpartition(".")[0] if name.rpartition(".")[2].isdecimal() else name
    old, new = _at(recipe, key), value.lstrip().startswith("{")
    if isinstance(old, dict) and (new or key != name):
        whole = value if new else "{…}"
        return f"to replace the whole mapping write two overrides, '~{key}' and then '+{key}={whole}'"
    if isinstance(old, dict) and name in override:
        return f"{key} is a mapping: name one of its keys ({', '.join(map(str, old))})"
    return "write KEY=VALUE, or +KEY=VALUE for a key that is not in the recipe"
