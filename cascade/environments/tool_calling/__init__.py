"""Tool calls compared with the expected ones. Three kinds of rows:

- `ground_truth` (a list of {name, arguments as JSON text}), our own: every call must be valid against the row's
  tools (JSON Schema); the calls must be exactly the expected ones, in their order where the row has
  `ordered: true`, else in any order. Text is compared without regard to case and spaces at its ends, numbers
  by value (5 equals 5.0), and true is not 1.
- `ground_truth` of NeMo Gym's `workplace_assistant`. There the calls run against a simulated office and its final
  state is compared; here the calls are. To agree as far as possible: calls that only read are ignored, calls that
  the schema refuses had no effect and are ignored, repeating an update or deletion changes nothing, and order is
  not compared. What stays different: calls with ids that do not exist, updates that undo each other, and
  different calls that end in the same state.
- `expected_action` of NeMo Gym's `single_step_tool_use_with_argument_comparison`: a `message` (any text without a
  call is right), a `function_call`, or a `function_call_batch`. Arguments must have the same keys and types; text of
  two words or more matches when the words in common are at least a tenth of the words of both (three tenths for the
  agent `search_pivot_…`; for `swe_pivot_…` and `droid_pivot_…` any such text matches, as NeMo Gym configures them);
  floats match to 1e-6. Further calls cost nothing, except for `parallel_tool_calls_…`, whose reward is F1 over calls.

The call format of the chat template carries no types ("<parameter=id>\\n12"). So what reads as JSON is text where the
schema has only text in its place (also by `anyOf`, a reference or an `enum`), as it was written: "1.10" is "1.10".
Where the schema has both, it is what an expected call has. Text where the schema asks for a number stays wrong.
"""

from collections.abc import Iterator
from typing import Any

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.synthetic.rows import nano_rows
from cascade.environments.tool_calling import actions, calls
from cascade.environments.tool_calling.tasks import make_task
from cascade.errors import RowError

WORKPLACE = "workplace_assistant"
SIMILARITIES = {"search_pivot": 0.3, "swe_pivot": 0.0, "droid_pivot": 0.0}
"""By the beginning of the agent's name; others have `actions.WORD_SIMILARITY`."""


class ToolCalling(Environment):
    name = "tool_calling"
    gym_names = (
        WORKPLACE,
        "single_step_tool_use_with_argument_comparison",
        "parallel_tool_calls_single_step_tool_use",
        "toolcall_schema_single_step_tool_use",
        "search_pivot_single_step_tool_use",
        "swe_pivot_single_step_tool_use",
        "droid_pivot_single_step_tool_use",
    )

    def check_row(self, row: Row) -> None:
        """Raises RowError: `bad_tools`, `no_ground_truth`, `bad_ground_truth`."""
        tools = calls.tools_of(row)
        if "expected_action" in row:
            actions.expected_calls(row["expected_action"])
            return
        expected = calls.ground_truth(row)
        if _is_workplace(row):
            return
        for call in expected:
            problem = calls.problem_with(call, tools)
            if problem:
                raise RowError("bad_ground_truth", f"tool_calling: the row's own answer is not valid: {problem}")

    def verify(self, row: Row, response: Response) -> Verdict:
        tools = calls.tools_of(row)
        action: Any = row.get("expected_action")
        expected = actions.expected_calls(action) or () if "expected_action" in row else calls.ground_truth(row)
        made = [calls.with_schema_types(call, tools, expected) for call in response.tool_calls]
        shown = [{"name": call.name, "arguments": call.arguments} for call in made]
        if response.malformed:
            return Verdict(0.0, extracted=shown, reason=response.malformed)
        if not made and not response.content.strip():
            return Verdict(0.0, extracted=shown, reason="the response has neither a call nor text")
        if "expected_action" in row:
            agent = _agent(row)
            similarity = next(
                (s for start, s in SIMILARITIES.items() if agent.startswith(start)), actions.WORD_SIMILARITY
            )
            parallel = agent.startswith("parallel_tool_calls")
            reward, reason = actions.compare(action, made, f1=parallel, similarity=similarity)
        elif _is_workplace(row):
            reward, reason = calls.compare_effects(expected, made, tools)
        else:
            reward, reason = calls.compare(expected, made, tools, ordered=bool(row.get("ordered")))
        return Verdict(reward, extracted=shown, reason=reason)

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Level 1: one call, two tools. 2: one call, four tools, similar ones. 3: two calls. 4: three in order."""
        return nano_rows(self.name, self.name, count, seed, level, make_task)


def _agent(row: Row) -> str:
    agent = row.get("agent_ref")
    return str(agent.get("name", "")) if isinstance(agent, dict) else ""


def _is_workplace(row: Row) -> bool:
    return row.get("environment_name") == WORKPLACE or _agent(row).startswith(WORKPLACE)


ENVIRONMENT = ToolCalling()
