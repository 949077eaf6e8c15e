"""Multiple choice: one letter out of the options (NeMo Gym's `mcqa` rows and grading).

A row holds `options` (a list of {letter: text}), `expected_answer` (the letter) and `grading_mode`:

- `strict_single_letter_boxed` (default): the last \\boxed{} holds a letter, alone or followed by `:`, `)`, `.`
  or `-` and the option's text; \\text{} around it is ignored.
- `lenient_boxed`: as above, else the box contains the text of exactly one option.
- `lenient_answer_colon`: what follows the first `Answer:` is a letter or an option's text.
- `lenient_answer_colon_md`: what follows the last readable `Answer:` (Markdown emphasis allowed) begins with a
  letter or holds one on its own; a list of several letters is no answer.

Where `template_metadata.output_regex` is given (one pattern or several, tried in order), its last match in the
response counts first, and the grading mode decides only if nothing matches.
"""

from collections.abc import Iterator

from cascade.chat import Response, Row
from cascade.environments.base import Environment, Verdict
from cascade.environments.mcqa import grading
from cascade.environments.mcqa.tasks import make_task
from cascade.environments.synthetic.rows import nano_rows
from cascade.errors import RowError


class MultipleChoice(Environment):
    name = "mcqa"
    gym_names = ("mcqa",)

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_options`, `no_answer`, `bad_grading_mode`, `bad_regex`."""
        letters = set(grading.options_of(row))
        patterns = grading.patterns_of(row)
        if not letters and not patterns:
            raise RowError("no_options", "mcqa: `options` is not a list of {letter: text}")
        answer = row.get("expected_answer")
        if not isinstance(answer, str) or not answer.strip():
            raise RowError("no_answer", "mcqa: the row has no `expected_answer`")
        if letters and not patterns and answer.strip().upper() not in letters:
            raise RowError("no_answer", f"mcqa: expected_answer {answer!r} is not among {', '.join(sorted(letters))}")
        mode = row.get("grading_mode") or grading.DEFAULT_MODE
        if mode not in grading.MODES:
            raise RowError("bad_grading_mode", f"mcqa: unknown grading_mode {mode!r}; have {', '.join(grading.MODES)}")

    def verify(self, row: Row, response: Response) -> Verdict:
        text = response.content.strip()
        if not text:
            return Verdict(0.0, reason="the response has no answer")
        expected = row["expected_answer"].strip().upper()
        try:
            letter = grading.read_letter(row, text)
        except TimeoutError:
            return Verdict(None, failure="timeout", reason="the row's output_regex did not finish on this response")
        if letter is None:
            return Verdict(0.0, reason=f"no option letter found ({row.get('grading_mode') or grading.DEFAULT_MODE})")
        if letter == expected:
            return Verdict(1.0, extracted=letter, reason=f"{letter} is right")
        return Verdict(0.0, extracted=letter, reason=f"answered {letter}, expected {expected}")

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Levels 1 to 4: 3, 4, 6 and 10 options."""
        return nano_rows(self.name, self.name, count, seed, level, make_task)


ENVIRONMENT = MultipleChoice()
