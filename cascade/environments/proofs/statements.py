"""Statements whose proofs a rule can check step by step: sums in order, and chains of inequalities.

A statement is a row's `statement`, one of

    {"kind": "sum", "terms": [47, 38, -19], "relation": ">", "bound": 50}
    {"kind": "order", "given": [["a", "b"], ["b", "c"]], "goal": ["a", "c"]}      each pair: less than

A proof has a numbered step a line. Of a sum, each adds the next term to the total so far (`1. 47 + 38 = 85`), and the
last one compares (`3. 66 > 50`). Of an order, each goes on by a given fact (`2. b < c so a < c`).
"""

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from cascade.errors import RowError

GAP = 0.5
"""Score of a proof whose steps are right, but which leaves something out."""

MAX_STEPS = 200
MAX_DIGITS = 18

_STEP = re.compile(r"(?P<number>\d{1,4})\. (?P<text>.+)")
_NUMBER = rf"-?\d{{1,{MAX_DIGITS}}}"
_EQUATION = re.compile(rf"(?P<left>{_NUMBER})(?P<added>(?: [+-] \d{{1,{MAX_DIGITS}}})+) = (?P<value>{_NUMBER})")
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
        if statement["kind"] == "sum":
            known = statement["relation"] in ("<", ">") and len(statement["terms"]) > 1
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
    """The statement, to be put behind `Prove that`."""
    if statement["kind"] == "sum":
        return f"{expression(statement['terms'])} {statement['relation']} {statement['bound']}"
    given = ", ".join(f"{low} < {high}" for low, high in statement["given"])
    low, high = statement["goal"]
    return f"{low} < {high}, given {given}"


def expression(terms: list[int]) -> str:
    return str(terms[0]) + "".join(map(signed, terms[1:]))


def signed(term: int) -> str:
    return f" {'-' if term < 0 else '+'} {abs(term)}"


def steps_of(statement: dict[str, Any], path: list[str] | None = None) -> list[str]:
    """The steps of the right proof; of an order along `path`, from the goal's lower end to its upper one."""
    if statement["kind"] == "sum":
        terms = statement["terms"]
        totals = list(accumulate(terms))
        steps = [f"{total}{signed(term)} = {total + term}" for total, term in zip(totals, terms[1:], strict=False)]
        return [*steps, f"{totals[-1]} {statement['relation']} {statement['bound']}"]
    assert path is not None
    steps = [f"{path[0]} < {path[1]}"]
    return steps + [f"{a} < {b} so {path[0]} < {b}" for a, b in pairwise(path[1:])]


def numbered(steps: list[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def find_fault(statement: dict[str, Any], proof: str) -> Fault | None:
    """The first wrong step; where none is wrong, the first one that leaves something out; None for a right proof."""
    lines = [line.strip() for line in proof.strip().split("\n") if line.strip()]
    if len(lines) > MAX_STEPS:
        return Fault(MAX_STEPS + 1, 0.0, f"There are more than {MAX_STEPS} steps.")
    steps: list[str] = []
    for number, line in enumerate(lines, 1):
        match = _STEP.fullmatch(line)
        if match is None or int(match["number"]) != number:
            return Fault(number, 0.0, f"Step {number} cannot be read.")
        steps.append(match["text"].rstrip())
    faults = (_faults_of_sum if statement["kind"] == "sum" else _faults_of_order)(statement, steps)
    return min(faults, key=lambda fault: (fault.score, fault.step), default=None)


def _faults_of_sum(statement: dict[str, Any], steps: list[str]) -> list[Fault]:
    terms, total, done = statement["terms"], statement["terms"][0], 1
    faults: list[Fault] = []
    for number, step in enumerate(steps, 1):

        def wrong(words: str, number: int = number) -> list[Fault]:
            return [*faults, Fault(number, 0.0, f"Step {number} is wrong: {words}.")]

        if comparison := _COMPARISON.fullmatch(step):
            if int(comparison["left"]) != total:
                return wrong(f"the total is {total}")
            if done < len(terms):
                return wrong(f"the next term is{signed(terms[done])}")
            if (comparison["relation"], int(comparison["right"])) != (statement["relation"], statement["bound"]):
                return wrong(f"it must say {statement['relation']} {statement['bound']}")
            if not (total < statement["bound"] if statement["relation"] == "<" else total > statement["bound"]):
                return wrong("it is not true")
            return faults if number == len(steps) else [*faults, Fault(number + 1, 0.0, "It does not end there.")]
        equation = _EQUATION.fullmatch(step)
        if equation is None:
            return wrong("it cannot be read")
        if int(equation["left"]) != total:
            return wrong(f"the total is {total}")
        added = [int(f"{sign}{digits}") for sign, digits in _ADDED.findall(equation["added"])]
        if added != terms[done : done + len(added)]:
            return wrong(f"the next term is{signed(terms[done])}" if done < len(terms) else "all terms are added")
        value = total + sum(added)
        if int(equation["value"]) != value:
            return wrong(f"{total}{equation['added']} = {value}")
        if len(added) > 1:
            faults.append(Fault(number, GAP, f"Step {number} leaves out steps."))
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
