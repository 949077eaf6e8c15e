"""Edits of files whose lines end with CRLF, and answers that are written so, with the file that comes out."""

import pytest

from cascade.chat import Response, Row, ToolCall
from cascade.environments.registry import get
from cascade.environments.swe_agentic.checkout import Checkout
from cascade.environments.swe_agentless.answers import parse_edits
from cascade.environments.swe_agentless.diffs import render_diff
from cascade.environments.swe_agentless.editing import place

LF = "def f():\n    x = 1\n    return 1\n"
CRLF = LF.replace("\n", "\r\n")


def blocks(path: str, old: str, new: str) -> str:
    return f"```python\n### {path}\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n```"


DIFF = (
    "```diff\n--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,4 @@\n"
    " def f():\n-    x = 1\n+    x = 2\n+    y = 3\n     return 1\n```"
)
CASES = [
    ("esengine/DeepSeek-Reasonix#141", "def f():\r\n    return 1\r\n", blocks("a.py", "    return 1", "    return 2"),
     "def f():\r\n    return 2\r\n"),
    ("SWE-agent/SWE-agent#702", CRLF, DIFF, "def f():\r\n    x = 2\r\n    y = 3\r\n    return 1\r\n"),
    ("", LF, DIFF, "def f():\n    x = 2\n    y = 3\n    return 1\n"),
    ("", CRLF, blocks("a.py", "    x = 1\n    return 1", "    return 3"), "def f():\r\n    return 3\r\n"),
    ("", CRLF, blocks("a.py", "    x = 1", ""), "def f():\r\n\r\n    return 1\r\n"),
    # Mixed: what stays keeps its ending, what is new ends as most lines do.
    ("", "a\r\nb\nc\r\nd\r\n", blocks("a.py", "a\nb\nc", "a\nb\nx\nc"), "a\r\nb\nx\r\nc\r\nd\r\n"),
    ("", "a\nb\nc\r\nd\n", blocks("a.py", "c", "x"), "a\nb\nx\nd\n"),
    # No end at the last line.
    ("", "a\r\nb", blocks("a.py", "b", "x\ny"), "a\r\nx\r\ny"),
    ("", "a\r\nb", blocks("a.py", "b", "b\ny"), "a\r\nb\r\ny"),
    ("", "a\r\nb", blocks("a.py", "a", "x"), "x\r\nb"),
    ("", "a\r\nb", blocks("a.py", "a\nb", "a"), "a"),
]  # fmt: skip


@pytest.mark.parametrize(("report", "before", "answer", "after"), CASES)
@pytest.mark.parametrize("written", ["\n", "\r\n"])
def test_line_endings_stay(report: str, before: str, answer: str, after: str, written: str) -> None:
    change = place({"a.py": before}, parse_edits(answer.replace("\n", written)))
    assert change.after == {"a.py": after}
    row: Row = {
        "instance_id": "x", "problem_statement": "Mend it.", "patch": "", "files": {"a.py": before},
        "FAIL_TO_PASS": ["t.py::test_a"], "PASS_TO_PASS": [], "grade": "form",
    }  # fmt: skip
    environment = get("swe_agentless")
    environment.check_row(row)
    assert environment.verify(row, Response(answer.replace("\n", written))).reward == 1
    # The patch that is handed on changes the same lines.
    again = place({"a.py": before}, parse_edits(f"```diff\n{render_diff(change)}```"))
    assert again.after == {"a.py": after}


def test_a_patch_names_the_endings_of_the_lines() -> None:
    change = place({"a.py": "a\r\nb\r\n"}, parse_edits(blocks("a.py", "b", "c")))
    assert render_diff(change).splitlines(keepends=True)[-3:] == [" a\r\n", "-b\r\n", "+c\r\n"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("written", ["\n", "\r\n"])
def test_an_agents_edit(ending: str, written: str) -> None:
    checkout = Checkout({"a.py": LF.replace("\n", ending)}, lambda files: "")
    search, replace = "    x = 1\n    return 1".replace("\n", written), "    x = 2\n    return x".replace("\n", written)
    assert checkout.call(ToolCall("edit", {"path": "a.py", "search": search, "replace": replace})) == "Done"
    assert checkout.files["a.py"] == "def f():\n    x = 2\n    return x\n".replace("\n", ending)
