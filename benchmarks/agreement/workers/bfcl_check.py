"""The Berkeley Function Calling Leaderboard's checker of calls (`ast_checker`)."""

import sys
import types

from lines import answer


class _Plain:
    underscore_to_dot = False


# It looks one flag of a model up in a table that imports the clients of fifty providers.
table = types.ModuleType("bfcl_eval.constants.model_config")
table.MODEL_CONFIG_MAPPING = {"peer": _Plain}
sys.modules[table.__name__] = table

from bfcl_eval.constants.enums import Language  # noqa: E402
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # noqa: E402


def judge(functions, calls, possible, category):
    found = ast_checker(functions, calls, possible, Language.PYTHON, category, "peer")
    return found["valid"]


if __name__ == "__main__":
    answer(judge)
