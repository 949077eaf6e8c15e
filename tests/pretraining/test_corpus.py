import json
import re
from itertools import islice
from random import Random

import pytest

from cascade.chat import prompt_of
from cascade.environments.swe_agentless import repository
from cascade.environments.swe_agentless.diffs import parse_diff
from cascade.environments.swe_agentless.editing import place
from cascade.errors import CascadeError
from cascade.pretraining.corpus import GENERATORS
from cascade.pretraining.corpus.facts import in_words
from cascade.pretraining.corpus.tool_dialogues import Workspace

LEVELS = (1, 2, 3, 4, 5)
CHAT = ["swe_agentic"]


def sample(domain, count=60, seed=3):
    return [row for level in LEVELS for row in GENERATORS[domain](count, seed, level)]


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
        assert files == place(row["files"], parse_diff(row["patch"])).after
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
