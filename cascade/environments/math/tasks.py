"""Nano word problems: one to three operations, worked through as equations."""

from random import Random

from cascade.environments.synthetic import vocabulary as words
from cascade.environments.synthetic.arithmetic import steps
from cascade.environments.synthetic.rows import NanoTask

FRAMES = (
    "{story} {question} Put the answer in \\boxed{{}}.",
    "{story} {question} Write the number inside \\boxed{{}}.",
    "{story} {question} Answer in \\boxed{{}}.",
    "{story} {question}\nGive your result in \\boxed{{}}.",
    "{story} {question}\nThe final number goes into \\boxed{{}}.",
    "Solve and box the answer with \\boxed{{}}. {story} {question}",
    "A short problem. {story} {question} Use \\boxed{{}} for the answer.",
    "Read, think, and answer in \\boxed{{}}.\n{story} {question}",
)
OPENINGS = (
    "{name} has {n} {things}.",
    "{name} starts with {n} {things}.",
    "There are {n} {things} in the box of {name}.",
    "{name} owns {n} {things}.",
    "In the morning {name} has {n} {things}.",
    "{name} puts {n} {things} on the table.",
    "{name} counts {n} {things}.",
    "At first {name} holds {n} {things}.",
)
GAINS = (
    "{other} gives {name} {n} more.",
    "{name} buys {n} more.",
    "{name} finds {n} more.",
    "{name} gets {n} from {other}.",
    "Then {n} more arrive.",
    "{name} adds {n}.",
)
LOSSES = (
    "{name} gives {n} to {other}.",
    "{name} sells {n}.",
    "{name} loses {n}.",
    "{other} takes {n}.",
    "Then {n} break.",
    "{name} hands {n} to {other}.",
)
GROUPS = (
    "{name} has {k} boxes with {n} {things} each.",
    "{name} packs {k} bags with {n} {things} in each.",
    "There are {k} rows of {n} {things}, all for {name}.",
    "On each of {k} days {name} gets {n} {things}.",
    "{name} fills {k} baskets with {n} {things} each.",
    "{k} friends each bring {n} {things} to {name}.",
)
QUESTIONS = (
    "How many {things} does {name} have now?",
    "How many {things} are there in the end?",
    "How many {things} are left?",
    "What is the number of {things} now?",
    "Count the {things} of {name}.",
    "How many {things} remain with {name}?",
)

TOPS = {1: 10, 2: 50, 3: 100}
"""Largest number in the text, by level."""


def make_task(rng: Random, level: int) -> NanoTask:
    name, other = rng.sample(words.NAMES, 2)
    things = words.plural(rng.choice(words.FRUITS + words.TOOLS + words.CLOTHES + words.INSTRUMENTS))
    top = TOPS[level]
    lines: list[str] = []
    if level > 1 and rng.random() < 0.5:
        count, size = rng.randint(2, 9), rng.randint(2, 9 if level == 2 else 20)
        story = [rng.choice(GROUPS).format(name=name, k=count, n=size, things=things)]
        lines += steps(size, "*", count)
        total = count * size
    else:
        total = rng.randint(2, top)
        story = [rng.choice(OPENINGS).format(name=name, n=total, things=things)]
    for _ in range(rng.randint(1, level)):
        gain = total < 3 or rng.random() < 0.5
        change = rng.randint(1, top if gain else total)
        sign = "+" if gain else "-"
        story.append(rng.choice(GAINS if gain else LOSSES).format(name=name, other=other, n=change))
        lines += steps(total, sign, change)
        total += change if gain else -change
    close = rng.choice(("", f" So {total}.", f" {total} {things}.", f" The answer is {total}."))
    question = rng.choice(QUESTIONS).format(things=things, name=name)
    return NanoTask(
        prompt=rng.choice(FRAMES).format(story=" ".join(story), question=question),
        reasoning=", ".join(lines) + "." + close,
        content=rng.choice(("\\boxed{%d}", "\\boxed{%d}", "The answer is \\boxed{%d}.")) % total,
        fields={"question": f"{' '.join(story)} {question}", "expected_answer": str(total)},
    )
