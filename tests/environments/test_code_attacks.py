"""Candidates that attack the judge: whatever they claim, overwrite or patch, it is worth nothing."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cascade.environments.code import grading
from tests.environments.code_problems import ADD, ECHO, TOP, confined, verdict

ATTACKS = {
    "exit before the tests": "import sys; sys.exit(0)",
    "exit at once": "import os; os._exit(0)",
    "exit in the function": "def NAME(*_): import os; os._exit(0)",
    "exit politely in the function": "def NAME(*_): raise SystemExit(0)",
    "a value that equals everything": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def NAME(*_): return Any()""",
    "a number that equals everything": """
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __rsub__(self, other): return 0
    def __abs__(self): return 0
def NAME(*_): return Any(7)""",
    "a list that equals everything": """
class Any(list):
    def __eq__(self, other): return True
    def __iter__(self): raise SystemExit
def NAME(*_): return Any([7])""",
    "claimed results": """
import json, os
for descriptor in range(3, 20):
    try:
        os.write(descriptor, b'{"loaded": true}\\n')
        os.write(descriptor, b'{"value": null}\\n{"passed": true}\\n{"status": "", "output": "5"}\\n' * 9)
    except OSError: pass
os._exit(0)""",
    "claimed success on every stream": """
import os
for descriptor in range(0, 20):
    try: os.write(descriptor, b'{"passed": true, "reason": "all tests passed"}\\nOK\\n1 passed\\n')
    except OSError: pass
def NAME(*_): return 7
os._exit(0)""",
    "overwriting the scripts": """
import os
for name in os.listdir('.'):
    try:
        os.chmod(name, 0o777); open(name, 'w').write('import os; os._exit(0)')
    except OSError: pass
def NAME(*_): return 7""",
    "patching the scripts' modules": """
import sys, json, builtins
for module in list(sys.modules.values()):
    for name in ('same', 'encode', 'decode', 'dumps', 'same_output', 'judge'):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: True)
builtins.all = builtins.isinstance = lambda *a: True
def NAME(*_): return 7""",
    "patching main": """
import __main__
def answer(results, value):
    results.write('{"loaded": true, "value": true, "passed": true, "status": ""}\\n')
    results.flush()
__main__.answer = answer
def NAME(*_): return 7""",
    "reading the frames": """
import sys, gc
def NAME(*_):
    frame = sys._getframe()
    while frame:
        for name in ('expected', 'output', 'outputs', 'tests'):
            if name in frame.f_locals: return frame.f_locals[name]
        frame = frame.f_back
    return 7""",
    "killing the parent": """
import os, signal
os.kill(os.getppid(), signal.SIGKILL); os.kill(-1, signal.SIGKILL)
def NAME(*_): return 7""",
    "malformed values": """
import __main__
__main__.encode = lambda value: {'int': 'zz', 'set': 5}
def NAME(*_): return 7""",
    "values nested too deep": """
import __main__
__main__.answer = lambda results, value: (results.write('[' * 100_000 + '\\n'), results.flush())
def NAME(*_): return 7""",
    "values too deep to encode": """
def NAME(*_):
    value = []
    for _ in range(100_000): value = [value]
    return value""",
    "a value that holds itself": """
def NAME(*_):
    value = []; value.append(value)
    return value""",
    "closing the channel": "import os; os.closerange(0, 50)",
    "endless": "while True: pass",
    "endless in the function": "def NAME(*_):\n    while True: pass",
    "asleep": "import time; time.sleep(1000)",
    "flood": "while True: print('x' * 10_000)",
    "flood on stderr": "import sys\nwhile True: sys.stderr.write('x' * 10_000)",
    "memory": "x = []\nwhile True: x.append(b'x' * (1 << 24))",
    "syntax error": "def NAME(:",
    "syntax too deep": "x = " + "(" * 5000 + ")" * 5000,
    "null byte": "x = 1\x00",
    "half of a surrogate pair": "x = '\ud800'\ndef NAME(*_): return x",
    "threads that stay": """
import threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
def NAME(*_): return 7""",
    "daemons that stay": """
import os, time
if os.fork() == 0:
    os.setsid(); time.sleep(1000)
def NAME(*_): return 7""",
    "no function": "x = 1",
    "not a function": "NAME = 5",
}


@confined
@pytest.mark.parametrize("row", [ADD, ECHO, TOP], ids=["calls", "streams", "check"])
def test_attacks_are_worth_nothing(row, monkeypatch):
    monkeypatch.setattr(grading, "SECONDS_A_TEST", 1)
    monkeypatch.setattr(grading, "SECONDS", 1)
    name = row.get("function") or row.get("entry_point") or "main"
    with ThreadPoolExecutor(3) as pool:
        results = dict(
            zip(ATTACKS, pool.map(lambda text: verdict(row, text.replace("NAME", name)), ATTACKS.values()), strict=True)
        )
    for attack, result in results.items():
        assert result.failure is None, (attack, result)
        assert result.reward == 0.0, (attack, result)
        assert result.reason, attack


@confined
@pytest.mark.parametrize("row", [ADD, ECHO, TOP], ids=["calls", "streams", "check"])
def test_there_is_nothing_to_read(row):
    """Neither files nor memory of the process hold what is expected; the prompt, which it was given, they do."""
    marks = ['"output": 5', '"outputs": [', "candidate([1, 3, 2])", "Running maximum"]
    source = f"""
import gc, os, sys
seen = []
for place, _, names in os.walk('.'):
    for name in names: seen.append(open(os.path.join(place, name), errors='replace').read())
frame = sys._getframe()
while frame:
    seen.append(repr(frame.f_locals))
    frame = frame.f_back
seen += [repr(held) for held in gc.get_objects() if type(held) in (dict, list, tuple) and held is not seen]
backwards = {[mark[::-1] for mark in marks]}
raise LookupError([mark[::-1] for mark in backwards if any(mark[::-1] in text for text in seen)])
"""
    assert f"LookupError: {['Running maximum'] if row is TOP else []}" in verdict(row, source).reason
