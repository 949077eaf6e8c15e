"""The library's scorers, and which of them must not see just any text.

A few families evaluate the answer (or a field of the row) as Python, or let SymPy do so, which is the same.
Theirs must be plain data or plain formulas, and they run in a worker process under a time limit.
"""

import ast
from collections.abc import Callable
from functools import cache
from typing import Any

import reasoning_gym

from cascade.environments.reasoning_gym import repairs
from cascade.environments.shared import killable_worker

SECONDS = 10
"""For one answer of a family that evaluates it."""

EVALUATED = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
SYMBOLIC = frozenset(
    {"simple_integration", "intermediate_integration", "polynomial_multiplication", "puzzle24", "countdown"}
)
IN_WORKER = EVALUATED | SYMBOLIC
ROW_FORMULAS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "number_sorting": lambda entry: entry["answer"],
    "bitwise_arithmetic": lambda entry: entry["metadata"]["problem"],
    "simple_integration": lambda entry: entry["metadata"]["integrand"],
    "intermediate_integration": lambda entry: entry["metadata"]["integrand"],
    "polynomial_multiplication": lambda entry: entry["answer"],
}
"""What of a row the family's scorer evaluates."""

_FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "Abs"}
)
_NODES = (
    ast.Expression, ast.List, ast.Tuple, ast.Constant, ast.Name, ast.Load,
    ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator, ast.Call,
)  # fmt: skip


def score(family: str, answer: str | None, entry: dict[str, Any], *, gym: bool = False) -> float:
    """The family's score of an answer to {question, answer, metadata}, 0 for text that must not be evaluated.

    `gym`: by the library alone, as in NeMo Gym; else by `repairs` where it errs. Raises TimeoutError and WorkerDied
    from the families that evaluate; the others raise what they like.
    """
    if gym or answer is None:
        return _by_library(family, answer, entry)
    if family in repairs.SCORERS:
        found = repairs.SCORERS[family](answer, entry)
    else:
        found = _by_library(family, answer, repairs.as_tuples(entry) if family in repairs.BOARDS else entry)
    if found > 0 and not answer.isdecimal() and repairs.worthless(family, answer, str(entry["answer"])):
        return 0.0
    return found


def _by_library(family: str, answer: str | None, entry: dict[str, Any]) -> float:
    if family not in IN_WORKER:
        return float(_scorer(family)(answer=answer, entry=entry))
    if answer is not None and not is_plain(answer, symbolic=family in SYMBOLIC):
        return 0.0
    result = killable_worker.call(f"{__name__}:score_here", family, answer, entry, seconds=SECONDS)
    return float(result or 0.0)


def score_here(family: str, answer: str | None, entry: dict[str, Any]) -> float:
    """What runs in the worker."""
    return float(_scorer(family)(answer=answer, entry=entry))


def is_plain(text: str, *, symbolic: bool) -> bool:
    """Whether evaluating the text can do no more than compute.

    Lists, numbers, names and operators are plain; calls only of elementary functions. SymPy evaluates strings
    too, and accepts text that is not Python: for it both are refused. Python itself refuses the latter.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return not symbolic
    return all(isinstance(node, _NODES) and _harmless(node, symbolic) for node in ast.walk(tree))


def _harmless(node: ast.AST, symbolic: bool) -> bool:
    if isinstance(node, ast.Call):
        return symbolic and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or not symbolic
    return not (isinstance(node, ast.Name) and node.id.startswith("_"))


def has_family(name: Any) -> bool:
    try:
        _scorer(name)
    except Exception:
        # Unknown names raise ValueError; families that only combine others cannot be built on their own.
        return False
    return True


@cache
def _scorer(family: str) -> Callable[..., float]:
    return reasoning_gym.get_score_answer_fn(family)
