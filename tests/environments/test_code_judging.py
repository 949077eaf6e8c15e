"""check(candidate), programs, C++, and what is a failure rather than a zero."""

import json
import shutil
from pathlib import Path

import pytest

from cascade.environments.code import grading
from cascade.environments.registry import environment_of
from cascade.errors import SandboxError
from tests.environments.code_problems import ADD, ECHO, KINDS, ROOT, TOP, code, confined, mutated, verdict

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "gym" / "code_gen.jsonl"


@confined
@pytest.mark.parametrize("row", [TOP, ROOT, KINDS], ids=["top", "root", "kinds"])
def test_check_passes_the_solution_as_a_function_and_as_the_rest_of_the_prompt(row):
    code.check_row(row)
    assert verdict(row, row["prompt"] + row["canonical_solution"]).reward == 1.0
    result = verdict(row, row["canonical_solution"])
    assert (result.reward, result.reason) == (1.0, "all tests passed")
    mutant = mutated("def f():\n" + row["canonical_solution"]).partition("\n")[2]
    assert verdict(row, mutant).reward == 0.0, mutant
    assert verdict(row, "    pass").reward == 0.0
    assert verdict(row, "    return ]").reward == 0.0


@confined
@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"test": "def check(candidate):\n    assert candidate(lambda: 1)"}, "bad_test"),
        ({"test": "def check(candidate:\n    pass"}, "bad_test"),
        ({"test": "def verify(candidate): check(1)"}, "bad_test"),
        ({"canonical_solution": "    return )"}, "bad_test"),
        ({"test": "def check(candidate):\n    import os\n    os._exit(0)"}, "judge_died"),
    ],
)
def test_a_broken_test_is_a_failure_and_not_a_zero(change, failure):
    result = verdict({**TOP, **change}, "def top(values): return values")
    assert (result.reward, result.failure) == (None, failure)


# programs


@confined
def test_programs_read_stdin_and_write_stdout():
    assert verdict(ECHO, "print(sum(map(int, input().split())))").reward == 1.0
    assert verdict(ECHO, "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))").reward == 1.0
    main = (
        "def main():\n    print(eval('+'.join(open(0).read().split())))\n"
        "if __name__ == '__main__':\n    main()\n    exit()"
    )
    assert verdict(ECHO, main).reward == 1.0
    result = verdict(ECHO, "print(5)")
    assert (result.reward, result.reason) == (0.0, "test 2: a wrong output")
    assert "exit code 1" in verdict(ECHO, "print(5); raise SystemExit(1)").reason
    assert "EOFError" in verdict(ECHO, "input(); input()").reason
    assert "does not compile" in verdict(ECHO, "print(").reason


@confined
def test_each_input_starts_afresh():
    source = (
        "import sys, os\nif hasattr(sys, 'seen'): print('again')\nsys.seen = 1\nprint(sum(map(int, input().split())))"
    )
    assert verdict(ECHO, source).reward == 1.0


@confined
def test_gyms_rows_have_the_usual_imports_and_ours_do_not():
    tests = {"inputs": ["[3, 1, 2]", "[]"], "outputs": ["[1, 2, 3]", "[]"], "fn_name": "order"}
    gym = {"verifier_metadata": {"unit_tests": tests}}
    source = (
        "class Solution:\n    def order(self, xs: List[int]) -> List[int]:\n        heapify(xs)\n"
        "        return [heappop(xs) for _ in range(len(xs))]"
    )
    assert verdict(gym, source).reward == 1.0
    assert verdict(ADD, "def add(a, b): return int(math.fsum([a, b]))").reward == 0.0
    streams = {"verifier_metadata": {"unit_tests": {"inputs": ["9"], "outputs": ["3"]}}}
    assert verdict(streams, "print(int(sqrt(int(input()))))").reward == 1.0


@confined
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_cpp_programs_are_compiled_and_run():
    source = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }"
    assert verdict(ECHO, source, "cpp").reward == 1.0
    assert verdict({**ECHO, "language": "c++"}, source, "").reward == 1.0
    assert verdict(ECHO, source.replace("+ b", "- b"), "cpp").reason == "test 1: a wrong output"
    assert verdict(ECHO, source.replace("a + b", "c"), "cpp").reason.startswith("does not compile")
    assert "signal" in verdict(ECHO, "int main() { int *p = 0; return *p; }", "c++").reason
    assert verdict(ADD, source, "cpp").reason == "the function is asked for in Python"


@confined
def test_without_a_compiler_there_is_no_verdict(monkeypatch):
    monkeypatch.setattr(grading, "COMPILER", ("no-such-compiler",))
    result = verdict(ECHO, "int main() {}", "cpp")
    assert (result.reward, result.failure) == (None, "no_compiler")


def test_without_a_sandbox_there_is_no_verdict(monkeypatch):
    def broken(*_, **__):
        raise SandboxError("nothing was run")

    for name in ("execute", "connect"):
        monkeypatch.setattr(grading, name, broken)
    for row in (ADD, ECHO, TOP):
        result = verdict(row, "pass")
        assert (result.reward, result.failure, result.reason) == (None, "sandbox", "nothing was run")


@confined
@pytest.mark.skipif(not SAMPLES.exists(), reason="the real rows are not at hand")
def test_real_rows():
    for line in SAMPLES.read_text().splitlines():
        row = json.loads(line)
        code.check_row(row)
        assert environment_of({**row, "agent_ref": {"name": "code_gen"}}) is code
        tests = row["verifier_metadata"]["unit_tests"]
        table = dict(zip(tests["inputs"], tests["outputs"], strict=True))
        assert verdict(row, f"import sys\nprint({table!r}[sys.stdin.read()])").reward == 1.0
        assert verdict(row, "print('no')").reward == 0.0
