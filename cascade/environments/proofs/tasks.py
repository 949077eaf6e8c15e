"""Nano statements with proofs, proofs to be verified, and proofs to be improved."""

from itertools import pairwise
from random import Random
from typing import Any

from cascade.environments.proofs.statements import NAMES, Fault, find_fault, in_words, signed, steps_of, written
from cascade.environments.proofs.wording import critique, refine_prompt, verify_prompt
from cascade.environments.synthetic.rows import NanoTask

TASKS = ("write", "verify", "refine")
LEVELS = 8
"""Difficulties of each task: levels 1 to 8 are proofs to write, 11 to 18 to verify, 21 to 28 to refine. The first four
of each are chains, the others orders."""

_LETTERS = "abcdefghkmnpqrstuvwxyz"
_TERMS = {1: (3, 5), 2: (6, 8), 3: (9, 11), 4: (12, 15)}
_PATH = {5: (2, 3), 6: (3, 4), 7: (4, 5), 8: (5, 6)}
_BRANCHES = {5: 1, 6: 1, 7: 2, 8: 3}


def make_task(rng: Random, level: int) -> NanoTask:
    task, difficulty = TASKS[level // 10], level % 10
    statement, path = _chain(rng, difficulty) if difficulty in _TERMS else _order(rng, difficulty)
    fields: dict[str, Any] = {"task": task, "statement": statement}
    problem = in_words(statement)
    right = steps_of(statement, path)
    plan = "One value after the other." if path is None else f"Go from {path[0]} to {path[-1]}."
    if task == "write":
        return NanoTask(problem, plan, written(statement, right), fields)
    faulty = written(statement, _spoiled(rng, statement, right, path))
    if task == "refine":
        fault = _fault(rng, statement, faulty, right, path)
        text = refine_prompt(problem, fault[0], [fault[1].words])
        return NanoTask(text, f"{fault[1].words} {plan}", written(statement, right), fields)
    if path is None and rng.random() < 0.8:
        faulty = written(statement, _spoiled(rng, statement, right, path, often=True))
    proof = written(statement, right) if rng.random() < 0.4 else faulty
    return NanoTask(verify_prompt(problem, proof), *_verification(statement, proof), {**fields, "proof": proof})


def _fault(
    rng: Random, statement: dict[str, Any], proof: str, right: list[str], path: list[str] | None
) -> tuple[str, Fault]:
    """A faulty proof with its fault: `proof`, or another one where spoiling it left it right."""
    while (fault := find_fault(statement, proof)) is None:
        proof = written(statement, _spoiled(rng, statement, right, path))
    return proof, fault


def _verification(statement: dict[str, Any], proof: str) -> tuple[str, str]:
    """Reasoning and answer of the right verdict. The reasoning does each step itself, and only then says what the proof
    has there and whether that is so."""
    fault = find_fault(statement, proof)
    lines = proof.split("\n")
    notes = _chain_notes(statement, lines) if statement["kind"] == "chain" else _order_notes(lines, fault)
    if fault is None:
        return "\n".join(notes), critique("Every step holds.", 1.0)
    return "\n".join(notes), critique(fault.words, fault.score)


def _chain_notes(statement: dict[str, Any], lines: list[str]) -> list[str]:
    """`77 - 8 = 69, c = 70 69, wrong`: the value, what the proof says of it with the value beside it, the verdict. It
    goes on with what the proof says, so that every step is a comparison; a small model learns to compare two numbers
    where they stand side by side."""
    claims = {line[0]: line.rpartition(" = ")[2] for line in lines if " = " in line}
    terms, notes = statement["terms"], list[str]()
    total = terms[0]
    for name, term in zip(NAMES[1:], terms[1:], strict=False):
        computed = f"{total}{signed(term)} = {total + term}"
        if name not in claims:
            return [*notes, f"{computed}, {name} is left out"]
        verdict = "right" if f"{name} = {computed}" in lines else "wrong"
        notes.append(f"{computed}, {name} = {claims[name]} {total + term}, {verdict}")
        total = int(claims[name])
    end = f"{total} {statement['relation']} {statement['bound']}"
    holds = total < statement["bound"] if statement["relation"] == "<" else total > statement["bound"]
    return [*notes, f"{end}, {'left out' if ' = ' in lines[-1] else 'right' if holds and end in lines else 'wrong'}"]


def _order_notes(lines: list[str], fault: Fault | None) -> list[str]:
    at = fault.step if fault else len(lines) + 1
    notes = [f"{line}, right" for line in lines[: at - 1]]
    return notes + [f"{line}, {'wrong' if fault and fault.score == 0 else 'left out'}" for line in lines[at - 1 : at]]


def _chain(rng: Random, difficulty: int) -> tuple[dict[str, Any], None]:
    """A number, and ones or tens that are added or taken away: each is a step that needs no further ones. Totals stay
    between 1 and 99."""
    terms = [rng.randint(20, 79)]
    for _ in range(rng.randint(*_TERMS[difficulty]) - 1):
        term, total = rng.randint(1, 9) * rng.choice((1, 1, 10)), sum(terms)
        signs = [sign for sign in (1, -1) if 1 <= total + sign * term <= 99]
        terms.append(rng.choice(signs or [0]) * term or (-1 if total > 50 else 1))
    total = sum(terms)
    relation = rng.choice("<>")
    bound = total + rng.randint(1, 20) * (1 if relation == "<" else -1)
    return {"kind": "chain", "terms": terms, "relation": relation, "bound": bound}, None


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


def _spoiled(
    rng: Random, statement: dict[str, Any], right: list[str], path: list[str] | None, often: bool = False
) -> list[str]:
    """A proof such as a model gets wrong: most often one slip, with which it goes on; `often`: further ones after it,
    so that who learns to verify sees more of them."""
    if rng.random() < 0.15:  # without its end
        return right[: rng.randint(max(1, len(right) - 2), len(right) - 1)]
    if path is not None:
        return _strayed(rng, statement, path)
    terms, relation, bound = list(statement["terms"]), statement["relation"], statement["bound"]
    slip, kind = rng.randrange(1, len(terms)), rng.random()
    total, steps, number = terms[0], list[str](), 1
    while number < len(terms):
        term = terms[number]
        if number == slip and kind < 0.1 and number + 1 < len(terms):  # two steps in one
            both = signed(term) + signed(terms[number + 1])
            steps.append(f"{NAMES[number + 1]} = {total}{both} = {total + term + terms[number + 1]}")
            total, number = total + term + terms[number + 1], number + 2
            continue
        if number == slip and kind < 0.2:  # a term left out
            number += 1
            continue
        if number == slip and kind < 0.3:  # a term misread
            term = rng.choice(
                (-term, term + rng.choice((-1, 1)) * (10 if abs(term) > 9 else 1) * (1 if term > 0 else -1))
            )
        value = total + term
        if (number == slip and kind >= 0.3) or (often and number > slip and rng.random() < 0.5):
            value += rng.choice((-1, 1)) * rng.choice((1, 1, 2, 10, 10, 20))
        steps.append(f"{NAMES[number]} = {total}{signed(term)} = {value}")
        total, number = value, number + 1
    return [*steps, f"{total} {relation} {bound}"]


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
