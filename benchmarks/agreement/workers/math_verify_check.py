"""math-verify as its README uses it: `verify(parse(gold), parse(answer))`, all settings at their defaults."""

from lines import answer
from math_verify import parse, verify


def judge(expected, text):
    return verify(parse(f"\\boxed{{{expected}}}"), parse(text))


if __name__ == "__main__":
    answer(judge)
