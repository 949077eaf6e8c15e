"""Statements whose proofs a rule can check step by step: chains of definitions, and chains of inequalities.

A statement is a row's `statement`, one of

    {"kind": "chain", "terms": [47, 30, -8], "relation": ">", "bound": 50}
    {"kind": "order", "given": [["a", "b"], ["b", "c"]], "goal": ["a", "c"]}      each pair: less than

The first says: given a = 47, b = a + 30, c = b - 8, it is c > 50. A proof has a step a line. Of a chain, each has the
next value (`b = 47 + 30 = 77`), and the last one compares (`69 > 50`). Of an order, each is numbered and goes on by a
given fact (`2. b < c so a < c`).
"""

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from cascade.errors import RowError

GAP = 0.5
"""Score of a proof whose steps are right, but which leaves something out."""

NAMES = "abcdefghijklmnopqrstuvwxyz"
"""Of the values of a chain."""

MAX_STEPS = 200
MAX_DIGITS = 18

_STEP = re.compile(r"(?P<number>\d{1,4})\. (?P<text>.+)")
_NUMBER = rf"-?\d{{1,{MAX_DIGITS}}}"
_EQUATION = re.compile(
    rf"(?P<name>[a-z]) = (?P<left>{_NUMBER})(?P<added>(?: [+-] \d{{1,{MAX_DIGITS}}})+) = (?P<value>{_NUMBER})"
)
_COMPARISON = re.compile(rf"(?P<left>{_NUMBER}) (?P<relation>[<>]) (?P<right>{_NUMBER})")
_ADDED = re.compile(rf" ([+-]) (\d{{1,{MAX_DIGITS}}})")
_FIRST = re.compile(r"(?P<low>\w+) < (?P<high>\w+)")
_NEXT = re.compile(r"(?P<low>\w+) < (?P<high>\w+) so (?P<start>\w+) < (?P<end>\w+)")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a proof first: at `step`, from 1, or behind the last one where the end is missing."""

    step: int
    score: float
    words: str


def check_statement(statement: Any) -> None:
    """Raises RowError (`bad_statement`)."""
    try:
        if statement["kind"] == "chain":
            known = statement["relation"] in ("<", ">") and 1 < len(statement["terms"]) <= len(NAMES)
            known = known and all(type(number) is int for number in (*statement["terms"], statement["bound"]))
        else:
            pairs = [*statement["given"], statement["goal"]]
            known = statement["kind"] == "order" and all(
                len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs
            )
    except (TypeError, KeyError):
        known = False
    if not known:
        raise RowError("bad_statement", f"proofs: `statement` is none that can be checked: {statement!r:.120}")


def in_words(statement: dict[str, Any]) -> str:
    """What is given, and what is to be proved."""
    if statement["kind"] == "chain":
        terms = statement["terms"]
        later = [
            f"{name} = {before}{signed(term)}" for (before, name), term in zip(pairwise(NAMES), terms[1:], strict=False)
        ]
        goal = f"{NAMES[len(terms) - 1]} {statement['relation']} {statement['bound']}"
        return f"Given {', '.join([f'{NAMES[0]} = {terms[0]}', *later])}. Prove that {goal}."
    given = ", ".join(f"{low} < {high}" for low, high in statement["given"])
    low, high = statement["goal"]
    return f"Given {given}. Prove that {low} < {high}."


def signed(term: int) -> str:
    return f" {'-' if term < 0 else '+'} {abs(term)}"


def steps_of(statement: dict[str, Any], path: list[str] | None = None) -> list[str]:
    """The steps of the right proof; of an order along `path`, from the goal's lower end to its upper one."""
    if statement["kind"] == "chain":
        terms = statement["terms"]
        totals = list(accumulate(terms))
        steps = [
            f"{name} = {total}{signed(term)} = {total + term}"
            for name, total, term in zip(NAMES[1:], totals, terms[1:], strict=False)
        ]
        return [*steps, f"{totals[-1]} {statement['relation']} {statement['bound']}"]
    assert path is not None
    steps = [f"{path[0]} < {path[1]}"]
    return steps + [f"{a} < {b} so {path[0]} < {b}" for a, b in pairwise(path[1:])]


def written(statement: dict[str, Any], steps: list[str]) -> str:
    """A proof of these steps, a line each; those of an order are numbered."""
    if statement["kind"] == "chain":
        return "\n".join(steps)
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def find_fault(statement: dict[str, Any], proof: str) -> Fault | None:
    """The first wrong step; where none is wrong, the first one that leaves something out; None for a right proof."""
    steps = [line.strip() for line in proof.strip().split("\n") if line.strip()]
    if len(steps) > MAX_STEPS:
        return Fault(MAX_STEPS + 1, 0.0, f"There are more than {MAX_STEPS} steps.")
    if statement["kind"] == "chain":
        faults = _faults_of_chain(statement, steps)
    else:
        for number, line in enumerate(steps, 1):
            match = _STEP.fullmatch(line)
            if match is None or int(match["number"]) != number:
                return Fault(number, 0.0, f"Step {number} cannot be read.")
            steps[number - 1] = match["text"].rstrip()
        faults = _faults_of_order(statement, steps)
    return min(faults, key=lambda fault: (fault.score, fault.step), default=None)


def _faults_of_chain(statement: dict[str, Any], steps: list[str]) -> list[Fault]:
    terms, total, done = statement["terms"], statement["terms"][0], 1
    faults: list[Fault] = []
    for number, step in enumerate(steps, 1):
        label = NAMES[done] if done < len(terms) else "The end"

        def wrong(words: str, number: int = number, label: str = label) -> list[Fault]:
            return [*faults, Fault(number, 0.0, f"{label} is wrong: {words}.")]

        if comparison := _COMPARISON.fullmatch(step):
            if done < len(terms):
                return wrong("it is left out")
            if int(comparison["left"]) != total:
                return wrong(f"{NAMES[done - 1]} is {total}")
            if (comparison["relation"], int(comparison["right"])) != (statement["relation"], statement["bound"]):
                return wrong(f"it must say {statement['relation']} {statement['bound']}")
            if not (total < statement["bound"] if statement["relation"] == "<" else total > statement["bound"]):
                return wrong("it is not true")
            return faults if number == len(steps) else [*faults, Fault(number + 1, 0.0, "It does not end there.")]
        equation = _EQUATION.fullmatch(step)
        if equation is None:
            return wrong("it cannot be read")
        added = [int(f"{sign}{digits}") for sign, digits in _ADDED.findall(equation["added"])]
        if done == len(terms) or equation["name"] not in NAMES[done : len(terms)]:
            return wrong(f"{equation['name']} is not next")
        if int(equation["left"]) != total:
            return wrong(f"{NAMES[done - 1]} is {total}")
        if added != terms[done : done + len(added)] or equation["name"] != NAMES[done + len(added) - 1]:
            return wrong(f"{NAMES[done]} = {NAMES[done - 1]}{signed(terms[done])}")
        value = total + sum(added)
        if int(equation["value"]) != value:
            return wrong(f"{total}{equation['added']} = {value}")
        if len(added) > 1:
            faults.append(Fault(number, GAP, f"{label} is left out."))
        total, done = value, done + len(added)
    return [*faults, Fault(len(steps) + 1, GAP, "The end is missing.")]


def _faults_of_order(statement: dict[str, Any], steps: list[str]) -> list[Fault]:
    given = {(low, high) for low, high in statement["given"]}
    start, goal = statement["goal"]
    at = start
    faults: list[Fault] = []
    for number, step in enumerate(steps, 1):
        match = (_FIRST if number == 1 else _NEXT).fullmatch(step)
        words = None
        if match is None:
            words = "it cannot be read"
        elif (match["low"], match["high"]) not in given:
            words = f"{match['low']} < {match['high']} is not given"
        elif number > 1 and (match["start"], match["end"]) != (start, match["high"]):
            words = f"it follows that {start} < {match['high']}"
        elif match["low"] != at:
            if match["low"] not in _above(given, at):
                words = f"it must begin with {at}"
            else:
                faults.append(Fault(number, GAP, f"Step {number} leaves out steps."))
        if words is not None:
            return [*faults, Fault(number, 0.0, f"Step {number} is wrong: {words}.")]
        assert match is not None
        at = match["high"]
    return faults if at == goal and steps else [*faults, Fault(len(steps) + 1, GAP, "The end is missing.")]


def _above(given: set[tuple[str, str]], low: str) -> set[str]:
    """Whatever is greater than `low` by the given facts."""
    found, new = set[str](), {low}
    while new:
        new = {high for one, high in given if one in new} - found
        found |= new
    return found
