"""Agentic code repair: every tool, hostile calls, tampering with tests, hostile code, foreign rows."""

import pytest

from cascade.chat import Response, ToolCall, parse_response, render_tool_call
from cascade.environments.registry import environment_of, get
from cascade.environments.swe_agentic import MAX_CALLS
from cascade.environments.swe_agentic.checkout import MAX_FILE, MAX_RESULT, TOOLS
from cascade.environments.swe_agentic.testing import as_python
from cascade.environments.swe_agentless import runner
from cascade.environments.swe_agentless.checks import run_checks
from cascade.environments.swe_agentless.diffs import parse_diff
from cascade.environments.swe_agentless.editing import place
from cascade.errors import RowError, SandboxError
from tests.environments import swe_rows

ENVIRONMENT = get("swe_agentic")


def row(**changes):
    prompt = {"input": [{"role": "user", "content": "`double` is wrong. Fix it."}], "tools": TOOLS}
    return swe_rows.row(environment="swe_agentic", responses_create_params=prompt, **changes)


def calls(*named: tuple[str, dict]) -> Response:
    return Response("", tool_calls=tuple(ToolCall(name, arguments) for name, arguments in named))


def call(episode, name: str, **arguments) -> str | None:
    messages = episode.answer(calls((name, arguments)))
    if messages is None:
        return None
    (message,) = messages
    assert message["role"] == "tool"
    return message["content"]


def edit(episode, search: str, replace: str, path: str = "shop.py") -> str | None:
    return call(episode, "edit", path=path, search=search, replace=replace)


def mend(episode) -> None:
    assert edit(episode, "x * 3", "x * 2") == "Done"


def test_every_tool():
    episode = ENVIRONMENT.start(row())
    assert call(episode, "list_files") == "shop.py"
    assert call(episode, "view", path="shop.py") == swe_rows.SOURCE.rstrip()
    assert call(episode, "search", text="return x") == "shop.py:2: return x * 3\nshop.py:6: return x % 2 == 0"
    assert call(episode, "search", text="treble") == "Nothing found"
    assert call(episode, "run_tests") == "FAILED double(20) returns 60, expected 40\n1 failed, 2 passed"
    mend(episode)
    assert call(episode, "run_tests") == "3 passed"
    assert call(episode, "submit") is None
    verdict = episode.verdict()
    assert verdict.reward == 1
    after = place({"shop.py": swe_rows.SOURCE}, parse_diff(verdict.extracted)).after
    assert after == {"shop.py": swe_rows.SOURCE.replace("x * 3", "x * 2")}


def test_files_can_be_made_and_used():
    episode = ENVIRONMENT.start(row())
    assert edit(episode, "", "def twice(x):\n    return 2 * x\n", path="lib/more.py") == "Done"
    assert call(episode, "list_files") == "shop.py\nlib/more.py"
    assert edit(episode, "def double(x):\n    return x * 3", "from lib.more import twice as double") == "Done"
    assert call(episode, "run_tests") == "3 passed"
    patch = episode.verdict().extracted
    assert "+++ b/lib/more.py" in patch
    assert place({"shop.py": swe_rows.SOURCE}, parse_diff(patch)).after["lib/more.py"].startswith("def twice")


@pytest.mark.parametrize("unmended", ["nothing", "wrong", "broken"])
def test_what_does_not_mend_has_reward_zero(unmended):
    episode = ENVIRONMENT.start(row())
    if unmended != "nothing":
        edit(episode, "x * 3", "x * 4" if unmended == "wrong" else "x *")
    assert call(episode, "submit") is None
    verdict = episode.verdict()
    assert verdict.reward == 0
    assert verdict.reason


def test_a_fix_that_breaks_what_passed_has_reward_zero():
    episode = ENVIRONMENT.start(row())
    mend(episode)
    assert edit(episode, "x % 2 == 0", "x % 2 == 1") == "Done"
    assert episode.verdict().reason.startswith("1 of 3 tests fail; test_shop.py::test_even")


def test_a_response_without_a_call_ends_the_episode():
    episode = ENVIRONMENT.start(row())
    mend(episode)
    assert episode.answer(Response("It is done.")) is None
    assert episode.verdict().reward == 1


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("fly", {}, "Error: no tool fly"),
        ("__init__", {}, "Error: no tool __init__"),
        ("view", {}, "Error: view needs path"),
        ("view", {"path": 7}, "Error: view needs path"),
        ("view", {"path": ["shop.py"]}, "Error: view needs path"),
        ("view", {"path": "none.py"}, "Error: no file none.py"),
        ("view", {"path": ""}, "Error: '' is no path of a file in a repository"),
        ("view", {"path": "../shop.py"}, "Error: '../shop.py' lies outside the repository"),
        ("view", {"path": "/etc/passwd"}, "Error: '/etc/passwd' lies outside the repository"),
        ("view", {"path": "a/../../etc/passwd"}, "Error: 'a/../../etc/passwd' lies outside the repository"),
        ("view", {"path": "shop.py\x00"}, "Error: 'shop.py\\x00' is no path of a file in a repository"),
        ("edit", {"path": "shop.py", "search": "x"}, "Error: edit needs replace"),
        ("edit", {"path": "/tmp/x.py", "search": "", "replace": "1"}, "Error: '/tmp/x.py' lies outside the repository"),
        ("edit", {"path": ".git/config", "search": "", "replace": "1"},
         "Error: '.git/config' is no path of a file in a repository"),
        ("edit", {"path": "shop.py/x.py", "search": "", "replace": "1"}, "Error: shop.py would be a file and a folder"),
        ("edit", {"path": "shop.py", "search": "", "replace": "1"}, "Error: the old text must be in the file once"),
        ("edit", {"path": "shop.py", "search": "turn", "replace": ""}, "Error: the old text must be in the file once"),
        ("edit", {"path": "none.py", "search": "a", "replace": "b"}, "Error: the old text must be in the file once"),
        ("edit", {"path": "new.py", "search": "", "replace": "x" * (MAX_FILE + 1)},
         "Error: the repository has no room for that"),
    ],
)  # fmt: skip
def test_a_bad_call_is_answered_with_what_is_wrong_and_changes_nothing(name, arguments, answer):
    episode = ENVIRONMENT.start(row())
    assert call(episode, name, **arguments) == answer
    assert call(episode, "list_files") == "shop.py"
    assert episode.verdict().reason == "the repository is as it was"


def test_long_results_are_cut():
    episode = ENVIRONMENT.start(row(files={"long.py": "x = 1\n" * 10_000, "shop.py": swe_rows.SOURCE}))
    shown = call(episode, "view", path="long.py")
    assert len(shown) < MAX_RESULT + 50
    assert shown.endswith("(59999 characters in all)")


def test_arguments_are_the_text_that_was_written():
    source = "def version():\n    return '1.0' + '[1,2]'\n"
    episode = ENVIRONMENT.start(row(files={"shop.py": source}))
    for old, new in (("1.0", "true"), ("[1,2]", " 2 ")):
        text = render_tool_call(ToolCall("edit", {"path": "shop.py", "search": old, "replace": new}))
        (message,) = episode.answer(parse_response(text, thinking=False))
        assert message["content"] == "Done"
    assert call(episode, "view", path="shop.py") == "def version():\n    return 'true' + ' 2 '"


def test_several_calls_of_a_turn_are_answered_in_order_up_to_a_bound_and_up_to_submit():
    episode = ENVIRONMENT.start(row())
    view = ("view", {"path": "shop.py"})
    answers = episode.answer(calls(("list_files", {}), view))
    assert [message["content"] for message in answers] == ["shop.py", swe_rows.SOURCE.rstrip()]
    answers = episode.answer(calls(*[("list_files", {})] * 500))
    assert len(answers) == MAX_CALLS + 1
    assert answers[-1]["content"] == f"Error: only the first {MAX_CALLS} calls were carried out"
    fix = ("edit", {"path": "shop.py", "search": "x * 3", "replace": "x * 2"})
    spoil = ("edit", {"path": "shop.py", "search": "x * 2", "replace": "x * 5"})
    assert episode.answer(calls(fix, ("submit", {}), spoil)) is None
    assert episode.verdict().reward == 1


def test_a_call_that_cannot_be_read_is_answered_with_the_reason():
    episode = ENVIRONMENT.start(row())
    (message,) = episode.answer(parse_response("<tool_call>\nview shop.py\n</tool_call>", thinking=False))
    assert message["content"].startswith("Error: a tool call that is neither")
    (message,) = episode.answer(parse_response("<tool_call>\n<function=view>", thinking=False))
    assert message["content"] == "Error: a <tool_call> that is not closed"


GOLDEN = "def test_it():\n    assert 1 == 1\n"


def test_test_files_are_as_they_were_when_the_tests_run():
    files = {"shop.py": swe_rows.SOURCE, "tests/test_own.py": GOLDEN}
    episode = ENVIRONMENT.start(row(files=files))
    assert edit(episode, "", "import shop\nshop.double = lambda x: 2 * x\n", path="conftest.py") == "Done"
    assert edit(episode, "", "def double(x):\n    return 2 * x\n", path="test_shop.py") == "Done"
    assert edit(episode, "1 == 1", "True", path="tests/test_own.py") == "Done"
    assert call(episode, "run_tests").endswith("1 failed, 2 passed")
    verdict = episode.verdict()
    assert (verdict.reward, verdict.extracted) == (0, "")
    mend(episode)
    verdict = episode.verdict()
    assert verdict.reward == 1
    assert "test" not in verdict.extracted
    assert "conftest" not in verdict.extracted


HOSTILE = {
    "an infinite loop": "while True: pass",
    "an exit before the tests": "import os; os._exit(0)",
    "forged answers": "import os; os.write(3, b'40\\n' * 3); os.write(1, b'40\\n' * 3); os._exit(0)",
    "a patched runner": "import __main__, builtins; __main__.as_text = lambda v: '40'",
    "an own equality": "class Any(int):\n        __eq__ = lambda *a: True\n    return Any(0)",
    "a file outside": "open('/tmp/escaped', 'w').write('x')",
    "a link": "import os; os.symlink('/etc/passwd', 'shop.py')",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_code_in_the_checkout_earns_nothing_and_is_reported(kind):
    episode = ENVIRONMENT.start(row())
    assert edit(episode, "return x * 3", HOSTILE[kind]) == "Done"
    assert call(episode, "run_tests").startswith("FAILED ")
    assert episode.verdict().reward == 0


def test_code_written_for_the_tests_that_are_shown_fails_those_that_are_hidden():
    episode = ENVIRONMENT.start(row(shown_tests=["test_shop.py::test_double"]))
    assert edit(episode, "x * 3", "{20: 40}[x]") == "Done"
    assert call(episode, "run_tests") == "1 passed"
    verdict = episode.verdict()
    assert verdict.reward == 0
    assert verdict.reason.startswith("1 of 3 tests fail; test_shop.py::test_zero: raises KeyError")


def test_the_same_files_are_tested_once(monkeypatch):
    runs = []
    real = run_checks
    monkeypatch.setattr(
        "cascade.environments.swe_agentic.run_checks", lambda *arguments: runs.append(1) or real(*arguments)
    )
    episode = ENVIRONMENT.start(row())
    mend(episode)
    assert call(episode, "run_tests") == call(episode, "run_tests") == "3 passed"
    assert episode.verdict().reward == 1
    assert len(runs) == 1


def test_without_a_sandbox_nothing_is_decided(monkeypatch):
    def missing(*_arguments, **_settings):
        raise SandboxError("no namespaces")

    monkeypatch.setattr("cascade.environments.swe_agentless.checks.execute", missing)
    verdict = ENVIRONMENT.verify(row(), calls(("run_tests", {})))
    assert (verdict.reward, verdict.failure, verdict.reason) == (None, "sandbox", "no namespaces")


VALUES = [
    0,
    -1.5,
    True,
    None,
    "it's",
    [],
    [1, [2]],
    (),
    (1,),
    (1, "a"),
    set(),
    {3},
    frozenset({1}),
    {},
    {"a": (1, None)},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_shown_as_python_writes_them(value):
    assert as_python(runner.as_text(value)) == repr(value)


@pytest.mark.parametrize("forged", ["", "{", '{"tuple": 5}', '{"dict": [1]}', "[" * 5000, '{"set": [[1]]}'])
def test_forged_values_are_shown_somehow(forged):
    assert isinstance(as_python(forged), str)


def test_rows_of_other_forms_load_and_what_needs_a_container_is_said():
    source = swe_rows.swe_bench_row(files={"shop.py": swe_rows.SOURCE})
    ENVIRONMENT.check_row({**source, "responses_create_params": {"input": "Fix it.", "tools": TOOLS}})
    episode = ENVIRONMENT.start(source)
    assert call(episode, "run_tests") == "Error: the tests cannot run here"
    mend(episode)
    verdict = episode.verdict()
    assert (verdict.reward, verdict.failure) == (None, "no_tests")
    assert "+    return x * 2" in verdict.extracted


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"files": {}}, "no_files"),
        ({"files": {"../shop.py": ""}}, "bad_path"),
        ({"problem_statement": None}, "no_instance"),
        ({"tests": {"test_shop.py": ""}}, "bad_tests"),
        ({"shown_tests": ["test_shop.py::test_none"]}, "bad_tests"),
        ({"shown_tests": []}, "bad_tests"),
        ({"grade": "form"}, "bad_mode"),
        ({"responses_create_params": {"input": "Fix it.", "tools": [{"name": "bash"}]}}, "foreign_tools"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(change, code):
    with pytest.raises(RowError) as error:
        ENVIRONMENT.check_row(row() | change)
    assert error.value.code == code


def test_a_row_finds_its_environment_by_nemo_gyms_agent():
    assert environment_of({"agent_ref": {"type": "responses_api_agents", "name": "swe_agents"}}).name == "swe_agentic"
