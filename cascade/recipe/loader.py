"""Load and validate a recipe's file; one line for each problem."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cascade.errors import RecipeError
from cascade.recipe.recipe import Recipe
from cascade.recipe.sections import STRATEGIES
from cascade.utils.config import Section
from cascade.utils.files import hash_file


class _WithoutAnchors(yaml.SafeLoader):
    """Rejects YAML aliases. When DVC changes a key of a shared block, the change is lost or made in every copy."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise RecipeError(
                f"line {alias.start_mark.line + 1}: *{alias.anchor} takes a block from elsewhere, and `dvc exp run -S` "
                f"cannot change such a block in one place alone; write out what &{alias.anchor} holds"
            )
        return super().compose_node(parent, index)


def load(path: Path) -> Recipe:
    """Raises RecipeError: one line a problem, each naming its key."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _WithoutAnchors)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; `cascade recipe use nano` makes the default one active") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file; a recipe is YAML") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: not a recipe; a recipe is a YAML mapping, see recipes/nano.yaml")
    try:
        return Recipe.model_validate(content)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {_line(problem, content)}" for problem in error.errors())) from None


def recipe_hash(path: Path) -> str:
    """First 12 hex digits of the SHA-256 of the file."""
    return hash_file(path)[:12]


def _line(problem: Any, content: Any) -> str:
    """A pydantic problem as `key: what is wrong`, with the nearest known key for a misspelt one."""
    key = ".".join(str(part) for part in problem["loc"] if part not in STRATEGIES)
    if problem["type"] == "extra_forbidden":
        fields = _fields(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1)
        return f"{key}: unknown key; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(fields)}")
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    has_value = problem["type"] == "value_error" or isinstance(value, dict | list)
    return f"{key}: {message}" + ("" if has_value else f" (it is {value!r})")


def _fields(location: tuple[Any, ...]) -> list[str]:
    """Known keys of the section at a location of the recipe."""
    section: Any = Recipe
    for part in location:
        if str(part) in STRATEGIES:
            section = STRATEGIES[str(part)]
        elif isinstance(section, type) and issubclass(section, Section):
            section = section.model_fields[str(part)].annotation
        else:
            section = section.__args__[-1]
        if hasattr(section, "__args__") and getattr(section, "__origin__", None) is not dict:
            section = next(a for a in section.__args__ if isinstance(a, type) and issubclass(a, Section))
    return list(section.model_fields)
