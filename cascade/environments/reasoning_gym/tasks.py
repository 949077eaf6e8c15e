"""Nano maths from reasoning-gym: the library's questions, short framings, and traces written out here."""

import re
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import reasoning_gym
from reasoning_gym.arithmetic.leg_counting import ANIMALS
from reasoning_gym.dataset import ProceduralDataset

from cascade.environments.synthetic.arithmetic import expression_steps, steps, sum_steps
from cascade.environments.synthetic.rows import NanoTask

Config = dict[str, Any]
Metadata = dict[str, Any]

LIBRARY_SIZE = 2**31
"""Questions of a family are drawn from this many of the library's, by index."""

_PLUS_MINUS = {"operators": ("+", "-"), "operators_weights": [0.5, 0.5]}

CONFIGS: dict[int, dict[str, Config]] = {
    1: {
        "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        "basic_arithmetic": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        "leg_counting": {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 4},
        "simple_equations": {"min_terms": 2, "max_terms": 2, "max_value": 9, **_PLUS_MINUS},
    },
    2: {
        "chain_sum": {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2},
        "basic_arithmetic": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        "products": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        "leg_counting": {"min_animals": 2, "max_animals": 3, "min_instances": 1, "max_instances": 5},
        "simple_equations": {"min_terms": 2, "max_terms": 3, "max_value": 20, **_PLUS_MINUS},
        "lcm": {"max_value": 9},
        "count_primes": {"max_n": 20},
    },
    3: {
        "chain_sum": {"min_terms": 3, "max_terms": 5, "min_digits": 2, "max_digits": 2},
        "basic_arithmetic": {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1},
        "products": {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        "leg_counting": {"min_animals": 3, "max_animals": 4, "min_instances": 1, "max_instances": 9},
        "simple_equations": {"min_terms": 2, "max_terms": 2, "max_value": 9},
        "lcm": {"max_value": 12},
        "count_primes": {"max_n": 40},
    },
    4: {
        "chain_sum": {"min_terms": 4, "max_terms": 6, "min_digits": 2, "max_digits": 3},
        "basic_arithmetic": {"min_terms": 4, "max_terms": 5, "min_digits": 1, "max_digits": 1},
        "products": {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1},
        "leg_counting": {"min_animals": 4, "max_animals": 5, "min_instances": 1, "max_instances": 12},
        "simple_equations": {"min_terms": 2, "max_terms": 3, "max_value": 12},
        "lcm": {"max_value": 15},
        "count_primes": {"max_n": 60},
    },
}
_ALWAYS: dict[str, Config] = {
    "basic_arithmetic": {"operators": ("+", "-", "*"), "format_style": "natural"},
    "simple_equations": {"min_value": 1},
    "lcm": {"min_value": 2},
}

FRAMES = (
    "{question}\nPut the final answer in \\boxed{{}}.",
    "{question}\nWrite the result inside \\boxed{{}}.",
    "{question}\nGive the number in \\boxed{{}}.",
    "{question}\nYour answer goes into \\boxed{{}}.",
    "{question}\nThink first, then answer in \\boxed{{}}.",
    "{question}\nWork step by step and box the answer: \\boxed{{}}.",
    "Answer with one number in \\boxed{{}}.\n{question}",
    "Solve this and put the number in \\boxed{{}}.\n{question}",
    "Here is a small problem. Write its answer in \\boxed{{}}.\n{question}",
    "Use \\boxed{{}} for the final answer.\n{question}",
)


def make_task(rng: Random, level: int) -> NanoTask:
    family = rng.choice(list(CONFIGS[level]))
    entry = _library(family, level)[rng.randrange(LIBRARY_SIZE)]
    answer = entry["answer"]
    trace = TRACES[family](entry["metadata"], answer)
    close = rng.choice(("", f" So {answer}.", f" The answer is {answer}.", f" That makes {answer}."))
    return NanoTask(
        prompt=rng.choice(FRAMES).format(question=entry["question"].strip()),
        reasoning=trace + close,
        content=rng.choice(("\\boxed{%s}", "\\boxed{%s}", "The answer is \\boxed{%s}.")) % answer,
        fields={"question": entry["question"], "answer": answer, "metadata": entry["metadata"]},
    )


@cache
def _library(family: str, level: int) -> ProceduralDataset:
    config = {**_ALWAYS.get(family, {}), **CONFIGS[level][family]}
    return reasoning_gym.create_dataset(family, size=LIBRARY_SIZE, seed=0, **config)


def _expression(metadata: Metadata, answer: str) -> str:
    return ", ".join(expression_steps(metadata["expression"]) or [answer]) + "."


def _legs(metadata: Metadata, answer: str) -> str:
    counts = [(animal, count, ANIMALS[animal]) for animal, count in metadata["animals"].items()]
    each = ", ".join(f"{animal} {count} * {legs} = {count * legs}" for animal, count, legs in counts)
    total = sum_steps([count * legs for _, count, legs in counts])
    return ". ".join(filter(None, (each, ", ".join(total)))) + "."


_TERM = re.compile(r"([+-]?)(\d*)\*?([a-z]?)")


def _equation(metadata: Metadata, answer: str) -> str:
    """a*x + b = c: subtract b, divide by a."""
    left, right = metadata["equation"].split(" = ")
    variable, result = metadata["variable"], int(right)
    factor, constant = 0, 0
    for sign, digits, letter in _TERM.findall(left.replace(" ", "")):
        if not digits and not letter:
            continue
        value = int(f"{sign}{digits or 1}")
        factor, constant = (factor + value, constant) if letter else (factor, constant + value)
    lines = []
    if constant:
        lines = steps(result, "-" if constant > 0 else "+", abs(constant))
    rest = result - constant
    shown = {1: variable, -1: f"-{variable}"}.get(factor, f"{factor}*{variable}")
    lines.append(f"{shown} = {rest}")
    if factor != 1:
        lines += [f"{rest} / {factor} = {answer}", f"{variable} = {answer}"]
    return ", ".join(lines) + "."


def _multiples(metadata: Metadata, answer: str) -> str:
    small, big = sorted(metadata["numbers"])
    tried = range(big, int(answer) + 1, big)
    return f"Multiples of {big} by {small}: " + ", ".join(f"{n} {'no' if n % small else 'yes'}" for n in tried) + "."


def _primes(metadata: Metadata, answer: str) -> str:
    if not metadata["primes"]:
        return "There are none."
    return "Primes: " + ", ".join(f"{prime} is {i}" for i, prime in enumerate(metadata["primes"], 1)) + "."


TRACES: dict[str, Callable[[Metadata, str], str]] = {
    "chain_sum": _expression,
    "basic_arithmetic": _expression,
    "products": _expression,
    "leg_counting": _legs,
    "simple_equations": _equation,
    "lcm": _multiples,
    "count_primes": _primes,
}
