import json
import re
import sys
from itertools import islice
from random import Random

import pytest

from cascade.chat import prompt_of
from cascade.errors import CascadeError
from cascade.pretraining.corpus import GENERATORS, edits, repository
from cascade.pretraining.corpus.facts import in_words
from cascade.pretraining.corpus.tool_dialogues import Workspace

LEVELS = (1, 2, 3, 4, 5)
CHAT = ["swe_agentless", "swe_agentic", "long_context", "chat"]


def sample(domain, count=60, seed=3):
    return [row for level in LEVELS for row in GENERATORS[domain](count, seed, level)]


def run_pytest_files(files, tests, tmp_path, monkeypatch):
    """The test functions run as Python would run them: real imports from a real folder."""
    monkeypatch.syspath_prepend(tmp_path)
    for path, source in {**files, **tests}.items():
        (tmp_path / path).write_text(source)
    results = {}
    for path in tests:
        for module in [name[:-3] for name in (*files, *tests)]:
            sys.modules.pop(module, None)
        namespace = {}
        exec((tmp_path / path).read_text(), namespace)
        for name, test in namespace.items():
            if name.startswith("test_"):
                try:
                    test()
                    results[f"{path}::{name}"] = True
                except Exception:
                    results[f"{path}::{name}"] = False
    for module in [name[:-3] for name in (*files, *tests)]:
        sys.modules.pop(module, None)
    return results


@pytest.mark.parametrize("domain", GENERATORS)
def test_same_seed_same_rows_and_a_larger_count_only_appends(domain):
    for level in LEVELS:
        few, many = list(GENERATORS[domain](5, 7, level)), list(GENERATORS[domain](9, 7, level))
        assert many[:5] == few
        assert list(GENERATORS[domain](5, 8, level)) != few
        assert len({row["id"] for row in many}) == 9
        assert json.loads(json.dumps(many)) == many


@pytest.mark.parametrize("domain", GENERATORS)
@pytest.mark.parametrize("level", [0, 6])
def test_a_level_that_does_not_exist_is_refused_in_one_line(domain, level):
    with pytest.raises(CascadeError, match=r"choose 1 to 5"):
        GENERATORS[domain](1, 0, level)


@pytest.mark.parametrize("domain", CHAT)
def test_rows_are_gym_rows_with_an_answer(domain):
    for row in sample(domain, 20):
        messages, _ = prompt_of(row)
        assert messages[-1]["role"] == "user"
        assert messages[-1]["content"]
        assert row["domain"] == domain
        if domain == "swe_agentic":
            assert row["messages"][: len(messages)] == messages
        else:
            assert row["demonstration"]["reasoning"]
            assert row["demonstration"]["content"]


@pytest.mark.parametrize("domain", GENERATORS)
def test_no_hole_of_a_template_stays_open(domain):
    for row in sample(domain, 40):
        shown = json.dumps(row.get("messages") or row.get("demonstration") or row["text"])
        assert not re.search(r"\{[a-zA-Z_0-9]*\}", re.sub(r'"arguments": \{\}', "", shown))


def test_edit_demonstrations_apply_and_turn_exactly_the_failing_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for number, row in enumerate(sample("swe_agentless", 12)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert row["FAIL_TO_PASS"]
        before = run_pytest_files(row["files"], row["tests"], folder, monkeypatch)
        assert {name for name, passed in before.items() if not passed} == set(row["FAIL_TO_PASS"])
        assert {name for name, passed in before.items() if passed} == set(row["PASS_TO_PASS"])
        fixed = edits.apply_blocks(row["files"], row["demonstration"]["content"])
        assert all(run_pytest_files(fixed, row["tests"], folder, monkeypatch).values())


def test_edit_bugs_are_of_many_kinds():
    assert len({row["bug"] for row in sample("swe_agentless")}) >= 7


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "return a + b",
        edits.render_block("other.py", "    return a - b", "    return a + b"),
        edits.render_block("shop.py", "    return a * b", "    return a + b"),
        edits.render_block("shop.py", "return", "return 1"),
        edits.render_block("shop.py", "", "x = 1"),
    ],
)
def test_edits_that_do_not_apply_are_none(answer):
    files = {"shop.py": "def f(a, b):\n    return a - b\n\n\ndef g(a):\n    return a\n"}
    assert edits.apply_blocks(files, answer) is None


def test_an_edit_changes_the_one_place():
    files = {"shop.py": "def f(a, b):\n    return a - b\n"}
    block = edits.render_block("shop.py", "    return a - b", "    return a + b")
    assert edits.apply_blocks(files, block) == {"shop.py": "def f(a, b):\n    return a + b\n"}
    gone = edits.render_block("shop.py", "    return a - b", "")
    assert edits.apply_blocks(files, f"I fix it:\n{gone}") == {"shop.py": "def f(a, b):\n\n"}


def test_run_reports_wrong_values_types_and_exceptions():
    files = {"m.py": "def f(x):\n    return x[0]\n"}
    case = repository.Case
    cases = [
        case("a", "m", "f", ([1],), 1),
        case("b", "m", "f", ([2],), 1),
        case("c", "m", "f", ([],), 1),
        case("d", "m", "f", ([True],), 1),
    ]
    assert repository.run(files, cases) == {"a": "", "b": "returns 2", "c": "raises IndexError", "d": "returns True"}


def test_episodes_replay_to_the_same_results_and_end_with_a_fix():
    lengths, retried = [], 0
    for row in sample("swe_agentic", 30):
        turns = row["messages"][1:]
        assert [turn["role"] for turn in turns] == ["assistant", "tool"] * (len(turns) // 2)
        files = dict(row["files"])
        names = []
        for call_turn, result in zip(turns[::2], turns[1::2], strict=True):
            assert call_turn["reasoning_content"]
            call = call_turn["tool_calls"][0]["function"]
            names.append(call["name"])
            arguments = call["arguments"]
            if call["name"] == "edit":
                files = repository.apply_edit(files, arguments["path"], arguments["search"], arguments["replace"])
            elif call["name"] == "view":
                assert result["content"] == files[arguments["path"]].rstrip()
            elif call["name"] == "list_files":
                assert result["content"].split("\n") == list(files)
        assert names[-1] == "submit"
        patch = row["patch"]
        assert files == repository.apply_edit(row["files"], patch["path"], patch["search"], patch["replace"])
        lengths.append(len(names))
        retried += names.count("edit") > 1
    assert min(lengths) == 3
    assert max(lengths) <= 9
    assert sum(lengths) / len(lengths) < 6
    assert retried


def test_tools_answer_bad_calls_with_an_error():
    workspace = Workspace(repository.draw(Random(1), 1))
    assert workspace.call("view", {"path": "none.py"}) == "Error: no file none.py"
    assert workspace.call("edit", {"path": "none.py", "search": "a", "replace": "b"}).startswith("Error")
    assert workspace.call("search", {"text": "zzz"}) == "Nothing found"
    assert workspace.call("fly", {}) == "Error: no tool fly"
    assert "failed" in workspace.call("run_tests", {})
    assert not workspace.submitted
    workspace.call("submit", {})
    assert workspace.submitted


def test_long_documents_hold_their_needles_and_the_answer_follows():
    kinds = set()
    for row in sample("long_context", 60):
        document = row["responses_create_params"]["input"][0]["content"]
        needles, answer, kind = row["needles"], row["expected_answer"], row["question_type"]
        kinds.add(kind)
        positions = [document.index(needle) for needle in needles]
        assert all(needle in row["demonstration"]["reasoning"] for needle in needles)
        numbers = [int(n) for n in re.findall(r"\d+", " ".join(needles))]
        if kind == "sum":
            assert int(answer) == sum(numbers)
        elif kind == "count":
            assert int(answer) == len(needles)
        elif kind == "list":
            assert len(re.split(", | and ", answer)) == len(needles)
            assert positions == sorted(positions)
        elif kind == "compare":
            asks_older = "older" in document
            assert answer in needles[numbers.index(max(numbers) if asks_older else min(numbers))]
        elif kind == "needles":
            assert [part in needle for part, needle in zip(answer.split(" and "), needles, strict=True)] == [True, True]
        else:
            assert answer in needles[-1]
        if kind == "change":
            assert positions[0] < positions[1]
    assert kinds == {"needle", "needles", "count", "list", "sum", "compare", "chain", "change"}


def test_counts_and_lists_miss_nobody_in_the_document():
    shown = {"city": r"(?:lives in|has a house in) {}\.|The home of \w+ is in {}\."}
    checked = 0
    for row in GENERATORS["long_context"](400, 5, 4):
        document = row["responses_create_params"]["input"][0]["content"]
        match = re.search(r"How many people live in (\w+)\?", document)
        if match:
            checked += 1
            found = re.findall(shown["city"].replace("{}", match[1]), document)
            assert len(found) == int(row["expected_answer"])
    assert checked


def test_documents_grow_with_the_level():
    means = []
    for level in LEVELS:
        texts = [
            row["responses_create_params"]["input"][0]["content"] for row in GENERATORS["long_context"](30, 0, level)
        ]
        means.append(sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts) / 30)
    assert means == sorted(means)
    assert 90 < means[0] < 180
    assert 700 < means[-1] < 1000


def test_conversation_marks_its_quality():
    rows = sample("chat", 150)
    by_quality = {}
    for row in rows:
        by_quality.setdefault(row["quality"], []).append(row)
    assert set(by_quality) == {"good", "curt", "padded", "offtopic"}
    assert 0.4 < len(by_quality["good"]) / len(rows) < 0.75
    assert all(row["demonstration"]["content"] == row["reference"] for row in by_quality["good"])

    def mean_length(quality):
        return sum(len(row["demonstration"]["content"]) for row in by_quality[quality]) / len(by_quality[quality])

    assert mean_length("curt") < mean_length("good") < mean_length("padded")
    assert all(row["demonstration"]["content"] != row["reference"] for row in by_quality["offtopic"])


def test_arithmetic_in_the_facts_is_right():
    checked = 0
    for row in sample("text", 200):
        for left, sign, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", row["text"]):
            checked += 1
            x, y = int(left), int(right)
            assert {"+": x + y, "-": x - y, "*": x * y, "/": x // max(y, 1)}[sign] == int(result)
        for large, small in re.findall(r"(\d+) > (\d+)", row["text"]):
            assert int(large) > int(small)
        for word, letters in re.findall(r"(\w+) is spelt ([\w-]+)", row["text"]):
            assert letters.replace("-", "") == word.lower()
    assert checked > 50


def test_number_words():
    expected = {0: "zero", 13: "thirteen", 20: "twenty", 42: "forty two", 300: "three hundred"}
    assert {number: in_words(number) for number in expected} == expected
    assert in_words(715) == "seven hundred and fifteen"


def test_the_vocabulary_stays_small():
    words = set()
    for domain in GENERATORS:
        for row in sample(domain, 100):
            asked = row.get("text") or row["responses_create_params"]["input"]
            shown = json.dumps([asked, row.get("messages"), row.get("demonstration")])
            words |= {word.lower() for word in re.findall(r"[A-Za-z]+", re.sub(r"\\n", " ", shown))}
    assert len(words) < 1700


def test_generators_are_lazy():
    assert len(list(islice(GENERATORS["swe_agentic"](10**9, 0, 5), 2))) == 2
