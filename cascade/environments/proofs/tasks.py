"""Nano statements with proofs, proofs to be verified, and proofs to be improved."""

from itertools import accumulate, pairwise
from random import Random
from typing import Any

from cascade.environments.proofs.statements import (
    Fault,
    end_of,
    find_fault,
    in_words,
    signed,
    steps_of,
    written,
)
from cascade.environments.proofs.wording import critique, refine_prompt, verify_prompt
from cascade.environments.synthetic.rows import NanoTask

TASKS = ("write", "verify", "refine")
LEVELS = 8
"""Difficulties of each task: levels 1 to 8 are proofs to write, 11 to 18 to verify, 21 to 28 to refine. The first four
of each are sums, the others orders."""

_LETTERS = "abcdefghkmnpqrstuvwxyz"
_TERMS = {1: (3, 4), 2: (4, 6), 3: (4, 5), 4: (6, 7)}
"""Numbers that are added up: in levels 1 and 2 ones or tens, in 3 and 4 of two digits."""
_PATH = {5: (2, 3), 6: (3, 4), 7: (4, 5), 8: (5, 6)}
_BRANCHES = {5: 1, 6: 1, 7: 2, 8: 3}


def make_task(rng: Random, level: int) -> NanoTask:
    task, difficulty = TASKS[level // 10], level % 10
    statement, path = _sum(rng, difficulty) if difficulty in _TERMS else _order(rng, difficulty)
    fields: dict[str, Any] = {"task": task, "statement": statement}
    problem = in_words(statement)
    right = steps_of(statement, path)
    plan = "\n".join(_working(statement)) if path is None else f"Go from {path[0]} to {path[-1]}."
    if task == "write":
        return NanoTask(problem, plan, written(statement, right), fields)
    faulty = written(statement, _spoiled(rng, statement, right, path))
    if task == "refine":
        proof, fault = _fault(rng, statement, faulty, right, path)
        text = refine_prompt(problem, proof, [fault.words])
        plan = plan if path else "\n".join(_working_left(statement, proof, right))
        return NanoTask(text, f"{fault.words}\n{plan}".strip(), written(statement, right), fields)
    # Few of the sums are right: most steps of a wrong one are, and a small model that may take all for right does so.
    proof = written(statement, right) if rng.random() < (0.25 if path is None else 0.4) else faulty
    return NanoTask(verify_prompt(problem, proof), *_verification(statement, proof), {**fields, "proof": proof})


def _working(statement: dict[str, Any]) -> list[str]:
    """What the steps are found with: `77 - 8 = 69, 2. 69`."""
    totals = list(accumulate(statement["terms"]))
    return [
        f"{before}{signed(after - before)} = {after}, {number}. {after}"
        for number, (before, after) in enumerate(pairwise(totals), 1)
    ]


def _working_left(statement: dict[str, Any], proof: str, right: list[str]) -> list[str]:
    """From the first step on that is wrong or left out: those before are taken from the proof. A wrong step's total is
    taken from the critique: added as before, it would come out as before."""
    lines = proof.split("\n")
    done = next((done for done, step in enumerate(right) if step not in lines), len(right))
    working = _working(statement)[done:]
    if working and any(line.startswith(f"{done + 1}. ") for line in lines):
        return [right[done], *working[1:]]
    return working


def _fault(
    rng: Random, statement: dict[str, Any], proof: str, right: list[str], path: list[str] | None
) -> tuple[str, Fault]:
    """A faulty proof with its fault: `proof`, or another one where spoiling it left it right."""
    while (fault := find_fault(statement, proof)) is None:
        proof = written(statement, _spoiled(rng, statement, right, path))
    return proof, fault


def _verification(statement: dict[str, Any], proof: str) -> tuple[str, str]:
    """Reasoning and answer of the right verdict, which goes up to the first step that is wrong or left out."""
    fault = find_fault(statement, proof)
    lines = proof.split("\n")
    notes = _sum_notes(statement, lines) if statement["kind"] == "sum" else _order_notes(lines, fault)
    if fault is None:
        return "\n".join(notes), critique("Every step holds.", 1.0)
    return "\n".join(notes), critique(fault.words, fault.score)


def _sum_notes(statement: dict[str, Any], lines: list[str]) -> list[str]:
    """`2. 69: 77 - 10 = 67 - 8 = 59: 6 - 5 = 1`: the proof's step, the total, the differences of their digits; it ends
    where one is not 0, or where a step is left out.

    All of it is easy for a small model. The step stands first: read after the total, it would be taken for the total.
    Who writes adds a number of two digits at once, who verifies adds its tens and then its ones: longer, and without
    the writer's mistakes. A proof shows totals alone, so that there is no equation to copy from it: otherwise its
    result would be copied too, and every step be right. Differences of digits the base model knows; whether two numbers
    are the same, it would have to learn.
    """
    claims = dict(line.split(". ") for line in lines if ". " in line)
    total, *terms = statement["terms"]
    notes = list[str]()
    for number, term in enumerate(terms, 1):
        value = total + term
        claim = claims.get(str(number))
        computed = f"{number}. {claim or 'left out'}: {_in_parts(total, term)} = {value}"
        if claim is None:
            return [*notes, computed]
        notes.append(f"{computed}: {_compared(claim, str(value))}")
        if claim != str(value):
            return notes
        total = value
    if ". " in lines[-1]:
        return [*notes, f"left out: {end_of(statement, total)}"]
    return [*notes, f"{lines[-1]}: {total}: {_compared(lines[-1].split()[0], str(total))}"]


def _in_parts(total: int, term: int) -> str:
    """`77 - 18`: `77 - 10 = 67 - 8`."""
    ones = term % 10 if term > 0 else -(-term % 10)
    if ones in (0, term):
        return f"{total}{signed(term)}"
    return f"{total}{signed(term - ones)} = {total + term - ones}{signed(ones)}"


def _compared(claim: str, value: str) -> str:
    """`79` and `69`: `7 - 6 = 1`; `70` and `71`: `7 - 7 = 0, 0 - 1 = -1`."""
    width = max(len(claim), len(value))
    differences = list[str]()
    for digits in zip(map(int, claim.zfill(width)), map(int, value.zfill(width)), strict=True):
        differences.append(f"{digits[0]} - {digits[1]} = {digits[0] - digits[1]}")
        if digits[0] != digits[1]:
            break
    return ", ".join(differences)


def _order_notes(lines: list[str], fault: Fault | None) -> list[str]:
    at = fault.step if fault else len(lines) + 1
    notes = [f"{line}, right" for line in lines[: at - 1]]
    return notes + [f"{line}, {'wrong' if fault and fault.score == 0 else 'left out'}" for line in lines[at - 1 : at]]


def _sum(rng: Random, difficulty: int) -> tuple[dict[str, Any], None]:
    """A number, and others that are added or taken away. Totals stay between 1 and 99. No number comes twice, of those
    of two digits no last digit either, so that one who has just used a number finds the next one."""
    numbers, distinct = (_TWO_DIGITS, 10) if difficulty > 2 else (_ONES_AND_TENS, 100)
    terms = [rng.randint(20, 79)]
    for _ in range(rng.randint(*_TERMS[difficulty]) - 1):
        total, used = sum(terms), {abs(term) % distinct for term in terms}
        free = [sign * number for sign in (1, -1) for number in numbers if number % distinct not in used]
        terms.append(rng.choice([term for term in free if 1 <= total + term <= 99]))
    total = sum(terms)
    relation = rng.choice("<>")
    bound = total + rng.randint(1, 20) * (1 if relation == "<" else -1)
    return {"kind": "sum", "terms": terms, "relation": relation, "bound": bound}, None


_ONES_AND_TENS = [digit * place for digit in range(1, 10) for place in (1, 1, 10)]
_TWO_DIGITS = [number for number in range(11, 50) if number % 10]


def _order(rng: Random, difficulty: int) -> tuple[dict[str, Any], list[str]]:
    """One path leads to the goal, dead ends branch off it."""
    letters = rng.sample(_LETTERS, len(_LETTERS))
    path = [letters.pop() for _ in range(rng.randint(*_PATH[difficulty]) + 1)]
    given = [[low, high] for low, high in pairwise(path)]
    for _ in range(_BRANCHES[difficulty]):
        away, further = letters.pop(), letters.pop()
        given += [[rng.choice(path[:-1]), away], [away, further]]
    rng.shuffle(given)
    return {"kind": "order", "given": given, "goal": [path[0], path[-1]]}, path


def _spoiled(rng: Random, statement: dict[str, Any], right: list[str], path: list[str] | None) -> list[str]:
    """A proof such as a model gets wrong: without its end, or with a slip that it goes on with. Many of the sums have
    many slips, some as large as can be, and slips come early rather than late: where most totals are right, a small
    model that learns to verify finds it cheaper to copy them."""
    kind = rng.random()
    if kind < 0.1:  # without its end
        return right[: rng.randint(max(1, len(right) - 2), len(right) - 1)]
    if path is not None:
        return _strayed(rng, statement, path)
    number = rng.randrange(1, rng.randint(2, len(right)))
    if kind < 0.18 and number < len(right) - 1:  # steps left out
        return right[: number - 1] + right[rng.choice((number, number, rng.randrange(number, len(right)))) :]
    if kind < 0.22:  # another total in the end
        return [*right[:-1], end_of(statement, rng.choice([n for n in range(1, 100) if n != sum(statement["terms"])]))]
    often = kind > 0.6
    total, steps = statement["terms"][0], list[str]()
    for step, term in enumerate(statement["terms"][1:], 1):
        if step == number or (often and rng.random() < 0.5):
            total = _slip(rng, statement["terms"], total, step, often)
        else:
            total += term
        steps.append(f"{step}. {total}")
    return [*steps, end_of(statement, total)]


def _slip(rng: Random, terms: list[int], total: int, step: int, large: bool) -> int:
    """A wrong total from 1 to 99: miscounted, with the sign or the number misread, or without the number."""
    right = total + terms[step]
    near = [right + sign * by for sign in (1, -1) for by in (1, 1, 2, 10, 10, 10)]
    misread = [total - terms[step], total, *(total + term for term in terms[max(1, step - 1) : step + 2])]
    while True:
        wrong = rng.randint(1, 99) if large and rng.random() < 0.5 else rng.choice(rng.choice((near, misread)))
        if wrong != right and 1 <= wrong <= 99:
            return wrong


def _strayed(rng: Random, statement: dict[str, Any], path: list[str]) -> list[str]:
    """Into a dead end, over a fact that is not given, or with a step left out."""
    onward = {low: [high for one, high in statement["given"] if one == low] for low, _ in statement["given"]}
    kind = rng.random()
    if kind < 0.25 and len(path) > 3:
        gap = rng.randrange(1, len(path) - 2)
        steps = steps_of(statement, path)
        return steps[:gap] + steps[gap + 1 :]
    if kind < 0.5:
        at = rng.randrange(len(path) - 1)
        return steps_of(statement, [*path[: at + 1], *path[at + 2 :]] if at + 2 < len(path) else [*path[:at], path[-1]])
    branches = [i for i, name in enumerate(path[:-1]) if len(onward[name]) > 1]
    at = rng.choice(branches)
    walk = [*path[: at + 1], rng.choice([name for name in onward[path[at]] if name != path[at + 1]])]
    if rng.random() < 0.5 and walk[-1] in onward:
        walk.append(onward[walk[-1]][0])
    if rng.random() < 0.7:  # as if the goal could be reached from there
        walk.append(path[-1])
    return steps_of(statement, walk)
