"""IFEval's checkers as lm-eval has them, strict: every instruction of the row holds, and the answer is not blank."""

import random

from lines import answer, without_init

without_init("lm_eval.tasks")

import langdetect  # noqa: E402
from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT  # noqa: E402

# As it stands, its language detector answers otherwise from one time to the next.
langdetect.DetectorFactory.seed = 0


def judge(names, kwargs, prompt, text):
    # It draws what it does not like in a row's arguments.
    random.seed(0)
    return all(_holds(name, given, prompt, text) for name, given in zip(names, kwargs, strict=True))


def _holds(name, given, prompt, text):
    instruction = INSTRUCTION_DICT[name](name)
    instruction.build_description(**{key: value for key, value in (given or {}).items() if value is not None})
    wanted = instruction.get_instruction_args()
    if wanted and "prompt" in wanted:
        instruction.build_description(prompt=prompt)
    return bool(text.strip()) and bool(instruction.check_following(text))


if __name__ == "__main__":
    answer(judge)
