"""From matrices made by hand to orders: each of the recipe's three rules, ties, conflicts, and no effect at all."""

import itertools
import random

import pytest

from cascade.commands.interference.order import MOST_DOMAINS, Harms, judge, suggest


def test_without_any_harm_all_domains_are_trained_together() -> None:
    assert suggest({}, ["a", "b", "c"]) == [["a", "b", "c"]]
    left = judge({}, [["a", "b", "c"]])
    assert (left.unrepaired, left.together, left.distil_after, left.lost) == ({}, [], None, 0)


def test_what_hurts_another_goes_before_it_whatever_the_default() -> None:
    harms = {"instruction_following": {"human_preference": 0.1}}
    assert suggest(harms, ["human_preference", "instruction_following"]) == [
        ["instruction_following"],
        ["human_preference"],
    ]


def test_a_chain_of_harms_is_followed() -> None:
    assert suggest({"c": {"b": 0.1}, "b": {"a": 0.1}}, ["a", "b", "c"]) == [["c"], ["b"], ["a"]]


def test_where_two_hurt_each_other_the_smaller_harm_stays() -> None:
    harms = {"a": {"b": 0.05}, "b": {"a": 0.2}}
    stages = suggest(harms, ["a", "b"])
    assert stages == [["b"], ["a"]]
    left = judge(harms, stages)
    assert left.unrepaired == {("a", "b"): 0.05}
    assert left.distil_after == 1


def test_of_equal_harms_the_default_order_decides() -> None:
    harms = {"a": {"b": 0.1}, "b": {"a": 0.1}}
    assert suggest(harms, ["a", "b"]) == [["a"], ["b"]]
    assert suggest(harms, ["b", "a"]) == [["b"], ["a"]]


def test_what_does_not_conflict_shares_the_earliest_stage() -> None:
    harms = {"if": {"tools": 0.1}}
    assert suggest(harms, ["if", "mcqa", "tools", "json"]) == [["if", "mcqa", "json"], ["tools"]]


def test_a_cycle_of_three_leaves_its_smallest_harm() -> None:
    harms = {"a": {"b": 0.3}, "b": {"c": 0.2}, "c": {"a": 0.1}}
    stages = suggest(harms, ["c", "b", "a"])
    assert stages == [["a"], ["b"], ["c"]]
    assert judge(harms, stages).unrepaired == {("c", "a"): 0.1}


def test_harm_to_what_no_stage_trains_asks_for_a_distillation_after_its_last_cause() -> None:
    harms = {"a": {"maths": 0.1}, "b": {"a": 0.2}}
    left = judge(harms, [["a"], ["b"], ["c"]])
    assert left.unrepaired == {("a", "maths"): 0.1, ("b", "a"): 0.2}
    assert left.lost == pytest.approx(0.3)
    assert left.distil_after == 1
    assert judge(harms, [["b"], ["a"], ["c"]]).unrepaired == {("a", "maths"): 0.1}


def test_conflicting_domains_in_one_stage_are_told() -> None:
    left = judge({"a": {"b": 0.1}}, [["a", "b"]])
    assert left.together == [("a", "b")]
    assert left.unrepaired == {}


def test_a_domains_effect_on_itself_is_no_interference() -> None:
    harms = {"a": {"a": 0.5}}
    assert suggest(harms, ["a", "b"]) == [["a", "b"]]
    assert judge(harms, [["a", "b"]]).unrepaired == {}


def test_the_order_is_the_best_of_all() -> None:
    draw = random.Random(0)
    for _ in range(30):
        domains = list("abcde")
        harms: Harms = {}
        for trained, hurt in itertools.permutations(domains, 2):
            if draw.random() < 0.5:
                harms.setdefault(trained, {})[hurt] = draw.choice([0.05, 0.1, 0.2])
        stages = suggest(harms, domains)
        assert sorted(itertools.chain(*stages)) == domains
        best = min(judge(harms, [[d] for d in order]).lost for order in itertools.permutations(domains))
        assert judge(harms, stages).lost == pytest.approx(best)
        assert judge(harms, stages).together == []


def test_too_many_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        suggest({}, [str(i) for i in range(MOST_DOMAINS + 1)])
