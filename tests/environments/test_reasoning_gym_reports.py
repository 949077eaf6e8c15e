"""Families whose library scorer pays for wrong answers, or refuses right ones: the right reward, and the library's."""

import json
from typing import Any

import pytest
import reasoning_gym

from cascade.chat import Response, Row
from cascade.environments.reasoning_gym import ENVIRONMENT, repairs


def library_row(family: str, index: int = 0, **config: Any) -> Row:
    """A row as a file holds it: through JSON."""
    entry = reasoning_gym.create_dataset(family, size=index + 1, seed=5, **config)[index]
    return json.loads(json.dumps({key: entry[key] for key in ("question", "answer", "metadata")}, default=str))


def row_of(family: str, answer: str, **metadata: Any) -> Row:
    return {"question": "?", "answer": answer, "metadata": {"source_dataset": family, **metadata}}


def reward(row: Row, answer: str, **fields: Any) -> float | None:
    return ENVIRONMENT.verify({**row, **fields}, Response(f"<answer>{answer}</answer>")).reward


def countdown(numbers: list[int], target: int, expression: str) -> Row:
    return row_of("countdown", expression, numbers=numbers, target=target, expression=expression)


FOUR = {"numbers": [4, 8, 6, 2]}
KNIGHTS = row_of("knights_knaves", "Ida is a knight, and Ole is a knave.")
CASES = [
    ("open-thought/reasoning-gym#478", countdown([1, 81, 1, 1], 81, "81*1*1*1"), "81*1", 0, 0.05),
    ("open-thought/reasoning-gym#478", countdown([3, 2, 2], 3, "3*2/2"), "3 + 2/2 - 0.5", 0, 0.05),
    ("open-thought/reasoning-gym#265", countdown([3, 2, 2], 3, "3*2/2"), "1+2", 0, 0.05),
    ("", countdown([3, 2, 2], 3, "3*2/2"), "2*3/2", 1, 1),
    ("", row_of("chain_sum", "5"), "15", 0, 0.5),
    ("", row_of("chain_sum", "5"), "5", 1, 1),
    ("", row_of("coin_flip", "0.3125"), "0", 0, 1),
    ("", row_of("coin_flip", "0.3125"), "0.3", 0, 1),
    ("", row_of("coin_flip", "0.3125"), "0.3125", 1, 1),
    ("", row_of("coin_flip", "0.3125"), "5/16", 1, 1),
    ("", row_of("coin_flip", "0.3125"), "0.31251", 1, 1),
    ("", row_of("coin_flip", "0.3125"), "1/0", 0, 0),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "4*8 - 6 - 2", 1, 1),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "8*4-(2+6)", 1, 1),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "4*6*1*1", 0, 1),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "4*8-6-2+0.5", 0, 0.01),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "4*8-6-6", 0, 0.01),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "24", 0, 0.01),
    ("", row_of("puzzle24", "4*8 - 6 - 2", **FOUR), "4*8-6-2*(1)", 0, 0.01),
    ("", row_of("puzzle24", "1", numbers=[5, 5, 5, 1]), "5*(5-1/5)", 1, 1),
    ("", row_of("game_of_life_halting", "True"), "True", 1, 1),
    ("", row_of("game_of_life_halting", "True"), "False", 0, 1),
    ("", row_of("game_of_life_halting", "False"), "false.", 1, 1),
    ("", row_of("game_of_life_halting", "False"), "x", 0, 1),
    ("", row_of("gsm_symbolic", "57"), "-57", 0, 1),
    ("", row_of("gsm_symbolic", "57"), "57", 1, 1),
    ("", row_of("gsm_symbolic", "57"), "$57.00", 1, 1),
    ("", row_of("gsm_symbolic", "1687.5"), "1,687.5", 1, 0.01),
    ("", row_of("gsm_symbolic", "57"), "57 or 58", 0, 1),
    ("", row_of("gsm_symbolic", "-57"), "-57", 1, 0.01),
    ("", row_of("complex_arithmetic", "1 + 2i", result=[1, 2]), "nan", 0, 1),
    ("", row_of("complex_arithmetic", "1 + 2i", result=[1, 2]), "1+2i", 1, 1),
    (
        "",
        row_of("knights_knaves", "Ida is a knight, and Ole is a knave."),
        "Ida is not a knight, and Ole is a knave",
        0,
        0.65,
    ),
    (
        "",
        row_of("knights_knaves", "Ida is a knight, and Ole is a knave."),
        "not Ida is a knight, and Ole is a knave",
        0,
        1,
    ),
    ("", KNIGHTS, "Ole is a knave, Ida is a knight", 1, 1),
]


@pytest.mark.parametrize(("report", "row", "answer", "right", "librarys"), CASES)
def test_an_answer(report: str, row: Row, answer: str, right: int, librarys: float) -> None:
    assert reward(row, answer) == right
    assert reward(row, answer, grading="gym") == pytest.approx(librarys, abs=1e-6)


@pytest.mark.parametrize("family", sorted(repairs.BOARDS))
def test_a_board_is_its_own_answer_after_json(family: str) -> None:
    row = library_row(family)
    ENVIRONMENT.check_row(row)
    assert reward(row, row["answer"]) == 1
    assert reward(row, row["answer"], grading="gym") == 0.05
    first, rest = row["answer"][0], row["answer"][1:]
    assert reward(row, ("1" if first != "1" else "2") + rest) == 0


REPAIRED = sorted({*repairs.SCORERS, *repairs.BOARDS, *repairs.NEGATIONS_LEFT_OUT, "complex_arithmetic"})


@pytest.mark.parametrize("family", REPAIRED)
def test_a_repaired_family_pays_for_its_answers_alone(family: str) -> None:
    rows = [library_row(family, index) for index in range(3)]
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        ENVIRONMENT.check_row(row)
        own = str(row["answer"])
        assert reward(row, own) == 1
        wrong = ["nan", "inf", "x", "-1", "[]", "not " + own, str(other["answer"])]
        wrong += [f"-{own}"] if own.replace(".", "").isdigit() and float(own) else []
        for answer in wrong:
            if answer != own:
                assert reward(row, answer) == 0, (family, own, answer)
