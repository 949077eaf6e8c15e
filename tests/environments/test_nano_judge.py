"""The nano judge: what it prefers, by hand; that it is symmetric, and does not guess."""

import time
from itertools import permutations

import pytest

from cascade.environments.human_preference import NANO
from cascade.environments.human_preference.judge import read_reply, understand

COOK = [{"role": "user", "content": "Hi. What can I cook with rice? I am very tired. Thank you!"}]
MORE = [
    {"role": "user", "content": "What can I cook with rice?"},
    {"role": "assistant", "content": "Rice is a good start. Serve the rice warm. Cook it slowly for ten minutes."},
    {"role": "user", "content": "What else?"},
]
OPENING, TIRED = "Rice is a good start.", "You are tired, so take it slowly."
OIL, HERBS = "Heat the rice with a little oil.", "Add salt and some fresh herbs."


def worth(*said: str, messages=COOK) -> float:
    request = understand(messages)
    assert request is not None
    return read_reply(request, " ".join(said)).score


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # 1 + 4 · (1 − idle share) · (0.8 · (0.75 · ideas / 2 + 0.125 · courtesies) + 0.2 · condition heard)
        ((OPENING, OIL, HERBS, TIRED, "Good luck!"), 5.0),
        ((OPENING, OIL, HERBS, TIRED), 1 + 4 * 0.9),
        ((OIL, HERBS, TIRED, "Good luck!"), 1 + 4 * 0.9),
        ((OIL, HERBS, TIRED, "Good luck!", "Have a nice day!"), 1 + 4 * 0.9),
        ((OIL, HERBS, TIRED), 1 + 4 * 0.8),
        ((OPENING, OIL, HERBS), 1 + 4 * 0.7),
        ((OPENING, OIL, TIRED), 1 + 4 * (0.8 * 0.5 + 0.2)),
        ((OPENING, OIL, OIL, HERBS, TIRED), 1 + 4 * 0.8 * 0.9),  # one sentence of five says nothing new
        ((OPENING, OIL, HERBS, TIRED, "It is what it is, as people say."), 1 + 4 * 0.8 * 0.9),
        ((OPENING, "Heat the soup with a little oil.", HERBS, TIRED), 1 + 4 * 0.75 * (0.8 * 0.5 + 0.2)),
        (("Heat the rice.",), 1 + 4 * 0.8 * 0.75 * 0.125),
        ((TIRED,), 1 + 4 * 0.2),
        (("You are new at this, so start small.",), 1.0),  # nobody said so
        (("Go to bed at the same hour every night.", "Keep the room dark and cool."), 1.0),
        (("oil herbs salt rice dinner",), 1.0),
        ((OPENING, OIL, HERBS, TIRED, "You are stupid."), 1.0),
        (("",), 1.0),
    ],
)
def test_a_reply_is_worth_its_ideas_its_courtesy_and_its_attention_less_what_says_nothing(said, expected):
    assert worth(*said) == pytest.approx(expected)


def test_a_follow_up_wants_one_idea_that_was_not_said_before():
    assert worth("Of course!", OIL, "Good luck!", messages=MORE) == 5.0
    assert worth("Of course!", OIL, messages=MORE) == 4.5
    assert worth("Of course!", OIL, HERBS, messages=MORE) == 4.5
    assert worth(OIL, messages=MORE) == 4.0
    assert worth("Of course!", "Serve the rice warm.", messages=MORE) == 1 + 4 * 0.5 * 0.125


def test_the_details_of_the_user_must_be_right_and_others_are_free():
    invite = [{"role": "user", "content": "How do I ask Anna to come on Friday?"}]
    assert worth("Dear Anna, please come to my party on Friday!", messages=invite) == 1 + 4 * 0.375
    assert worth("Dear Eva, please come to my party on Friday!", messages=invite) == 1.0
    assert worth("Dear Anna, please come to my party on Sunday!", messages=invite) == 1.0
    assert worth("There will be pizza and music.", messages=invite) == 1 + 4 * 0.375
    assert worth("There will be bricks and music.", messages=invite) == 1.0


def test_exchanging_the_responses_exchanges_the_verdict():
    replies = [OPENING, OIL, f"{OPENING} {OIL}", f"{OIL} {HERBS} {TIRED}", "You fool.", "gibberish"]
    for first, second in permutations(replies, 2):
        one, other = NANO.compare(COOK, [(first, second), (second, first)])
        assert (one.score_1, one.score_2) == (other.score_2, other.score_1)
        assert one.ranking + other.ranking == pytest.approx(7)
        assert 1 <= one.ranking <= 6
    assert NANO.compare(COOK, [(OIL, OIL)])[0].ranking == 3.5


def test_the_nano_judge_does_not_guess_about_requests_it_does_not_know():
    for messages in (
        [{"role": "user", "content": 'What is "SKILL"?'}],
        [*MORE[:2], {"role": "user", "content": "Translate it into French."}],
        MORE[:2],
    ):
        found = NANO.compare(messages, [("a", "b"), ("b", "a")])
        assert [error.code for error in found] == ["unknown_request"] * 2


@pytest.mark.parametrize("text", ["a. " * 50_000, ".!?" * 50_000, "x" * 200_000, f"{OIL} " * 5_000, "\x00\ud800"])
def test_long_and_hostile_replies_are_read_in_no_time(text):
    began = time.process_time()
    assert worth(text) < 3
    assert time.process_time() - began < 1
