"""SWE-bench's report: from what each test came to, whether the instance is resolved."""

from lines import answer
from swebench.harness.constants import ResolvedStatus
from swebench.harness.grading import get_eval_tests_report, get_resolution_status


def judge(statuses, fail_to_pass, pass_to_pass):
    report = get_eval_tests_report(statuses, {"FAIL_TO_PASS": fail_to_pass, "PASS_TO_PASS": pass_to_pass})
    return get_resolution_status(report) == ResolvedStatus.FULL.value


if __name__ == "__main__":
    answer(judge)
