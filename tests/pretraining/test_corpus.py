import json
import re
from itertools import islice

import pytest

from cascade.errors import CascadeError
from cascade.pretraining.corpus import GENERATORS
from cascade.pretraining.corpus.facts import in_words

LEVELS = (1, 2, 3, 4, 5)


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


@pytest.mark.parametrize("domain", GENERATORS)
def test_no_hole_of_a_template_stays_open(domain):
    for row in sample(domain, 40):
        assert not re.search(r"\{[a-zA-Z_0-9]*\}", row["text"])


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
            words |= {word.lower() for word in re.findall(r"[A-Za-z]+", row["text"])}
    assert len(words) < 1700


def test_generators_are_lazy():
    assert len(list(islice(GENERATORS["text"](10**9, 0, 5), 2))) == 2
