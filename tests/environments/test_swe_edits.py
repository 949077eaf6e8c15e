"""Reading edits out of an answer, placing them, and writing the change as a diff."""

import random
import subprocess

import pytest

from cascade.environments.swe_agentless.answers import last_python_block, parse_edits, solution
from cascade.environments.swe_agentless.diffs import parse_diff, render_diff
from cascade.environments.swe_agentless.editing import Change, Edit, Refused, place, split_lines
from cascade.environments.swe_agentless.tasks import render_block

SHOP = "def f(a, b):\n    return a - b\n\n\ndef g(a):\n    return a\n\n\ndef h(a):\n    return a\n"
FILES = {"shop.py": SHOP, "pkg/empty.py": "", "open.txt": "one\ntwo"}
GOOD = render_block("shop.py", "    return a - b", "    return a + b")
FIXED = SHOP.replace("a - b", "a + b")


def applied(answer: str) -> dict[str, str]:
    return place(FILES, parse_edits(answer)).after


def refusal(answer: str) -> str:
    with pytest.raises(Refused) as caught:
        applied(answer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def diff(*hunks: str, old: str = "a/shop.py", new: str = "b/shop.py") -> str:
    return "\n".join(["```diff", f"--- {old}", f"+++ {new}", *hunks, "```"])


FIRST = "@@ -1,2 +1,2 @@\n def f(a, b):\n-    return a - b\n+    return a + b"


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"The sign is wrong.\n\n{GOOD}\nDone.",
        GOOD.replace("```python", "```"),
        GOOD.replace("=======", "=======  "),
        f"{GOOD}\n{GOOD}",  # the same edit twice is one
        f"Before:\n```python\ndef f(a, b): ...\n```\n{GOOD}",
        diff(FIRST),
        diff(FIRST.replace("@@ -1,2 +1,2 @@", "@@ -31,2 +31,2 @@ def f")),  # its lines stand in one place alone
        diff(FIRST).replace("--- a", "diff --git a/shop.py b/shop.py\nindex 12ab..34cd 100644\n--- a"),
        diff("@@ -1,4 +1,4 @@\n def f(a, b):\n-    return a - b\n+    return a + b\n\n "),
        diff(FIRST).replace("```diff", "```patch"),
        diff(FIRST, old="shop.py", new="shop.py"),
    ],
)
def test_answers_that_make_the_one_change(answer: str):
    assert applied(answer) == {**FILES, "shop.py": FIXED}


def test_every_edit_is_looked_up_in_the_files_as_shown():
    swap = render_block("shop.py", "def g(a):", "def h(a):") + render_block("shop.py", "def h(a):", "def g(a):")
    first, second = swap.replace("``````", "```\n```").split("```\n```")
    for answer in (f"{first}```\n```{second}", f"```{second}\n{first}```"):
        assert applied(answer)["shop.py"] == SHOP.replace("def g", "def x").replace("def h", "def g").replace(
            "def x", "def h"
        )


def test_a_fence_may_hold_several_blocks_and_a_block_may_hold_a_fence():
    body = GOOD.removesuffix("\n```")
    second = "<<<<<<< SEARCH\ndef g(a):\n=======\ndef g(a):\n    '''\n```\nx\n```\n    '''\n>>>>>>> REPLACE\n```"
    assert applied(f"{body}\n{second}") == {
        **FILES,
        "shop.py": FIXED.replace("def g(a):", "def g(a):\n    '''\n```\nx\n```\n    '''"),
    }


def test_lines_can_be_removed_or_left_blank_and_files_made():
    gone = "```\n### shop.py\n<<<<<<< SEARCH\n    return a - b\n=======\n>>>>>>> REPLACE\n```"
    assert applied(gone)["shop.py"] == SHOP.replace("    return a - b\n", "")
    assert applied(render_block("shop.py", "    return a - b", ""))["shop.py"] == SHOP.replace("    return a - b", "")
    assert applied(render_block("pkg/new.py", "", "x = 1"))["pkg/new.py"] == "x = 1\n"
    assert applied(render_block("pkg/empty.py", "", "x = 1"))["pkg/empty.py"] == "x = 1\n"
    made = diff("@@ -0,0 +1,2 @@\n+x = 1\n+y = 2", old="/dev/null", new="b/pkg/new.py")
    assert applied(made)["pkg/new.py"] == "x = 1\ny = 2\n"


def test_a_file_keeps_the_end_that_it_had():
    assert applied(render_block("open.txt", "two", "three"))["open.txt"] == "one\nthree"
    assert applied(render_block("open.txt", "one", "zero"))["open.txt"] == "zero\ntwo"
    assert place({"a": "x\ny"}, [Edit("a", ("y",), ())]).after == {"a": "x\n"}
    assert place({"a": "x"}, [Edit("a", ("x",), ())]).after == {"a": ""}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "neither"),
        ("return a + b", "neither"),
        ("```python\ndef f(a, b):\n    return a + b\n```", "neither"),
        (render_block("other.py", "    return a - b", "    return a + b"), "no file other.py"),
        (render_block("./shop.py", "    return a - b", "    return a + b"), "no path of a file"),
        (render_block("shop.py", "    return a * b", "    return a + b"), "not in shop.py"),
        (render_block("shop.py", "return a - b", "return a + b"), "not in shop.py"),  # not a whole line
        (render_block("shop.py", "    return a", "    return 1"), "more than once"),
        (render_block("shop.py", "", "x = 1"), "names no lines"),
        (render_block("shop.py", "    return a - b", "    return a - b"), "changes nothing"),
        (render_block("new.py", "", "").replace("=======\n\n", "=======\n"), "changes nothing"),
        (GOOD + "\n" + render_block("shop.py", "    return a - b\n\n", "    return b"), "same lines"),
        (render_block("new.py", "", "1") + "\n" + render_block("new.py", "", "2"), "same lines"),
        (render_block("../shop.py", "", "x = 1"), "outside"),
        (render_block("pkg/../../x.py", "", "x = 1"), "outside"),
        (render_block("/etc/passwd", "", "x = 1"), "outside"),
        (render_block(".git/hooks/post-checkout", "", "x = 1"), "no path of a file"),
        (render_block("pkg\\x.py", "", "x = 1"), "no path of a file"),
        (render_block("a\x00b.py", "", "x = 1"), "no path of a file"),
        (render_block("x" * 300, "", "x = 1"), "no path of a file"),
        (render_block("shop.py/x.py", "", "x = 1"), "a file and a folder"),
        (render_block("new.py", "", "x = '\ud800'"), "half a character"),
        (GOOD.removesuffix("```"), "ends within"),
        (GOOD.replace("=======\n", ""), "out of place"),
        (GOOD.replace("=======", "=======\n======="), "out of place"),
        (GOOD.replace(">>>>>>> REPLACE\n", ""), "not closed"),
        (GOOD.replace("<<<<<<< SEARCH\n", ""), "without a SEARCH"),
        (GOOD.replace("<<<<<<< SEARCH", "<<<<<<< SEARCH\n<<<<<<< SEARCH"), "out of place"),
        (GOOD.replace("### shop.py\n", ""), "no `### path`"),
        (GOOD.replace("```python\n", "").replace("```", ""), "not in fenced code"),
        (GOOD + "\n" + diff(FIRST), "one form"),
        ("\n".join(render_block(f"new{i}.py", "", "x = 1") for i in range(201)), "more than 200"),
        (diff(), "no hunk"),
        (diff(FIRST.replace("-1,2", "-1,3")), "lines that it announces"),
        (diff(FIRST.replace("+1,2", "+1,3")), "lines that it announces"),
        (diff(FIRST.replace("+1,2", "+1,1")), "no line of a diff"),
        (diff("@@ -3,1 +3,1 @@\n-    return a\n+    return b"), "more than once"),
        (diff("@@ -1,0 +1,1 @@\n+import os"), "names no lines"),
        (diff(FIRST, new="/dev/null"), "deletes"),
        (diff(FIRST, new="b/store.py"), "renames"),
        (diff(FIRST, old="/dev/null"), "out of lines that are there"),
        (diff("@@ -0,0 +1 @@\n+x = 1", old="/dev/null"), "not empty"),
        (diff("@@ -0,0 +1 @@\n+x = 1", old="/dev/null", new="b/../x.py"), "outside"),
        ("```diff\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n```", "no line of a diff"),
        ("```diff\nBinary files a/x and b/x differ\n```", "no line of a diff"),
        ("```diff\n" + FIRST + "\n```", "no line of a diff"),
        ("```diff\n--- a/shop.py\n+++ b/shop.py\n" + FIRST, "ends within"),
    ],
)
def test_answers_that_are_refused_and_why(answer: str, reason: str):
    assert reason in refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "```" * 50_000,
        "```python\n" * 50_000,
        "<<<<<<< SEARCH\n" * 50_000,
        "```python\n### shop.py\n" + "<<<<<<< SEARCH\n" + "    return a\n" * 100_000,
        "```diff\n" + "@@ -1 +1 @@\n" * 50_000 + "```",
        "```diff\n--- a/shop.py\n+++ b/shop.py\n@@ -1,999999999 +1 @@\n" + " x\n" * 50_000 + "```",
        "\n".join([render_block("shop.py", "\n" * 50_000 + "x", "y")] * 20),
        "### " * 100_000,
        "<solution>" * 50_000,
    ],
    ids=range(9),
)
def test_hostile_answers_are_refused_at_once(answer: str):
    with pytest.raises(Refused):
        applied(solution(answer, required=False))


def test_a_solution_is_between_one_pair_of_tags():
    assert solution("<solution>x</solution> y", required=True) == "x"
    assert solution("x", required=False) == "x"
    for text in ("x", "<solution>x", "x</solution>", "</solution>x<solution>", "<solution>x</solution>" * 2):
        with pytest.raises(Refused):
            solution(text, required=True)
    with pytest.raises(Refused):
        solution("<solution>x", required=False)


def test_the_script_is_the_last_python_fence():
    assert last_python_block("```python\na = 1\n```\n```bash\nls\n```\n```python\nb = 2\n```") == "b = 2"
    assert last_python_block("```python\n\n```") is None
    assert last_python_block("a = 1") is None


def random_change(rng: random.Random) -> Change | None:
    lines = [rng.choice("abcdefghij") * rng.randint(0, 3) for _ in range(rng.randint(1, 40))]
    files = {"f.py": "\n".join(lines) + rng.choice(("\n", ""))}
    lines = split_lines(files["f.py"])
    edits, at = [], rng.randint(0, 3)
    while at < len(lines):
        old = tuple(lines[at : at + rng.randint(1, 3)])
        new = rng.choice([old[:1], (), ("new",), (*old, "x"), ("y", *old)])
        if old != new:
            edits.append(Edit("f.py", old, new, at))
        at += len(old) + rng.randint(0, 10)
    return place(files, edits) if edits else None


def test_a_rendered_diff_is_what_git_applies_and_what_is_read_here(tmp_path):
    rng = random.Random(0)
    changes = [change for change in (random_change(rng) for _ in range(60)) if change]
    assert len(changes) > 50
    for change in changes:
        patch = render_diff(change)
        # Whether a file ends with a newline is not read.
        assert place(change.before, parse_diff(patch)).after["f.py"].rstrip("\n") == change.after["f.py"].rstrip("\n")
        (tmp_path / "f.py").write_text(change.before["f.py"])
        done = subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, capture_output=True)
        assert done.returncode == 0, (done.stderr, patch)
        file = tmp_path / "f.py"
        assert file.read_text() == change.after["f.py"], patch


def test_a_rendered_diff_makes_files_and_leaves_out_the_prefix():
    change = place({"repo/a.py": "x\n"}, [Edit("repo/b/c.py", (), ("1", "2")), Edit("repo/a.py", ("x",), ("y",))])
    assert render_diff(change, prefix=1) == (
        "diff --git a/b/c.py b/b/c.py\nnew file mode 100644\n--- /dev/null\n+++ b/b/c.py\n@@ -0,0 +1,2 @@\n+1\n+2\n"
        "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,1 +1,1 @@\n-x\n+y\n"
    )
