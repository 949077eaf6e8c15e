"""EvalPlus's `untrusted_check`: a function's results on inputs, against expected ones."""

from lines import answer, without_init

without_init("evalplus")

from evalplus.eval import untrusted_check  # noqa: E402


def judge(code, function, inputs, outputs):
    status, _ = untrusted_check("peer", code, inputs, function, outputs, 0, [1.0] * len(inputs), fast_check=True)
    return status == "pass"


if __name__ == "__main__":
    answer(judge)
