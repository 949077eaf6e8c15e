"""Answers on which IFEval's checkers were reported to be wrong, with our verdict, theirs and the report."""

from typing import Any

import pytest

from cascade.chat import Response, Row
from cascade.environments.instruction_following import ENVIRONMENT

BULLETS, HIGHLIGHTS = "detectable_format:number_bullet_lists", "detectable_format:number_highlighted_sections"
END, JSON = "startend:end_checker", "detectable_format:json_format"


def reward(name: str, kwargs: dict[str, Any], text: str, **fields: Any) -> float | None:
    row: Row = {
        "responses_create_params": {"input": "?"}, "instruction_id_list": [name], "kwargs": [kwargs], **fields
    }  # fmt: skip
    ENVIRONMENT.check_row(row)
    return ENVIRONMENT.verify(row, Response(text)).reward


CASES = [
    ("allenai/open-instruct#1765", BULLETS, 2, "- oak\n- pine\n\n---\n\nThat is all.", 1, 0),
    ("allenai/open-instruct#1765", BULLETS, 2, "* oak\n* pine\n\n*Note* that there are more.", 1, 0),
    ("allenai/open-instruct#1765", BULLETS, 2, "- oak\n- pine\n\n-5 degrees is too cold for a palm.", 1, 0),
    ("", BULLETS, 2, "* oak\n* pine\n\n* * *\n\nDone", 1, 0),
    ("", BULLETS, 2, "- oak\n- pine", 1, 1),
    ("", BULLETS, 2, "* **oak**: a tree\n* *pine*", 1, 1),
    ("", BULLETS, 2, "  - oak\n    * pine", 1, 1),
    ("", BULLETS, 2, "+ oak\n+ pine", 1, 0),
    ("", BULLETS, 2, "- oak\n- pine\n- elm", 0, 0),
    ("", BULLETS, 1, "--- \n- oak", 1, 0),
    ("", BULLETS, 2, "- oak\n-- pine", 0, 1),
    ("", BULLETS, 1, "-\n- oak", 1, 0),
    ("", HIGHLIGHTS, 1, "That is *it*.", 1, 1),
    ("", HIGHLIGHTS, 2, "That is *it*, **really**.", 1, 1),
    ("", HIGHLIGHTS, 2, "***both at once***", 0, 1),
    ("", HIGHLIGHTS, 1, "***both at once***", 1, 1),
    ("", HIGHLIGHTS, 1, "2 * 3 * 4 = 24", 0, 1),
    ("", HIGHLIGHTS, 1, "2*3*4 = 24", 0, 1),
    ("", HIGHLIGHTS, 2, "* a *b* c", 0, 0),
    ("", HIGHLIGHTS, 1, "* a *b* c", 1, 1),
    ("", HIGHLIGHTS, 1, "* item with a star*", 0, 1),
    ("", HIGHLIGHTS, 1, "\\*not\\* here", 0, 1),
    ("", HIGHLIGHTS, 1, "** **", 0, 0),
    ("", HIGHLIGHTS, 2, "(*a*) *b*", 1, 1),
    ("", HIGHLIGHTS, 1, "none", 0, 0),
    ("", END, "That is all.", "So be it. That is all.", 1, 1),
    ("", END, "That is all.", '"So be it. That is all."', 1, 1),
    ("", END, "That is all.", "So be it. **That is all.**", 1, 0),
    ("", END, "That is all.", "So be it. \u201cThat is all.\u201d", 1, 0),
    ("", END, 'He said "yes"', 'Well. He said "yes"', 1, 0),
    ("", END, "done", "It is left undone", 0, 1),
    ("", END, "done", "It is done", 1, 1),
    ("", END, "done", "done", 1, 1),
    ("", END, "done", "done, I think", 0, 0),
    ("comet-ml/opik#8455", JSON, None, '{"score": NaN}', 0, 1),
    ("comet-ml/opik#8455", JSON, None, "[1, Infinity]", 0, 1),
    ("", JSON, None, '```json\n{"score": -Infinity}\n```', 0, 1),
    ("", JSON, None, '```json\n{"score": 1}\n```', 1, 1),
    ("", JSON, None, '{"score": "NaN"}', 1, 1),
]
ARGUMENT = {BULLETS: "num_bullets", HIGHLIGHTS: "num_highlights", END: "end_phrase"}


@pytest.mark.parametrize(("report", "name", "argument", "text", "right", "gyms"), CASES)
def test_a_constraint(report: str, name: str, argument: Any, text: str, right: int, gyms: int) -> None:
    kwargs = {ARGUMENT[name]: argument} if name in ARGUMENT else {}
    assert reward(name, kwargs, text) == right
    assert reward(name, kwargs, text, grading="gym") == gyms
