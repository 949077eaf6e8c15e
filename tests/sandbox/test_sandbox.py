"""What an ordinary program sees, and what comes back from it."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cascade.sandbox import PYTHON, Limits, Program, SandboxError, connect, execute, missing, run, seccomp

confined = pytest.mark.skipif(bool(missing()), reason=f"programs cannot be confined here: {missing()}")
MIB = 1 << 20


def python(source, **arguments):
    return execute([*PYTHON, "main.py"], {"main.py": source}, **arguments)


@confined
def test_input_output_exit_code_and_files_come_and_go():
    result = execute(
        [*PYTHON, "pkg/main.py"],
        {"pkg/main.py": "import sys\ntext = input()\nprint(text[::-1])\nprint('why', file=sys.stderr)\n"
                        "open('out.bin', 'wb').write(open('pkg/data', 'rb').read() * 2)\nsys.exit(3)",
         "pkg/data": b"\x00\xff"},
        stdin="hallo ä\n",
        keep=["out.bin", "pkg/data", "none"],
    )  # fmt: skip
    assert (result.exit_code, result.ended) == (3, "exited")
    assert (result.stdout, result.stderr) == ("ä ollah\n", "why\n")
    assert result.files == {"out.bin": b"\x00\xff" * 2, "pkg/data": b"\x00\xff"}
    assert 0 < result.seconds < 10


@confined
def test_each_execution_has_a_fresh_scratch_directory():
    source = "import os\nprint(os.listdir('.'))\nopen('left', 'w')"
    assert [python(source).stdout for _ in range(2)] == ["['main.py']\n"] * 2


@confined
def test_large_input_and_unread_input():
    text = "x" * (3 * MIB)
    assert python("print(len(input()))", stdin=text).stdout == f"{len(text)}\n"
    assert python("print('unread')", stdin=text).stdout == "unread\n"


@confined
def test_a_command_that_is_not_there():
    result = execute(["no-such-program"], {})
    assert result.exit_code == 127
    assert result.stderr.startswith("cannot run no-such-program")


@confined
def test_a_signal_is_not_an_exit_code():
    result = python("import os\nos.kill(os.getpid(), 6)")
    assert (result.exit_code, result.ended) == (None, "signalled")


@confined
def test_each_limit_has_its_name():
    assert python("while True: pass", limits=Limits(cpu_seconds=0.2)).ended == "cpu_time"
    assert python("import time; time.sleep(9)", limits=Limits(wall_seconds=0.2)).ended == "wall_time"
    flood = python("print('x' * 100_000)", limits=Limits(output_bytes=1000))
    assert (flood.ended, flood.stdout) == ("output", "x" * 1000)
    result = python("print('x' * 1000, end='')", limits=Limits(output_bytes=1000))
    assert (result.ended, len(result.stdout)) == ("exited", 1000)


@confined
def test_the_standard_library_threads_and_processes_work():
    source = """
import bisect, collections, decimal, fractions, heapq, itertools, json, math, random, re, statistics, string
import subprocess, sys, tempfile, threading
threads = [threading.Thread(target=print, args=("thread",)) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True, text=True).stdout, end="")
with tempfile.NamedTemporaryFile("w") as file: file.write("x")
"""
    result = python(source)
    assert result.stderr == ""
    assert result.stdout == "thread\n" * 4 + "child\n"


@confined
def test_the_process_limit_is_that_of_one_execution():
    source = """
import os, time
alive = 1
try:
    while True:
        if os.fork() == 0: time.sleep(0.5); os._exit(0)
        alive += 1
except OSError: print(alive)
"""
    counts = []
    threads = [
        threading.Thread(target=lambda: counts.append(python(source, limits=Limits(processes=6)).stdout))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == ["6\n"] * 4


@confined
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_a_compiler_works():
    source = '#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << "\\n"; }'
    built = execute(["g++", "-O1", "-o", "program", "main.cpp"], {"main.cpp": source}, keep=["program"])
    assert built.exit_code == 0, built.stderr
    assert execute(["sh", "-c", "chmod +x p; ./p"], {"p": built.files["program"]}, stdin="2 3").stdout == "5\n"


@confined
def test_two_programs_talk():
    asker = "import sys\nfor i in range(3):\n  print(i, flush=True)\n  print(input(), file=sys.stderr)\n"
    answerer = "while True: print(int(input()) ** 2, flush=True)"
    asked, answered = connect(
        Program([*PYTHON, "a.py"], {"a.py": asker}), Program([*PYTHON, "b.py"], {"b.py": answerer})
    )
    assert (asked.exit_code, asked.stdout, asked.stderr) == (0, "", "0\n1\n4\n")
    assert answered is not None
    assert answered.ended == "exited"


@confined
def test_the_one_sees_that_the_other_has_gone():
    asker = Program([*PYTHON, "-c", "import sys\nprint('gone' if not sys.stdin.read() else 'there', file=sys.stderr)"])
    asked, answered = connect(asker, Program([*PYTHON, "-c", "while True: pass"], {}, Limits(cpu_seconds=0.2)))
    assert asked.stderr == "gone\n"
    assert answered is not None
    assert answered.ended == "cpu_time"


@confined
def test_an_answerer_that_stays_is_killed():
    began = time.monotonic()
    asked, answered = connect(Program([*PYTHON, "-c", "pass"]), Program([*PYTHON, "-c", "import time; time.sleep(99)"]))
    assert asked.exit_code == 0
    assert answered is None
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "."])
@confined
def test_paths_that_leave_the_scratch_directory_are_refused(path):
    with pytest.raises(SandboxError, match="is not a path inside the scratch directory"):
        execute(["true"], {path: ""})
    with pytest.raises(SandboxError, match="is not a path inside the scratch directory"):
        execute(["true"], {}, keep=[path])


def test_where_something_is_missing_nothing_is_run_and_the_error_names_it(monkeypatch):
    monkeypatch.setattr(run, "_missing", lambda: ("it has no user namespaces for this user",))
    assert missing() == ["it has no user namespaces for this user"]
    with pytest.raises(SandboxError, match=r"nothing was run.*no user namespaces.*Allow user namespaces"):
        execute(["true"], {})
    with pytest.raises(SandboxError, match="nothing was run"):
        connect(Program(["true"]), Program(["true"]))


@pytest.mark.parametrize(
    ("function", "value", "says"),
    [
        ("system", "Darwin", "it is not Linux"),
        ("machine", "riscv64", "no list of system calls for riscv64"),
        ("release", "5.10.0-28-amd64", "it needs Linux 5.14 or later"),
    ],
)
def test_machines_that_cannot_confine_say_why(monkeypatch, function, value, says):
    monkeypatch.setattr(platform, function, lambda: value)
    assert says in run._missing.__wrapped__()[0]


@confined
def test_a_refused_namespace_is_named(monkeypatch):
    """A kernel that gives no user namespace, imitated by a limit of none."""
    source = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == 0
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"0 {UID} 1")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
sys.path.insert(0, sys.argv[1])
from cascade.sandbox import missing
print(missing())
""".replace("UID", str(os.geteuid()))
    done = subprocess.run(
        [sys.executable, "-c", source, str(Path(run.__file__).parents[2])], capture_output=True, text=True
    )
    assert "it has no user namespaces for this user" in done.stdout, done.stderr


@confined
def test_nothing_runs_on_when_the_caller_is_killed():
    source = f"""
import sys
sys.path.insert(0, {str(Path(run.__file__).parents[2])!r})
from cascade.sandbox import PYTHON, execute
execute([PYTHON[0], "-c", "import time; time.sleep(98.7)"], {{}})
"""
    caller = subprocess.Popen([sys.executable, "-c", source])
    deadline = time.monotonic() + 20
    while not _running(b"import time; time.sleep(98.7)") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _running(b"import time; time.sleep(98.7)")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    while _running(b"import time; time.sleep(98.7)") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(b"import time; time.sleep(98.7)")


def _running(argument: bytes) -> bool:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and argument in (entry / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_every_jump_of_the_filter_stays_inside(machine):
    code = seccomp.compile_filter(machine)
    count = len(code) // 8
    assert count * 8 == len(code)
    assert count < 4096
    for index in range(count):
        operation, if_true, if_false = code[8 * index], code[8 * index + 2], code[8 * index + 3]
        if operation & 7 == 5:
            assert index + 1 + max(if_true, if_false) < count
    assert code[-8] == 0x06
