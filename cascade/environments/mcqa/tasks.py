"""Nano multiple-choice questions: small facts and comparisons, reasoned through option by option."""

import string
from random import Random

from cascade.environments.mcqa.families import FAMILIES
from cascade.environments.synthetic.rows import NanoTask

OPTIONS_BY_LEVEL = {1: 3, 2: 4, 3: 6, 4: 10}

BEFORE = (
    "",
    "Choose the right option. ",
    "Multiple choice question. ",
    "Read the question and pick one letter. ",
    "Only one option is correct. ",
    "Answer this question. ",
)
AFTER = (
    "Write the letter inside \\boxed{}.",
    "Put the letter of your answer in \\boxed{}.",
    "Give only the letter, inside \\boxed{}.",
    "Answer with one letter in \\boxed{}.",
    "Your final letter goes into \\boxed{}.",
    "Finish with \\boxed{} around the letter.",
    "State the correct letter in \\boxed{}.",
    "End with the letter in \\boxed{}.",
)
LABELS = ("{letter}: {text}", "{letter}) {text}", "({letter}) {text}", "{letter}. {text}")


def make_task(rng: Random, level: int) -> NanoTask:
    question = rng.choice(FAMILIES[level])(rng, OPTIONS_BY_LEVEL[level])
    letters = string.ascii_uppercase[: len(question.options)]
    answer = letters[question.correct]
    label = rng.choice(LABELS)
    lines = [label.format(letter=x, text=text) for x, text in zip(letters, question.options, strict=True)]
    instruction = rng.choice(AFTER)
    if rng.random() < 0.5:
        prompt = "\n".join([rng.choice(BEFORE) + question.text, *lines, instruction])
    else:
        prompt = "\n".join([f"{instruction} {question.text}", *lines])
    notes = ", ".join(f"{x} {note}" for x, note in zip(letters, question.notes, strict=True))
    close = rng.choice(("So {0}.", "The answer is {0}.", "So it is {0}.", "It is {0}.")).format(answer)
    reasoning = " ".join(filter(None, (question.opening, f"{notes}.", f"{question.key} {answer}.", close)))
    return NanoTask(
        prompt=prompt,
        reasoning=reasoning,
        content=rng.choice(("\\boxed{%s}", "The answer is \\boxed{%s}.", "\\boxed{%s}")) % answer,
        fields={
            "options": [{x: text} for x, text in zip(letters, question.options, strict=True)],
            "expected_answer": answer,
            "grading_mode": "strict_single_letter_boxed",
        },
    )
