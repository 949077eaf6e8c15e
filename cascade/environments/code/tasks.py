"""Small Python tasks with hidden tests: a function, or a program that reads stdin and writes stdout."""

from random import Random
from typing import Any

from cascade.environments.code import programs
from cascade.environments.code.programs import Program
from cascade.environments.synthetic.rows import NanoTask

TESTS = 6

FUNCTION_ASKS = (
    "Write a function `{signature}` that returns {says}.",
    "Write a Python function {signature} which returns {says}.",
    "Please define `{signature}`. It should return {says}.",
    "I need a function `{signature}` that gives back {says}.",
    "Implement `{signature}` so that it returns {says}.",
    "Can you write `{signature}` in Python? It must return {says}.",
    "Define {signature}, returning {says}.",
)
PROGRAM_ASKS = (
    "Write a program that reads {inputs} and prints {says}.",
    "Write Python code. It reads {inputs} from the input and prints {says}.",
    "The input is {inputs}. Print {says}.",
    "Please write a program: read {inputs}, then print {says}.",
)
READS = {
    "numbers": ("a line of numbers {}", "{} = list(map(int, input().split()))"),
    "words": ("a line of words {}", "{} = input().split()"),
    "word": ("a word {}", "{} = input()"),
    "letter": ("a letter {}", "{} = input()"),
    "number": ("a number {}", "{} = int(input())"),
    "small": ("a number {}", "{} = int(input())"),
}


def fenced(source: str) -> str:
    return f"```python\n{source.rstrip()}\n```"


def outputs(program: Program, calls: list[list[Any]]) -> list[Any]:
    namespace: dict[str, Any] = {}
    exec(compile(program.source(), program.name, "exec"), namespace)
    return [namespace[program.name](*call) for call in calls]


def make_task(rng: Random, level: int) -> NanoTask:
    """`tests` holds `input` and `output` of hidden calls of `function`, or of stdin and stdout where that is None."""
    while True:
        program = programs.draw(rng, level)
        cases = _cases(rng, program)
        # A constant must not pass.
        if any(output != cases[0][1] for _, output in cases[:TESTS]):
            break
    shown, hidden = cases[TESTS], cases[:TESTS]
    if program.expression and rng.random() < 0.3:
        return _program_task(rng, program, shown, hidden)
    text = rng.choice(FUNCTION_ASKS).format(signature=program.signature, says=program.says)
    if rng.random() < 0.5:
        call = f"{program.name}({', '.join(map(repr, shown[0]))})"
        text += rng.choice((" For example, `{}` returns {!r}.", " Example: {} == {!r}", "\n>>> {}\n{!r}")).format(
            call, shown[1]
        )
    tests = [{"input": call, "output": output} for call, output in hidden]
    return NanoTask(text, program.plan, fenced(program.source()), {"function": program.name, "tests": tests})


def _cases(rng: Random, program: Program) -> list[tuple[list[Any], Any]]:
    """Calls and their outputs, those with an output not seen before first."""
    calls = [programs.arguments(rng, program) for _ in range(3 * TESTS)]
    seen: list[Any] = []
    ranked: list[tuple[int, list[Any], Any]] = []
    for call, output in zip(calls, outputs(program, calls), strict=True):
        ranked.append((seen.count(output), call, output))
        seen.append(output)
    return [(call, output) for _, call, output in sorted(ranked, key=lambda case: case[0])]


def _program_task(
    rng: Random, program: Program, shown: tuple[list[Any], Any], hidden: list[tuple[list[Any], Any]]
) -> NanoTask:
    inputs = [READS[kind][0].format(name) for kind, name in zip(program.kinds, program.parameters, strict=True)]
    reads = [READS[kind][1].format(name) for kind, name in zip(program.kinds, program.parameters, strict=True)]
    is_list = isinstance(shown[1], list)
    value = f"*{program.expression}" if is_list else program.expression
    text = rng.choice(PROGRAM_ASKS).format(inputs=", then ".join(inputs), says=program.says)
    tests = [{"input": _stdin(call), "output": _stdout(output)} for call, output in (*hidden, shown)]
    example = tests.pop()
    if rng.random() < 0.5:
        text += f"\nInput:\n{example['input']}Output:\n{example['output'].rstrip()}"
    source = "\n".join([*reads, f"print({value})"])
    plan = f"Read {'the lines' if len(reads) > 1 else 'the line'}. {program.plan} Print it."
    return NanoTask(text, plan, fenced(source), {"function": None, "tests": tests})


def _stdin(call: list[Any]) -> str:
    return "".join(f"{' '.join(map(str, value)) if isinstance(value, list) else value}\n" for value in call)


def _stdout(value: Any) -> str:
    return f"{' '.join(map(str, value)) if isinstance(value, list) else value}\n"
