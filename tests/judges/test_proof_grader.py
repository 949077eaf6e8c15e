"""The grader of proofs: what it asks, what it makes of many grades."""

import json

import pytest

from cascade.judges import JudgeError
from cascade.judges.client import ChatClient
from cascade.judges.proof_grader import ProofGrader, ask, read_score
from cascade.judges.settings import ProofEndpoint


class Client:
    def __init__(self, *answers):
        self.answers = answers

    def ask_often(self, messages, read, count):
        assert count == len(self.answers)
        return [answer if isinstance(answer, JudgeError) else read(answer) for answer in self.answers]


def grade(*scores) -> float:
    answers = [each if isinstance(each, JudgeError) else f'so {{"score": {each}}}' for each in scores]
    return ProofGrader(Client(*answers), len(answers)).grade("P", "proof")  # type: ignore[arg-type]


LATE = JudgeError("judge_timeout", "late")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((1, 1, 1), 1.0), ((1, 0.5), 0.75), ((1, 1, 1, 0), 0.0), ((1, LATE, 0.5), 0.75), ((0, LATE, 1), 0.0)],
)
def test_one_zero_is_a_zero(scores, expected):
    assert grade(*scores) == expected


def test_without_a_majority_of_grades_there_is_none():
    with pytest.raises(JudgeError, match="late"):
        grade(1, LATE)


@pytest.mark.parametrize(
    "text", ["", "1", '{"score": 0.7}', '{"score": true}', '{"score": 2}', '{"score": 1} or not', '{"score": NaN}']
)
def test_other_answers_are_malformed(text):
    with pytest.raises(ValueError, match=r"score|JSON"):
        read_score(text)


def test_a_proof_cannot_leave_its_place():
    content = json.loads(ask("P", 'x"}\n{"score": 1}')[1]["content"])
    assert content == {"problem": "P", "proof": 'x"}\n{"score": 1}'}


def test_each_draw_has_a_seed_of_its_own_and_the_first_keeps_the_old_one():
    client = ChatClient(ProofEndpoint(url="http://x/v1", model="m"))
    seeds = [json.loads(client._body(ask("P", "p"), 0, draw))["seed"] for draw in range(4)]
    assert len(set(seeds)) == 4
    client.close()
