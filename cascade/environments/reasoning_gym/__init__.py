"""Procedural reasoning tasks, scored by the library reasoning-gym's own functions (NeMo Gym's `reasoning_gym`).

A row holds `question`, `answer` and `metadata`; `metadata.source_dataset` names the task family, whose scorer
judges; `repairs` takes its place where it pays for wrong answers. What is not wholly right has reward 0: the library's
partial credit is for form (0.05 for any countdown) or for likeness (half of it for 15 in place of 5). Rows with
`grading: gym` have the library's own score. The answer is read as NeMo Gym reads it: the last
<answer>…</answer>, else the first \\boxed{…}, else the whole response; here braces inside the box are balanced.
"""

import warnings
from collections.abc import Iterator
from typing import Any

with warnings.catch_warnings():
    # Of cellpylib, where Python has no bytecode of it yet, or keeps none.
    warnings.simplefilter("ignore", SyntaxWarning)
    from reasoning_gym.utils import extract_answer

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict, in_gym
from cascade.environments.reasoning_gym import scoring
from cascade.environments.reasoning_gym.tasks import make_task
from cascade.environments.shared import killable_worker
from cascade.environments.shared.boxed import boxed
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import RowError

MAX_ANSWER = 20_000
"""Characters. Longer ones are wrong: no family asks for so much, and scorers need not be linear."""


RIGHT = 1 - 1e-6
"""The score from which an answer is right."""


class ReasoningGym(Environment):
    name = "reasoning_gym"
    gym_names = ("reasoning_gym",)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `bad_metadata`, `unknown_family`, `unsafe_row`, `bad_row` (the scorer cannot use it)."""
        metadata = row.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
            raise RowError("bad_metadata", "reasoning_gym: the row needs `question`, `answer` and `metadata`")
        family = metadata.get("source_dataset")
        if not isinstance(family, str) or not scoring.has_family(family):
            raise RowError("unknown_family", f"reasoning_gym: the library has no task family {family!r}")
        entry = _entry(row)
        try:
            formula = scoring.ROW_FORMULAS.get(family, lambda entry: "")(entry)
            symbolic = family in scoring.SYMBOLIC
            safe = isinstance(formula, str) and (not formula or scoring.is_plain(formula, symbolic=symbolic))
            own = (
                scoring.score(family, row["answer"], entry, gym=in_gym(row))
                if safe and row["answer"] is not None
                else 1.0
            )
        except Exception as error:
            raise RowError("bad_row", f"reasoning_gym: {family} cannot score this row: {error!r}") from None
        if not safe:
            raise RowError("unsafe_row", f"reasoning_gym: {family} would evaluate {str(formula)[:80]!r}: not a formula")
        if own < RIGHT:
            raise RowError("bad_row", f"reasoning_gym: {family} gives the row's own answer {own:g}, not 1")

    def verify(self, row: Row, response: Response) -> Verdict:
        text = response.content.strip()
        if not text:
            return Verdict(0.0, reason="the response has no answer")
        answer = extract_answer(text, tag_name="answer")
        if answer is None:
            inside = boxed(text, last=False)
            answer = text if inside is None else inside.strip()
        if len(answer) > MAX_ANSWER:
            return Verdict(0.0, reason=f"the answer is longer than {MAX_ANSWER} characters")
        family, gym = row["metadata"]["source_dataset"], in_gym(row)
        try:
            score = scoring.score(family, answer, _entry(row), gym=gym)
        except TimeoutError:
            return Verdict(None, "timeout", answer, f"{family} needed longer than {scoring.SECONDS} s")
        except killable_worker.WorkerDied as error:
            return Verdict(None, "verifier_crashed", answer, str(error))
        except Exception as error:
            # The row scored its own answer in check_row, so what the scorer choked on is the response.
            return Verdict(0.0, extracted=answer, reason=f"{family} could not read the answer: {type(error).__name__}")
        reward = score if gym else float(score >= RIGHT)
        return Verdict(reward, extracted=answer, reason=f"{family} scored {score:g}, expected {row['answer']!r}")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Seven arithmetic and algebra families at the difficulty of the level, 1 to 4."""
        return nano_rows(self.name, "math", count, seed, level, make_task)


def _entry(row: Row) -> dict[str, Any]:
    return {"question": row["question"], "answer": row["answer"], "metadata": row["metadata"]}


ENVIRONMENT = ReasoningGym()
