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
        old_recipe = _read(path)
        try:
            apply_overrides(path, [override])
        except DvcException as error:
            raise _refused(override, str(error.__cause__ or error), _remedy(old_recipe, override)) from None
        except Exception as error:  # of the libraries below DVC: a sweep, a missing value, a place in a list
            raise _refused(override, str(error), "give one plain value for one key") from None
        new_recipe = _read(path)
        for key in _differences(_expected(old_recipe, new_recipe, to_hydra_overrides([override])[0]), new_recipe):
            value = _at(new_recipe, key)
            actual = "" if isinstance(value, dict | list) else f", but {value!r}"
            raise _refused(override, f"{key} would not be what it says{actual}", _remedy(old_recipe, override))


def _refused(override: str, reason: str, remedy: str) -> RecipeError:
    message = " ".join(reason.split("\n")[0].split()).rstrip(".")
    return RecipeError(f"override {override!r}: {message}; {remedy}")


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _expected(old_recipe: Any, new_recipe: Any, override: "Override") -> Any:
    """The recipe with this one change, in a copy without shared blocks."""
    tree = _copy(old_recipe)
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
    # Interpolations (`${seed}`) are resolved by Hydra only.
    value = _at(new_recipe, override.key_or_group) if "${" in str(value) else value
    if isinstance(section, dict):
        # Hydra would add the text '2' as another key than the number 2.
        section[int(last) if last.isdecimal() and int(last) in section else last] = value
    else:
        section[int(last)] = value
    return tree


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _differences(first: Any, second: Any, at: str = "") -> list[str]:
    """Dotted keys in which two trees differ. A float that YAML 1.2 writes as YAML 1.1 reads text, 1e-05, is the same:
    so the recipe's types take it."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = {**first, **second}
        return [
            key_path
            for key in keys
            for key_path in (
                _differences(first[key], second[key], f"{at}.{key}".lstrip("."))
                if key in first and key in second
                else [f"{at}.{key}".lstrip(".")]
            )
        ]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [key_path for place, pair in pairs for key_path in _differences(*pair, f"{at}.{place}")]
    if isinstance(first, float) and isinstance(second, str):
        try:
            second = float(second)
        except ValueError:
            return [at]
    return [] if first == second and isinstance(first, bool) == isinstance(second, bool) else [at]


def _at(tree: Any, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
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
        mapping = value if new else "{…}"
        return f"to replace the whole mapping write two overrides, '~{key}' and then '+{key}={mapping}'"
    if isinstance(old, dict) and name in override:
        return f"{key} is a mapping: name one of its keys ({', '.join(map(str, old))})"
    return "write KEY=VALUE, or +KEY=VALUE for a key that is not in the recipe"
