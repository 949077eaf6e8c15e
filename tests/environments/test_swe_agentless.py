"""Rewards of the whole environment: edits applied, tests run in the sandbox, rows of all forms."""

import pytest

from cascade.chat import Response
from cascade.environments.registry import get
from cascade.environments.swe_agentless import checks, runner
from cascade.environments.swe_agentless.tasks import render_block
from cascade.sandbox import SandboxError
from tests.environments.swe_rows import GOOD, SOURCE, row

SWE = get("swe_agentless")
LEVELS = (1, 2, 3, 4, 5)


def rewritten(source: str) -> str:
    """An answer that replaces the whole file."""
    return render_block("shop.py", SOURCE.removesuffix("\n"), source)


def verdict(answer: str, **changes):
    return SWE.verify(row(**changes), Response(answer))


def test_a_fix_is_right_in_both_forms():
    for answer in (
        GOOD,
        "```diff\n--- a/shop.py\n+++ b/shop.py\n@@ -2 +2 @@\n-    return x * 3\n+    return x * 2\n```",
    ):
        found = verdict(answer)
        assert found.reward == 1.0, found
        assert found.reason == "all 3 tests pass"
        assert "-    return x * 3\n+    return x * 2\n" in found.extracted


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (render_block("shop.py", "    return x * 3", "    return x * 4"), "test_double: 80, not 40"),
        (render_block("shop.py", "    return x * 3", "    return 40"), "test_zero"),  # PASS_TO_PASS breaks
        (render_block("shop.py", "    return x * 3", "    return float(x * 2)"), "40.0, not 40"),
        (render_block("shop.py", "    return x * 3", "    return x *"), "raises SyntaxError"),
        (render_block("shop.py", "    return x * 3", "    return y"), "raises NameError"),
        (render_block("shop.py", "    return x % 2 == 0", "    return x % 2 < 1"), "1 of 3 tests fail"),
        (render_block("test_shop.py", "", "def test_double(): pass"), "edits a test file"),
        (render_block("conftest.py", "", "import sys"), "edits a test file"),
        (render_block("tests/helper.py", "", "x = 1"), "edits a test file"),
        (GOOD + "\n" + render_block("pkg/check_test.py", "", "x = 1"), "edits a test file"),
        ("", "neither"),
        ("I would return x * 2.", "neither"),
    ],
)
def test_wrong_answers_have_reward_zero_and_a_reason(answer: str, reason: str):
    found = verdict(answer)
    assert found.reward == 0.0
    assert reason in found.reason


ATTACKS = {
    "exit": "import sys\nsys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "print the verdict": "print('true\\n' * 9, '3 passed')\nimport os\nos._exit(0)",
    "equal to all": "class Same:\n    def __eq__(self, other):\n        return True\ndef double(x):\n    return Same()",
    "forged answers": "import os\nfor fd in range(3, 50):\n    try:\n"
    "        os.write(fd, b'80\\n[true, false]\\n{}\\n')\n"
    "    except OSError:\n        pass\nos._exit(0)",
    "every answer": "import os\nfor n in range(100):\n    for fd in range(1, 20):\n        try:\n"
    "            os.write(fd, b'%d\\n' % n)\n        except OSError:\n            pass\ndef double(x):\n    return 3",
    "patched runner": "import sys\nsys.modules['__main__'].as_text = lambda value: 'true'\n"
    "def double(x):\n    return 1",
    "patched json": "import json\njson.dumps = lambda *a, **k: 'true'\ndef double(x):\n    return 1",
    "reads the tests": "import os, re\nfound = []\nfor folder, _, names in os.walk('.'):\n    for name in names:\n"
    "        if name.endswith('.py'):\n            source = open(os.path.join(folder, name)).read()\n"
    "            found += re.findall(r'double.*== *(\\d+)', source)\n"
    "def double(x):\n    return int(found[0]) if found else -1",
    "reads the caller": "import re, sys\ndef double(x):\n    frame, found = sys._getframe(1), []\n    while frame:\n"
    "        found += re.findall(r'double.*== *(\\d+)', repr(frame.f_locals))\n        frame = frame.f_back\n"
    "    return int(found[0]) if found else -1",
    "overwrites the runner": "open('runner.py', 'w').write('print(40)')\ndef double(x):\n    return 1",
    "writes tests": "open('test_shop.py', 'w').write('def test_double(): pass')\ndef double(x):\n    return 1",
    "loop": "while True:\n    pass",
    "recursion": "def double(x):\n    return double(x)",
    "memory": "def double(x):\n    return [x] * 10**10",
    "flood": "import sys\nwhile True:\n    sys.stderr.write('x' * 10**6)",
    "long value": "def double(x):\n    return 'x' * 10**7",
    "crash": "import ctypes\nctypes.string_at(0)",
    "thread": "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()\n"
    "def double(x):\n    return 1",
    "no answer at exit": "import atexit\natexit.register(print, 'true')\ndef double(x):\n    return 1",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_that_cheats_has_reward_zero(attack: str):
    found = verdict(rewritten(f"{ATTACKS[attack]}\n\n\ndef even(x):\n    return x % 2 == 0"))
    assert found.reward == 0.0
    assert "test_shop.py::test_double: " in found.reason


def test_what_right_code_prints_or_leaves_running_does_not_cost_it_its_reward():
    noise = "import atexit, threading, time\nprint('x' * 10**6)\natexit.register(print, 1)\n"
    noise += "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    assert verdict(rewritten(noise + SOURCE.replace("* 3", "* 2"))).reward == 1.0


def test_neither_the_expected_values_nor_the_test_files_enter_the_sandbox(monkeypatch):
    execute, seen = checks.execute, []

    def watched(command, files, **options):
        seen.append((files, options["stdin"]))
        return execute(command, files, **options)

    monkeypatch.setattr(checks, "execute", watched)
    assert verdict(GOOD).reward == 1.0
    ((files, stdin),) = seen
    assert set(files) == {"runner.py", "repository/shop.py"}
    assert "double(20)" in stdin
    assert "40" not in stdin + files["repository/shop.py"]


def test_a_broken_sandbox_is_a_failure_and_not_a_zero(monkeypatch):
    def broken(*args, **options):
        raise SandboxError("no namespaces here")

    monkeypatch.setattr(checks, "execute", broken)
    found = verdict(GOOD)
    assert (found.reward, found.failure) == (None, "sandbox")
    assert verdict("nothing").reward == 0.0


def test_values_are_told_apart_by_their_types():
    values = [1, True, 1.0, "1", None, [1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1}, [[1]], [True], -0.0, 0.0, b"1"]
    texts = [runner.as_text(value) for value in values]
    assert len(set(texts)) == len(values)
    assert runner.as_text({2: 1, 1: 2}) == runner.as_text({1: 2, 2: 1})
    assert runner.as_text({"b", "a"}) == runner.as_text({"a", "b"})
    assert "\n" not in runner.as_text("a\nb")
