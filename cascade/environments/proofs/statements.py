"""Statements whose proofs a rule can check step by step: sums with a bound, and chains of inequalities.

A statement is a row's `statement`, one of

    {"kind": "sum", "terms": [47, 30, -8], "relation": ">", "bound": 50}
    {"kind": "order", "given": [["a", "b"], ["b", "c"]], "goal": ["a", "c"]}      each pair: less than

The first says: 47 + 30 - 8 > 50. A proof has a numbered step a line. Of a sum, step k is the total after k additions
(`1. 77`), and a last line without a number compares (`69 > 50`). Of an order, each step goes on by a given fact
(`2. b < c so a < c`).
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

_STEP = re.compile(r"(?P<number>\d{1,4})\. (?P<text>.+)", re.ASCII)
_NUMBER = rf"-?\d{{1,{MAX_DIGITS}}}"
_TOTAL = re.compile(rf"(?P<number>\d{{1,4}})\. (?P<total>{_NUMBER})", re.ASCII)
_COMPARISON = re.compile(rf"(?P<left>{_NUMBER}) (?P<relation>[<>]) (?P<right>{_NUMBER})", re.ASCII)
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
            known = statement["relation"] in ("<", ">") and 1 < len(statement["terms"]) <= MAX_STEPS
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
    if statement["kind"] == "sum":
        first, *others = statement["terms"]
        return f"Prove that {first}{''.join(map(signed, others))} {statement['relation']} {statement['bound']}."
    given = ", ".join(f"{low} < {high}" for low, high in statement["given"])
    low, high = statement["goal"]
    return f"Given {given}. Prove that {low} < {high}."


def signed(term: int) -> str:
    return f" {'-' if term < 0 else '+'} {abs(term)}"


def steps_of(statement: dict[str, Any], path: list[str] | None = None) -> list[str]:
    """The steps of the right proof; of an order along `path`, from the goal's lower end to its upper one."""
    if statement["kind"] == "sum":
        _, *totals = accumulate(statement["terms"])
        return [*(f"{number}. {total}" for number, total in enumerate(totals, 1)), end_of(statement, totals[-1])]
    assert path is not None
    steps = [f"{path[0]} < {path[1]}"]
    return steps + [f"{a} < {b} so {path[0]} < {b}" for a, b in pairwise(path[1:])]


def end_of(statement: dict[str, Any], total: int) -> str:
    """The last line of a sum's proof."""
    return f"{total} {statement['relation']} {statement['bound']}"


def written(statement: dict[str, Any], steps: list[str]) -> str:
    """A proof of these steps, a line each; those of an order are numbered here."""
    if statement["kind"] == "sum":
        return "\n".join(steps)
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def find_fault(statement: dict[str, Any], proof: str) -> Fault | None:
    """The first wrong step; where none is wrong, the first one that leaves something out; None for a right proof."""
    steps = [line.strip() for line in proof.strip().split("\n") if line.strip()]
    if len(steps) > MAX_STEPS:
        return Fault(MAX_STEPS + 1, 0.0, f"There are more than {MAX_STEPS} steps.")
    if statement["kind"] == "sum":
        faults = _faults_of_sum(statement, steps)
    else:
        for number, line in enumerate(steps, 1):
            match = _STEP.fullmatch(line)
            if match is None or int(match["number"]) != number:
                return Fault(number, 0.0, f"Step {number} cannot be read.")
            steps[number - 1] = match["text"].rstrip()
        faults = _faults_of_order(statement, steps)
    return min(faults, key=lambda fault: (fault.score, fault.step), default=None)


def _faults_of_sum(statement: dict[str, Any], steps: list[str]) -> list[Fault]:
    terms, totals = statement["terms"], list(accumulate(statement["terms"]))
    last, done = len(terms) - 1, 0
    faults: list[Fault] = []
    for line, step in enumerate(steps, 1):

        def wrong(words: str, line: int = line) -> list[Fault]:
            return [*faults, Fault(line, 0.0, words)]

        if comparison := _COMPARISON.fullmatch(step):
            if done < last:
                return wrong(f"The end is wrong: step {done + 1} is left out.")
            left, right = int(comparison["left"]), int(comparison["right"])
            if left != totals[last]:
                return wrong(f"The end is wrong: the total is {totals[last]}.")
            if (comparison["relation"], right) != (statement["relation"], statement["bound"]):
                return wrong(f"The end is wrong: it must say {statement['relation']} {statement['bound']}.")
            if not (left < right if comparison["relation"] == "<" else left > right):
                return wrong("The end is wrong: it is not true.")
            return faults if line == len(steps) else [*faults, Fault(line + 1, 0.0, "It does not end there.")]
        match = _TOTAL.fullmatch(step)
        if match is None:
            return wrong(f"Step {done + 1} is wrong: it cannot be read.")
        number = int(match["number"])
        if not done < number <= last:
            return wrong(f"Step {number} is wrong: it is not next.")
        if int(match["total"]) != totals[number]:
            return wrong(f"Step {number} is wrong: it must say {totals[number]}.")
        if number > done + 1:
            faults.append(Fault(line, GAP, f"Step {done + 1} is left out."))
        done = number
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
