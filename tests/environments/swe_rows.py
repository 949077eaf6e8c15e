"""Rows of the SWE environments written by hand: each has one bug, in `double`."""

import json

from cascade.environments.swe_agentless.tasks import render_block

SOURCE = "def double(x):\n    return x * 3\n\n\ndef even(x):\n    return x % 2 == 0\n"
GOOD = render_block("shop.py", "    return x * 3", "    return x * 2")


def row(**changes):
    """A row written by hand: one test that fails, two that pass."""
    return {
        "environment": "swe_agentless",
        "problem_statement": "`double` is wrong.",
        "patch": "",
        "files": {"shop.py": SOURCE},
        "tests": {
            "test_shop.py": "import shop\nfrom shop import double\n\n\n"
            "def test_double():\n    assert double(20) == 40\n"
            "\n\ndef test_even():\n    x = 4\n    assert [shop.even(x), shop.even(x + 1)] == [True, False]\n"
            "\n\ndef test_zero():\n    assert {double(0): (1.5, None)} == {0: (1.5, None)}\n"
        },
        "FAIL_TO_PASS": ["test_shop.py::test_double"],
        "PASS_TO_PASS": ["test_shop.py::test_even", "test_shop.py::test_zero"],
        **changes,
    }


def swe_bench_row(**changes):
    return {
        "instance_id": "shop__shop-1",
        "repo": "shop/shop",
        "base_commit": "0" * 40,
        "problem_statement": "`double` is wrong.",
        "patch": "diff --git a/src/shop.py b/src/shop.py\n",
        "test_patch": "--- a/checks/shop.txt\n+++ b/checks/shop.txt\n@@ -1 +1 @@\n-1\n+2\n",
        "FAIL_TO_PASS": '["src/shop_checks.py::Double::test_it[a::b]"]',
        "PASS_TO_PASS": "[]",
        **changes,
    }


def gym_row(mode="eval", **changes):
    return {
        "agent_ref": {"type": "responses_api_agents", "name": "swerl_gen_simple_agent"},
        "instance": swe_bench_row(),
        "metadata": {
            "relevant_file_contents": json.dumps({"shop/src/shop.py": SOURCE, "shop/src/shop_checks.py": "x\n"}),
            "image": "shop.sif",
            "remove_repo_name": True,
        },
        "mode": mode,
        **changes,
    }


IN_GYM = f"<solution>\n{GOOD.replace('### shop.py', '### shop/src/shop.py')}\n</solution>"
