"""Instruction following: the answer must keep every verifiable constraint that the row lists.

Rows are NeMo Gym's: `instruction_id_list`, `kwargs` (one entry a constraint, None where it takes nothing) and
optionally `grading_mode`, at the top level or inside `verifier_metadata`, which takes precedence.
"""

from collections.abc import Callable, Iterator

from cascade.chat import Response, Row, prompt_of
from cascade.environments.base import Environment, Verdict, in_gym
from cascade.environments.instruction_following.constraints import bind
from cascade.environments.instruction_following.tasks import generate_rows
from cascade.errors import RowError

__all__ = ["ENVIRONMENT", "InstructionFollowing"]


class InstructionFollowing(Environment):
    """Reward 1 where all constraints hold, else 0; with `grading_mode` "fraction" the share that holds."""

    name = "instruction_following"
    gym_names = ("instruction_following",)

    def check_row(self, row: Row) -> None:
        prompt_of(row)
        _read(row)

    def verify(self, row: Row, response: Response) -> Verdict:
        """Judge `response.content`; an unfinished or empty answer keeps no constraint.

        `extracted` maps each constraint's id to whether it held; of constraints with the same id all must.
        """
        try:
            checks, mode = _read(row)
        except RowError as error:
            return Verdict(None, failure=error.code, reason=str(error))
        answer = response.content if response.finished else ""
        held = [(name, check(answer)) for name, check in checks]
        extracted: dict[str, bool] = {}
        for name, holds in held:
            extracted[name] = extracted.get(name, True) and holds
        share = sum(holds for _, holds in held) / len(held)
        return Verdict(
            share if mode == "fraction" else float(share == 1), extracted=extracted, reason=_reason(response, extracted)
        )

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Level = number of constraints, 1 to 3."""
        return generate_rows(count, seed, level)


def _read(row: Row) -> tuple[list[tuple[str, Callable[[str], bool]]], str]:
    """The row's constraints as (id, check), and its grading mode. Raises RowError (`bad_row`)."""
    metadata = row.get("verifier_metadata")
    fields = {**row, **metadata} if isinstance(metadata, dict) else row
    names, kwargs = fields.get("instruction_id_list"), fields.get("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RowError("bad_row", "instruction_id_list is not a list of constraint ids")
    if not isinstance(kwargs, list) or len(kwargs) != len(names):
        raise RowError("bad_row", f"kwargs must be a list of {len(names)}, one entry for each of instruction_id_list")
    mode = fields.get("grading_mode") or "binary"
    if mode not in ("binary", "fraction"):
        raise RowError("bad_row", f"grading_mode = {mode!r} is neither 'binary' nor 'fraction'")
    gym = in_gym(row)
    return [(name, bind(name, entry, gym=gym)) for name, entry in zip(names, kwargs, strict=True)], mode


def _reason(response: Response, extracted: dict[str, bool]) -> str:
    if not response.finished:
        return "the response is unfinished"
    if not response.content.strip():
        return "there is no answer"
    broken = [name for name, holds in extracted.items() if not holds]
    return f"not kept: {', '.join(broken)}" if broken else "all constraints kept"


ENVIRONMENT = InstructionFollowing()
