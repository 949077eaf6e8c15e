"""Questions on long documents: several needles among distractors, aggregation, and walks on large graphs.

Three kinds of rows:

- `expected_answer` as text, our own: exact match after normalisation. Both answers are taken apart at commas and
  "and", so that "Anna, Ben and Eva" has three parts; of each part case, runs of spaces, quotes, full stops and
  Markdown emphasis at its ends and a leading article do not count. The parts must be the same in the same order;
  in any order where `question_type` is `list`. Prose around the answer is wrong: the prompt asks for the answer.
- Rows of NeMo Gym's `lc_niah` (`source` is `graphwalks`, or the row names `lc_niah`), whose `expected_answer` is a
  JSON list of nodes: reward = F1 × (1 − copied), by the defaults of NeMo Gym's server. F1 is over the sets of
  nodes, the answer's read from `Final Answer: [a, b]` in the response's last line; two empty sets agree. `copied` is
  the share of the reasoning's runs of 16 words that the prompt has, too (in lower case): a trace that only repeats its
  document earns nothing.
- Rows that name NeMo Gym's `lc_judge`: answers in free form, compared with `expected_answer` by the recipe's
  `judges.answer` where they do not match it exactly; without that judge the row is refused (`no_judge`). An answer of
  more than MAX_ANSWER characters is wrong without being asked about. The judge is asked in both orders, Gym's once.
"""

from collections.abc import Iterator

from cascade import judges
from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.long_context import answers, graphs, tasks
from cascade.environments.registry import is_named
from cascade.environments.shared.answer_judge import NO_JUDGE, judge_answer, question_of
from cascade.errors import RowError

GRAPHS = "lc_niah"
JUDGED = "lc_judge"


class LongContext(Environment):
    name = "long_context"
    gym_names = (GRAPHS, JUDGED)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_answer`, `no_prompt`, `no_judge`."""
        if _is_graph(row):
            graphs.expected_nodes(row)
            graphs.prompt_text(row)
        elif not isinstance(row.get("expected_answer"), str) or not any(answers.parts(row["expected_answer"])):
            raise RowError("no_answer", "long_context: the row has no text as `expected_answer`")
        elif is_named(row, JUDGED):
            question_of(row)
            if judges.answer() is None:
                raise RowError("no_judge", f"long_context: {NO_JUDGE}")

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
        if is_named(row, JUDGED) and len(response.content) <= answers.MAX_ANSWER:
            return judge_answer(row, row["expected_answer"], response.content.strip())
        shown = response.content.strip()[:100]
        return Verdict(0.0, extracted=given, reason=f"answered {shown!r}, expected {row['expected_answer']!r}")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 to 5: documents of 14, 26, 45, 70 and 105 sentences; from level 2 on aggregation, from 3 chains."""
        return tasks.generate(count, seed, level)


def _is_graph(row: Row) -> bool:
    return row.get("source") == "graphwalks" or is_named(row, GRAPHS)


ENVIRONMENT = LongContext()
