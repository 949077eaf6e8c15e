"""How disagreements with other projects' verifiers are classified: by rules that apply, and never away by default."""

import sys

import pytest

from benchmarks.agreement import peers
from benchmarks.agreement.__main__ import compared
from benchmarks.agreement.case import Case
from benchmarks.agreement.domains import choices, documents, maths
from benchmarks.agreement.rules import RULES, Disagreement, classify
from cascade.chat import Response, ToolCall
from cascade.environments.base import Verdict


def disagreement(peer, environment, ours, theirs, right=None, row=None, response=None, origin="", asks=None):
    case = Case(environment, row or {}, response or Response("x"), origin, right, asks or {})
    return Disagreement(peer, case, ours, theirs)


def test_what_nothing_explains_is_ours():
    found = disagreement("nemo-gym", "structured_output", 1.0, 0.0)
    assert classify(found) == ("ours_wrong", "unexplained")


@pytest.mark.parametrize(("ours", "theirs", "kind"), [(1.0, 0.0, "theirs_wrong"), (0.0, 1.0, "ours_wrong")])
def test_an_answer_that_was_built_right_decides(ours, theirs, kind):
    assert classify(disagreement("nemo-gym", "mcqa", ours, theirs, right=True)) == (kind, "built so")


def test_no_rule_says_that_they_are_wrong_about_what_was_built_their_way():
    row = {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["C++"]}]}
    built = disagreement("lm-eval", "instruction_following", 0.0, 1.0, right=True, row=row)
    assert classify(built) == ("ours_wrong", "built so")
    free = disagreement("lm-eval", "instruction_following", 0.0, 1.0, row=row)
    assert classify(free) == ("theirs_wrong", "a keyword read as a pattern")


def test_a_rule_holds_for_its_peer_and_environment_alone():
    box = Response(r"\boxed{1}, \boxed{2}")
    assert classify(disagreement("nemo-gym", "math", 0.0, 1.0, response=box)) == ("rule", "several boxes")
    assert classify(disagreement("nemo-gym", "mcqa", 0.0, 1.0, response=box))[0] == "ours_wrong"
    assert classify(disagreement("nemo-gym", "math", 0.0, 1.0, response=Response(r"\boxed{1}")))[0] == "ours_wrong"


@pytest.mark.parametrize(
    ("value", "name"),
    [(10.0, "a whole float for an integer"), ("new york", None), ("New York N.Y.", None)],
)
def test_calls_that_are_equal_but_for_what_a_rule_lets_differ(value, name):
    row = {"ground_truth": [{"name": "f", "arguments": '{"a": 10}'}]}
    response = Response("", tool_calls=(ToolCall("f", {"a": value}),))
    asks = {"bfcl-eval": {"possible": [{"f": {"a": [10]}}]}}
    found = disagreement("bfcl-eval", "tool_calling", 1.0, 0.0, row=row, response=response, asks=asks)
    assert classify(found) == (("rule", name) if name else ("ours_wrong", "unexplained"))


def test_every_rule_says_why():
    assert all(rule.why and rule.name for rule in RULES)
    assert len({(rule.peer, rule.environment, rule.name) for rule in RULES}) == len(RULES)


def test_the_table_counts_each_response_once():
    case = Case("mcqa", {}, Response("x"), "", True, {})
    judged = [
        (case, Verdict(1.0), {"reward": 1.0}),
        (case, Verdict(0.0), {"reward": 0.0}),
        (case, Verdict(1.0), {"reward": 0.0}),
        (case, Verdict(0.0), {"reward": 1.0}),
        (case, Verdict(None, "timeout"), {"reward": 1.0}),
        (case, Verdict(1.0), {"error": "ValueError: no"}),
    ]
    found = compared("nemo-gym", judged, [])
    counts = [found[key] for key in ("compared", "equal", "ours_wrong", "theirs_wrong", "rule", "both_wrong")]
    assert counts == [4, 2, 1, 1, 0, 1]
    assert found["not_compared"] == {"ours: timeout": 1, "theirs: ValueError: no": 1}


def test_a_peer_is_asked_line_by_line_and_one_that_dies_answers_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "WORKERS", tmp_path)
    (tmp_path / "lines.py").write_text((peers.Path(peers.__file__).parent / "workers" / "lines.py").read_text())
    (tmp_path / "worker.py").write_text(
        "from lines import answer\nimport os\nprint('noise')\n"
        "def judge(x):\n    if x == 9:\n        os._exit(1)\n    return 1 / x\n"
        "answer(judge)\n"
    )
    peer = peers.Peer("p", "1", "worker", ())
    replies = peers.ask(peer, peers.Path(sys.executable), [{"x": 2}, {"x": 0}, {"x": 9}, {"x": 1}])
    assert replies[:2] == [{"reward": 0.5}, {"error": "ZeroDivisionError: division by zero"}]
    assert all("no answer" in reply["error"] for reply in replies[2:])


def test_forms_are_what_they_say():
    options = {"A": "cat", "B": "dog"}
    assert choices._filled(r"\boxed{L: T}", "B", "A", options) == r"\boxed{B: dog}"
    assert choices._filled("Answer: L, since M is wrong", "A", "B", options) == "Answer: A, since B is wrong"
    assert documents.WRITERS["xml"]({"tags": ["a"], "n": True}) == "<root><tags><item>a</item></tags><n>true</n></root>"
    assert documents.WRITERS["csv"]([{"a": 1, "b": "x,y"}]) == 'a,b\n1,"x,y"\n'
    assert all(right and not set(right) & set(wrong) for _, right, wrong in maths.FORMS)
