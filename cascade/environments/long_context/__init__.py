"""Questions on long documents: several needles among distractors, aggregation, and walks on large graphs.

Two kinds of rows:

- `expected_answer` as text, our own: exact match after normalisation. Both answers are taken apart at commas and
  "and", so that "Anna, Ben and Eva" has three parts; of each part case, runs of spaces, quotes, full stops and
  Markdown emphasis at its ends and a leading article do not count. The parts must be the same in the same order;
  in any order where `question_type` is `list`. Prose around the answer is wrong: the prompt asks for the answer.
- Rows of NeMo Gym's `lc_niah` (`source` is `graphwalks`, or the row names `lc_niah`), whose `expected_answer` is a
  JSON list of nodes: reward = F1 × (1 − copied), by the defaults of NeMo Gym's server. F1 is over the sets of
  nodes, the answer's read from `Final Answer: [a, b]` in the response's last line; two empty sets agree. `copied` is
  the length of the longest run of characters that the reasoning shares with the prompt, over the reasoning's length
  (both in lower case, runs of spaces as one): a trace that only repeats its document earns nothing.
"""

from collections.abc import Iterator

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.long_context import answers, graphs, tasks
from cascade.errors import RowError

GRAPHS = "lc_niah"


class LongContext(Environment):
    name = "long_context"
    gym_names = (GRAPHS,)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_answer`, `no_prompt`."""
        if _is_graph(row):
            graphs.expected_nodes(row)
            graphs.prompt_text(row)
        elif not isinstance(row.get("expected_answer"), str) or not any(answers.parts(row["expected_answer"])):
            raise RowError("no_answer", "long_context: the row has no text as `expected_answer`")

    def verify(self, row: Row, response: Response) -> Verdict:
        if not response.content.strip():
            return Verdict(0.0, reason="the response has no answer")
        if _is_graph(row):
            return graphs.judge(row, response)
        given, expected = answers.parts(response.content), answers.parts(row["expected_answer"])
        if row.get("question_type") == "list":
            given, expected = sorted(given), sorted(expected)
        if given == expected:
            return Verdict(1.0, extracted=given, reason="the expected answer")
        shown = response.content.strip()[:100]
        return Verdict(0.0, extracted=given, reason=f"answered {shown!r}, expected {row['expected_answer']!r}")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 to 5: documents of 14, 26, 45, 70 and 105 sentences; from level 2 on aggregation, from 3 chains."""
        return tasks.generate(count, seed, level)


def _is_graph(row: Row) -> bool:
    agent = row.get("agent_ref")
    named = (row.get("environment_name"), agent.get("name") if isinstance(agent, dict) else None)
    return row.get("source") == "graphwalks" or any(str(name).startswith(GRAPHS) for name in named)


ENVIRONMENT = LongContext()
