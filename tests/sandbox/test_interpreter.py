"""A Python program runs in a fork of a prepared interpreter as `python -I -S` runs it."""

import json
import re
import sys

import pytest

from cascade.sandbox import PYTHON, Limits, compiled, execute, missing
from cascade.sandbox.interpreter import PREPARED

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"programs cannot be confined here: {missing()}")

STARTED = [*PYTHON, "-B"]
"""By other options than `PYTHON`'s, Python is started anew."""

SAME = {
    "output": "print('a', 1); import sys; print('b', file=sys.stderr)",
    "input": "print(input()); import sys; print(sys.stdin.read(), end=''); print(open(0).read())",
    "arguments": "import sys; print(sys.argv)",
    "names": "print(sorted(globals()), __name__, __file__, __doc__, __spec__, __package__)",
    "main": "import __main__; x = 3; print(__main__.x, __main__ is __import__('sys').modules['__main__'])",
    "path": "import sys; print(sys.path, sys.flags, sys.executable)",
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__):"
    " print(s.name, s.mode, s.encoding, s.errors, s.newlines, s.line_buffering, s.fileno(), s.isatty())",
    "environment": "import os; print(sorted(os.environ.items()), os.getcwd(), os.umask(0))",
    "signals": "import signal\nfor n in range(1, 32): print(n, signal.getsignal(n))",
    "limits": "import resource\nfor n in range(10): print(n, resource.getrlimit(n))",
    "descriptors": "import os\nfor n in range(300):\n  try: os.fstat(n); print(n)\n  except OSError: pass",
    "exception": "def f():\n    return 1 / 0\nf()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e",
    "group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
    "syntax": "x = 1\ndef f(:\n    pass",
    "null": "x = '\\0'; print(len(x))",
    "encoding": "# -*- coding: latin-1 -*-\nprint('ok')",
    "exit": "import sys; sys.exit(7)",
    "exit with a text": "import sys; sys.exit('no')",
    "exit without": "raise SystemExit",
    "exit of a large number": "raise SystemExit(300)",
    "exit at once": "import os; print('lost'); os._exit(5)",
    "interrupt": "raise KeyboardInterrupt",
    "at exit": "import atexit; atexit.register(print, 'bye'); print('hi')",
    "exit at exit": "import atexit, sys\natexit.register(lambda: 1 / 0)\nprint('hi')",
    "hook": "import sys; sys.excepthook = lambda t, v, b: print('mine', t, v, b.tb_lineno)\n1 / 0",
    "threads": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('late'))).start()",
    "daemon": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint(1)",
    "finalizers": "class A:\n    def __del__(self): print('gone')\na = A()\nb = [A()]; b.append(b)",
    "an open file": "f = open('left', 'w'); f.write('kept')",
    "closed output": "import sys; sys.stdout.close()",
    "other output": "import sys, io; sys.stdout = io.StringIO(); print('unseen')",
    "unicode": "print('ä \\udc80'.encode('utf-8', 'surrogateescape')); print('\\udc80')",
    "recursion": "import sys\ndef f(n):\n    try: return f(n + 1)\n    except RecursionError: return n\nprint(f(1))",
    "children": "import subprocess, sys\n"
    "print(subprocess.run([sys.executable, '-c', 'print(3)'], capture_output=True))",
    "forks": "import os\nif os.fork() == 0:\n    print('child'); os._exit(0)\nos.wait(); print('parent')",
    "pools": "from multiprocessing import get_context\ndef f(x): return x * x\n"
    "if __name__ == '__main__':\n    with get_context('fork').Pool(2) as p: print(p.map(f, [1, 2]))",
    "pickles": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "dataclasses": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\nprint(A())",
    "a local module": "import sys; sys.path.insert(0, '.'); import other; print(other.X)",
    "no local module": "import other",
    "no modules of the launcher": "import sys\n"
    "print([n for n in ('watch', 'namespaces', 'interpreter') if n in sys.modules])",
    "annotations": "def f(x: int): pass\nprint(f.__annotations__, __annotations__)\ny: int = 1\nprint(__annotations__)",
    "hash of a number": "print(hash(12345), hash(1.5))",
}


@pytest.mark.parametrize("name", SAME)
def test_as_python_runs_it(name: str) -> None:
    files = {"main.py": SAME[name], "other.py": "X = 41"}
    one, other = (
        execute([*python, "main.py", "a", "-b"], files, stdin="one\ntwo\n", keep=["left"], limits=Limits(processes=10))
        for python in (PYTHON, STARTED)
    )
    plain = {"dont_write_bytecode=1": "dont_write_bytecode=0"}
    outputs = [
        re.sub("dont_write_bytecode=1|0x[0-9a-f]+", lambda m: plain.get(m[0], "0x"), f"{run.stdout}\n{run.stderr}")
        for run in (one, other)
    ]
    assert outputs[0] == outputs[1]
    assert (one.exit_code, one.ended, one.files) == (other.exit_code, other.ended, other.files)


@pytest.mark.parametrize(
    "source", ["import sys; print(sys.argv, __name__, '__file__' in globals())", "1 / 0", "def f(:"]
)
def test_as_python_runs_a_text(source: str) -> None:
    runs = [execute([*python, "-c", source, "a"], {}) for python in (PYTHON, STARTED)]
    assert [(run.stdout, run.stderr, run.exit_code) for run in runs[:1]] == [
        (run.stdout, run.stderr, run.exit_code) for run in runs[1:]
    ]


def test_what_is_no_program_is_said_by_python() -> None:
    result = execute([*PYTHON, "none.py"], {})
    assert result.exit_code == 2
    assert "can't open file" in result.stderr


def test_compiled_programs_run() -> None:
    main = compiled("import sys; sys.path.insert(0, '.'); import other; print(other.X, __name__, __file__)", "main.py")
    files = {"main.pyc": main, "other.pyc": compiled("X = 3", "other.py")}
    runs = [execute([*python, "main.pyc"], files) for python in (PYTHON, STARTED)]
    assert [run.stdout for run in runs] == ["3 __main__ /scratch/main.pyc\n"] * 2
    assert "bad magic number" in execute([*PYTHON, "main.pyc"], {"main.pyc": b"\0\0\0\0" + main[4:]}).stderr.lower()


def test_prepared_modules_show_nothing_that_importing_them_does_not() -> None:
    """Loaded submodules are attributes of their package, and would hide that a program forgot an import."""
    source = (
        f"import sys, json\nfor name in {PREPARED!r}: __import__(name)\n"
        "print(json.dumps({n: sorted(k for k, v in vars(m).items() if type(v) is type(sys))"
        f" for n, m in sys.modules.items() if n in {PREPARED!r}}}))"
    )
    shown = [json.loads(execute([*python, "-c", source], {}).stdout) for python in (PYTHON, STARTED)]
    assert shown[0] == shown[1]
    for name in PREPARED:
        alone = f"import {name}; print(sorted(k for k, v in vars({name}).items() if type(v) is type({name})))"
        assert len({execute([*python, "-c", alone], {}).stdout for python in (PYTHON, STARTED)}) == 1, name


MARK = "kept in no memory"
PLANTS = {
    "memory": f"held = [bytearray({MARK!r}.encode()) for _ in range(1000)]; x = {MARK!r} * 3",
    "modules": "import json, builtins, sys\njson.dumps = lambda *a: 'planted'\nbuiltins.print = None\n"
    "sys.modules['re'] = 1\nsys.path.append('/planted')\nsys.setrecursionlimit(77)",
    "files": "import os\nopen('planted', 'w').write('x'); os.mkdir('d'); os.symlink('/', 'l')\n"
    "os.umask(0o777); os.chmod('.', 0)",
    "processes": "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(60)",
    "environment": "import os; os.environ['PLANTED'] = '1'; os.putenv('PLANTED', '1')",
    "limits and priority": "import os, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); os.nice(5)\n"
    "try: os.setpriority(os.PRIO_USER, 0, 19)\nexcept OSError: pass\n"
    "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "sockets": "import socket, os, time\ns = socket.socket(socket.AF_UNIX); s.bind('\\0planted'); s.listen()\n"
    "f = socket.socket(socket.AF_UNIX); f.bind('planted')\nif os.fork() == 0: time.sleep(60)",
    "signals": "import signal\n"
    "for n in range(1, 32):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); signal.alarm(1)",
    "crash": "import ctypes; ctypes.string_at(0)",
    "locks": "import fcntl, os\nf = open(os.__file__); fcntl.flock(f, fcntl.LOCK_EX)",
    "host name": "import socket\ntry: socket.sethostname('planted')\nexcept OSError: pass",
}
LOOK = """
import ctypes, fcntl, gc, json, os, re, resource, signal, socket, sys
seen = {}
seen["python"] = [json.dumps([1]), re.sub("a", "b", "a"), sys.path, sys.getrecursionlimit(), len(sys.modules)]
seen["files"] = [sorted(os.listdir(".")), os.stat(".").st_mode, os.umask(0)]
seen["process"] = [os.getpid(), os.getppid(), os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, 1)]
seen["processors"] = len(os.sched_getaffinity(0))
seen["environment"] = sorted(os.environ.items())
seen["limits"] = [resource.getrlimit(n) for n in range(16)]
seen["signals"] = [str(signal.getsignal(n)) for n in range(1, 32)] + [str(signal.pthread_sigmask(0, ()))]
seen["host"] = socket.gethostname()
s = socket.socket(socket.AF_UNIX)
try: s.connect("\\0planted"); seen["socket"] = "reached"
except OSError as error: seen["socket"] = error.errno
try: fcntl.flock(open(os.__file__), fcntl.LOCK_EX | fcntl.LOCK_NB); seen["lock"] = "free"
except OSError: seen["lock"] = "held"
# All memory around what this process has allocated; where there is none, the call says so.
libc = ctypes.CDLL(None)
reads, writes = os.pipe()
places = sorted({id(o) >> 26 for o in gc.get_objects()} | {id(object()) >> 26, ctypes.addressof(ctypes.c_int()) >> 26})
found = pages = 0
for place in places:
    for page in range(place << 26, (place + 1) << 26, 4096):
        if libc.write(writes, ctypes.c_void_p(page), 4096) == 4096:
            pages += 1
            found += KRAM in os.read(reads, 4096)[::-1]
seen["memory"] = found
assert pages > 100
print(json.dumps(seen))
"""


@pytest.mark.parametrize("name", PLANTS)
def test_nothing_of_a_program_is_seen_by_the_next(name: str) -> None:
    """Both run in forks of one interpreter: one is idle, and an idle one is used."""
    look = LOOK.replace("KRAM", repr(bytes(reversed(MARK.encode()))))

    def seen() -> dict:
        result = execute([*PYTHON, "-c", look], {}, limits=Limits(cpu_seconds=60, wall_seconds=60))
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    before = seen()
    execute([*PYTHON, "planted.py"], {"planted.py": PLANTS[name], "notes": MARK}, stdin=MARK, keep=["notes"])
    after = seen()
    assert after == before
    assert after["memory"] == 0


def test_the_look_sees_what_is_there() -> None:
    look = LOOK.replace("KRAM", repr(bytes(reversed(MARK.encode()))))
    result = execute([*PYTHON, "-c", f"held = [bytearray({MARK!r}.encode()) for _ in range(100)]\n{look}"], {},
                     limits=Limits(cpu_seconds=60, wall_seconds=60))  # fmt: skip
    assert json.loads(result.stdout)["memory"] > 0, result.stderr


def test_this_python_is_the_one_that_programs_get() -> None:
    assert execute([*PYTHON, "-c", "import sys; print(sys.version)"], {}).stdout == f"{sys.version}\n"
