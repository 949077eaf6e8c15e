"""From comparisons to rewards, each against values computed by hand."""

import pytest

from cascade.judges import Comparison, ranking


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (Comparison(4, 2, 1), (4, 2)),
        (Comparison(2, 4, 1), (2, 4)),  # unequal scores count as they are, whatever the ranking says
        (Comparison(3, 3, 3), (3.5, 2.5)),
        (Comparison(3, 3, 6), (0.5, 5.5)),
        (Comparison(5, 5, 3.5), (5, 5)),
    ],
)
def test_ties_are_broken_by_the_ranking(comparison, expected):
    assert ranking.scores(comparison) == expected


def test_the_mean_of_both_orders_takes_away_what_being_first_gains():
    assert ranking.both_orders(Comparison(4, 3, 2), Comparison(4, 3, 2)) == (3.5, 3.5)
    assert ranking.both_orders(Comparison(4, 2, 2), Comparison(3, 5, 6)) == (4.5, 2.5)
    assert ranking.both_orders(Comparison(3, 3, 3), Comparison(3, 3, 3)) == (3, 3)


def test_quality_is_the_mean_against_all_others():
    pairs = {(0, 1): (4, 2), (0, 2): (5, 1), (1, 2): (3, 3)}
    assert ranking.qualities([1, 1, 1], pairs) == [4.5, 2.5, 2.0]


def test_an_answer_given_twice_counts_twice_for_the_others():
    pairs = {(0, 1): (4, 2), (0, 2): (1, 5), (1, 2): (3, 3)}
    # 0: (2·4 + 1·1)/3; 1: (1·2 + 1·3)/2, its copy not among its opponents; 2: (1·5 + 2·3)/3.
    assert ranking.qualities([1, 2, 1], pairs) == [3.0, 2.5, pytest.approx(11 / 3)]


def test_with_nothing_to_compare_quality_is_neutral():
    assert ranking.qualities([4], {}) == [3.0]
    assert ranking.qualities([1], {}) == [3.0]
    assert ranking.qualities([], {}) == []


def test_half_of_the_comparisons_must_be_decided():
    # Of three: 0 has one decided of two others, 1 has one, 2 has none.
    assert ranking.qualities([1, 1, 1], {(0, 1): (4, 2)}) == [4.0, 2.0, None]
    # Of four: one decided of three others is too few.
    assert ranking.qualities([1, 1, 1, 1], {(0, 1): (4, 2)}) == [None] * 4
    assert ranking.qualities([1, 1], {}) == [None, None]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([10, 20, 30], [0.5, 0.0, -0.5]),
        ([0, 100], [0.5, -0.5]),
        ([7, 7, 7], [0, 0, 0]),
        ([1, 1, 1, 5], [0.25, 0.25, 0.25, -0.75]),
    ],
)
def test_shorter_weighs_more_and_the_weights_sum_to_zero(lengths, expected):
    assert ranking.length_weights(lengths) == pytest.approx(expected)


def test_reasoning_and_answer_adjust_by_half_a_weight_each():
    assert ranking.length_adjustments([10, 20, 30], [5, 5, 9]) == pytest.approx(
        [0.5 * 0.5 + 0.5 / 3, 0.5 * 0 + 0.5 / 3, -0.5 * 0.5 - 0.5 * 2 / 3]
    )


def test_only_the_best_fifth_has_a_bonus_for_being_short():
    quality = [5, 4, 3, 2, 1, 1, 1, 1, 1, 1]  # the best fifth: 5 and 4
    answers = [50, 40, 10, 60, 60, 60, 60, 60, 60, 60]
    assert ranking.conciseness_bonuses(quality, [0] * 10, answers) == [0] * 10, "the shortest is of middling quality"
    answers[2] = 70
    assert ranking.conciseness_bonuses(quality, [0] * 10, answers) == [0, 0.5, *[0] * 8]


def test_both_bonuses_can_come_together_and_emptiness_is_not_short():
    assert ranking.conciseness_bonuses([4, 2], [3, 9], [5, 8]) == [1.0, 0]
    assert ranking.conciseness_bonuses([4, 4], [0, 9], [5, 8]) == [0.5, 0.5]


def test_equal_responses_have_equal_bonuses():
    assert ranking.conciseness_bonuses([4, 4, 1], [3, 3, 9], [5, 5, 5]) == [1.0, 1.0, 0]


def test_rewards_span_zero_to_one_in_order():
    assert (ranking.LOWEST, ranking.HIGHEST) == (-2.5, 9.5)
    assert ranking.reward(-2.5) == 0
    assert ranking.reward(9.5) == 1
    assert ranking.reward(3.5) == pytest.approx(0.5)


@pytest.mark.parametrize(("x", "y", "z"), [(3.1, 3.2, 3.3), (1.1, 2.2, 3.3), (4.6, 3.7, 2.8)])
def test_answers_that_met_the_same_scores_in_another_order_are_equal(x, y, z):
    """Each of the four met x, y and z once."""
    pairs = {(0, 1): (x, x), (0, 2): (y, y), (0, 3): (z, z), (1, 2): (z, z), (1, 3): (y, y), (2, 3): (x, x)}
    assert len(set(ranking.qualities([1, 1, 1, 1], pairs))) == 1


def test_lengths_in_another_order_have_the_same_weights():
    lengths = [7, 13, 29, 31, 57]
    forward, backward = ranking.length_weights(lengths), ranking.length_weights(lengths[::-1])
    assert forward == backward[::-1]
