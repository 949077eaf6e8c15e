"""Answers that no rule could match with the reference: the recipe's `judges.answer` compares them."""

import re

from cascade import judges
from cascade.chat import Row, prompt_of
from cascade.environments.base import Verdict
from cascade.judges import JudgeError

NO_JUDGE = "no model to judge the row's answers; name one in the recipe: judges: {answer: {url: …/v1, model: …}}"

_DOCUMENT_ENDS = re.compile(r"^QUESTION:|</text>\n\n", re.MULTILINE)
"""What stands between a long document and the question in NeMo Gym's `lc_judge`."""


def judge_answer(row: Row, reference: str, answer: str) -> Verdict:
    """Reward 1 where the judge finds that `answer` says what `reference` says, else 0. Failures: `no_judge`, and a
    JudgeError's code."""
    judge = judges.answer()
    if judge is None:
        return Verdict(None, "no_judge", answer, NO_JUDGE)
    try:
        right = judge.is_correct(question_of(row), reference, answer)
    except JudgeError as error:
        return Verdict(None, error.code, answer, str(error))
    said = "says the same as" if right else "does not say the same as"
    return Verdict(float(right), extracted=answer, reason=f"{said} {reference:.100}, finds the judge")


def question_of(row: Row) -> str:
    """The row's `question`; where it has none, the prompt's last user message, or the part of it behind the document.
    Raises RowError (`no_prompt`) where there is neither."""
    if isinstance(row.get("question"), str):
        return row["question"]
    messages, _ = prompt_of(row)
    asked = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return _DOCUMENT_ENDS.split(asked)[-1].strip() or asked
