"""Small Python functions drawn from the families, and arguments to call them with."""

from dataclasses import dataclass
from random import Random
from typing import Any

from cascade.environments.code.families import COMPOSED, SINGLE

KINDS: dict[str, tuple[str, ...]] = {
    "numbers": ("nums", "values", "items", "data"),
    "words": ("words", "names", "parts"),
    "word": ("text", "word", "s"),
    "number": ("n", "x", "number"),
    "small": ("n", "x", "count"),
    "letter": ("letter", "c", "char"),
}
"""Kinds of parameter and the names they go by."""

WORDS = (
    *("apple", "bread", "chair", "dog", "eagle", "forest", "garden", "house", "island", "lemon", "mouse", "night"),
    *("orange", "paper", "river", "summer", "table", "water", "yellow", "level", "noon", "letter", "book", "tree"),
)


@dataclass(frozen=True)
class Program:
    """A family with its holes filled."""

    name: str
    parameters: tuple[str, ...]
    kinds: tuple[str, ...]
    says: str
    plan: str
    expression: str
    loop: str
    constants: tuple[int, int]

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})"

    def source(self, loop: bool = False) -> str:
        """The function. `loop` asks for the long form where the family has one."""
        body = self.loop if self.loop and (loop or not self.expression) else f"return {self.expression}"
        lines = "".join(f"    {line}\n" for line in body.split("\n"))
        return f"def {self.signature}:\n{lines}"


def draw(rng: Random, level: int, keep_name: bool = False) -> Program:
    """A program of at most this level, half of them of exactly this level. `keep_name`: never a vague name."""
    wanted = level if rng.random() < 0.5 else rng.randint(1, level)
    # The composed families outnumber the others, and would crowd them out.
    pool = SINGLE if rng.random() < 0.6 else COMPOSED
    family = rng.choice([f for f in pool if f.level == wanted] or [f for f in SINGLE if f.level == wanted])
    used: list[str] = []
    for kind in family.kinds:
        used.append(rng.choice([name for name in KINDS[kind] + ("a", "b", "m")[: len(used) * 3] if name not in used]))
    k = rng.randint(2, 5 if family.kinds[0] in ("word", "words") else 9)
    j = rng.randint(1, 9)
    holes = {**dict(zip("abc", used, strict=False)), "k": k, "j": j}
    name = rng.choice(family.names)
    if not keep_name and rng.random() < 0.15:
        name = rng.choice(("solve", "compute", "answer"))
    return Program(
        name,
        tuple(used),
        family.kinds,
        rng.choice(family.says).format(**holes),
        family.plan.format(**holes),
        family.expression.format(**holes),
        family.loop.format(**holes),
        (k, j),
    )


def arguments(rng: Random, program: Program) -> list[Any]:
    """One call's arguments, often at the edge that the program's constants set."""
    drawn: list[Any] = []
    k = program.constants[0]
    for kind in program.kinds:
        if kind == "numbers":
            low = -6 if rng.random() < 0.4 else 0
            values = [rng.randint(low, 15) for _ in range(rng.randint(1, 6))]
            if rng.random() < 0.5:
                values[rng.randrange(len(values))] = k + rng.randint(-1, 1)
            drawn.append(values)
        elif kind == "words":
            drawn.append(rng.sample(WORDS, rng.randint(2, 4)))
        elif kind == "word":
            drawn.append(rng.choice(WORDS))
        elif kind == "letter":
            source = drawn[0] if isinstance(drawn[0], str) else rng.choice(drawn[0])
            drawn.append(rng.choice((rng.choice(source), source[0], source[-1], rng.choice("aeioutrs"))))
        elif kind == "small":
            drawn.append(rng.randint(1, 6))
        elif drawn and isinstance(drawn[0], list):
            drawn.append(rng.choice(drawn[0]) if rng.random() < 0.6 else rng.randint(0, 15))
        else:
            drawn.append(k + rng.randint(-1, 1) if rng.random() < 0.3 else rng.randint(0, 40))
    if program.kinds == ("number",) * 3 and drawn[1] > drawn[2]:
        drawn[1], drawn[2] = drawn[2], drawn[1]
    return drawn
