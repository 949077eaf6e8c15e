"""The three forms in which a row gives its tests, read into one of three problems.

1. Calls: `function` and `tests` [{input: [argument, …], output: value}]; NeMo Gym's `code_gen` rows with
   `verifier_metadata.unit_tests.fn_name`, whose inputs hold an argument a line and whose outputs a value, as JSON.
2. Streams: the same with `function` null or no `fn_name`; inputs and outputs are texts.
3. Check: `prompt`, `test` with `check(candidate)`, `entry_point`, and where there is one `canonical_solution`.
"""

import ast
import base64
import json
import re
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

from cascade.chat import Row
from cascade.environments.base import in_gym
from cascade.environments.code.answers import LABELS, Language
from cascade.errors import RowError


@dataclass(frozen=True)
class Calls:
    function: str
    arguments: list[list[Any]]
    outputs: list[Any]
    prelude: bool
    """Whether the candidate may use the usual modules without importing them, as in NeMo Gym."""


@dataclass(frozen=True)
class Streams:
    inputs: list[str]
    outputs: list[str]
    prelude: bool
    gym: bool = False
    """Whether outputs are compared as NeMo Gym does."""


@dataclass(frozen=True)
class Check:
    prompt: str
    definitions: str
    """What an answer with the whole function finds: the prompt, without the function where it has no body there."""
    reference: str
    """What the test may use: the prompt's definitions, with their bodies where the row has them."""
    test: str
    entry_point: str


def problem_of(row: Row) -> Calls | Streams | Check:
    """Raises RowError: `no_tests`, `bad_tests`."""
    if "check(" in str(row.get("test")) and "entry_point" in row:
        parts = [row.get(name) for name in ("prompt", "test", "entry_point")]
        if not all(isinstance(part, str) and part.strip() for part in parts):
            raise RowError("bad_tests", "code: `prompt`, `test` and `entry_point` must be texts")
        prompt, test, entry_point = map(str, parts)
        return _check(prompt, str(row.get("canonical_solution") or ""), test, entry_point)
    metadata = row.get("verifier_metadata")
    if isinstance(metadata, dict) and "unit_tests" in metadata:
        return _of_gym(metadata["unit_tests"], in_gym(row))
    tests = row.get("tests")
    if not isinstance(tests, list) or not tests:
        raise RowError("no_tests", "code: the row has neither `tests`, `test` nor `verifier_metadata.unit_tests`")
    try:
        inputs, outputs = [test["input"] for test in tests], [test["output"] for test in tests]
    except (TypeError, KeyError):
        raise RowError("bad_tests", "code: each of `tests` must have `input` and `output`") from None
    function = row.get("function")
    if function is None:
        return _streams(inputs, outputs, prelude=False, gym=in_gym(row))
    return _calls(function, inputs, outputs, prelude=False)


def _check(prompt: str, solution: str, test: str, entry_point: str) -> Check:
    # A prompt that ends with a signature and a comment, or in the middle of a docstring, is not yet Python.
    definitions = prompt if _is_python(prompt) else _before(prompt, entry_point)
    whole = prompt + solution
    if not _is_python(whole):
        whole = definitions + "\n" + solution if solution else definitions
    return Check(prompt, definitions, whole, test, entry_point)


def _is_python(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _before(prompt: str, entry_point: str) -> str:
    """What stands before the function, decorators apart."""
    found = list(re.finditer(rf"^(?:@.*\n)*(?:async\s+)?def\s+{re.escape(entry_point)}\b", prompt, re.MULTILINE))
    return prompt[: found[-1].start()] if found else prompt


def language_of(row: Row) -> Language | None:
    """The language that the row asks for; None leaves it to the answer. Raises RowError (`bad_language`)."""
    asked = row.get("language")
    if asked is None:
        return None
    language = LABELS.get(str(asked).lower())
    if language is None:
        raise RowError("bad_language", f"code: unknown language {asked!r}; have {', '.join(LABELS)}")
    return language


def _of_gym(tests: Any, gym: bool) -> Calls | Streams:
    try:
        if "packed" in tests:
            # How NeMo Gym keeps the large ones.
            tests = {**tests, **json.loads(zlib.decompress(base64.b64decode(tests["packed"])))}
        inputs, outputs, function = tests["inputs"], tests["outputs"], tests.get("fn_name")
        if function is None:
            return _streams(inputs, outputs, prelude=True, gym=gym)
        arguments = [[json.loads(line) for line in text.split("\n")] for text in inputs]
        return _calls(function, arguments, [json.loads(text) for text in outputs], prelude=True)
    except (TypeError, KeyError, ValueError, AttributeError, zlib.error) as error:
        raise RowError("bad_tests", f"code: verifier_metadata.unit_tests cannot be read: {error!r}"[:300]) from None


def _streams(inputs: Any, outputs: Any, prelude: bool, gym: bool) -> Streams:
    _check_lengths(inputs, outputs)
    if not all(isinstance(text, str) for text in (*inputs, *outputs)):
        raise RowError("bad_tests", "code: inputs and outputs of a program must be texts")
    return Streams(inputs, outputs, prelude, gym)


def _calls(function: Any, arguments: Any, outputs: Any, prelude: bool) -> Calls:
    _check_lengths(arguments, outputs)
    if not isinstance(function, str) or not function.isidentifier():
        raise RowError("bad_tests", f"code: {function!r} is not the name of a function")
    if not all(isinstance(call, list) for call in arguments):
        raise RowError("bad_tests", "code: the input of a function's test must be the list of its arguments")
    return Calls(function, arguments, outputs, prelude)


def _check_lengths(inputs: Any, outputs: Any) -> None:
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or len(inputs) != len(outputs):
        raise RowError("bad_tests", "code: there must be as many outputs as inputs, and at least one")
