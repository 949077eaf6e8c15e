"""Multiple choice: the ways in which a model names an option, in each grading mode."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.agreement.case import Case, demonstrated, gym, gym_rows, rows
from cascade.chat import Response, Row, response_from_openai

BOXED = {
    # What stands in the box for letter L with text T, beside another option M.
    "letter": "L", "letter in parentheses": "(L)", "letter with full stop": "L.", "letter in text": r"\text{L}",
    "letter in bold": r"\textbf{L}", "letter in mathrm": r"\mathrm{L}", "lower case": "l", "label and text": "L: T",
    "label) and text": "L) T", "text": "T", "text in text": r"\text{T}", "letter and text": "L T",
    "letter in brackets": "[L]", "letter twice": "L, L", "two letters": "L, M", "choice": "Option L",
}  # fmt: skip
COLON = {
    "answer colon": "Answer: L", "bold answer colon": "**Answer:** L", "bold letter": "Answer: **L**",
    "answer with text": "Answer: L) T", "answer text": "Answer: T", "answer excuses": "Answer: L, since M is wrong",
    "answer of two": "Answer: L or M", "answer twice": "Answer: M\nAnswer: L", "answer in a box": r"Answer: \boxed{L}",
    "answer lower": "answer: l", "final answer": "Final Answer: L", "answer with because": "Answer: L because it fits",
    "answer with an article": "Answer: A good guess is L",
}  # fmt: skip
OTHER = {"bare letter": "L", "prose": "The answer is L.", "nothing said": "I do not know."}
READ = {
    "strict_single_letter_boxed": ("letter", "letter in parentheses", "letter with full stop", "letter in text",
                                   "label and text", "label) and text", "letter in brackets"),
    "lenient_boxed": ("letter", "letter in parentheses", "letter with full stop", "letter in text", "label and text",
                      "label) and text", "letter in brackets", "text", "text in text"),
    "lenient_answer_colon": ("answer colon", "answer text", "answer lower", "final answer"),
    "lenient_answer_colon_md": ("answer colon", "bold answer colon", "bold letter", "answer with text",
                                "answer excuses", "answer twice", "final answer", "answer with because"),
}  # fmt: skip
"""By mode, the forms that it is there to read: with the right letter they are right, with another wrong."""

HARD = [
    ({"A": "E. coli", "B": "S. aureus", "C": "B. subtilis", "D": "H. pylori"}, "C"),
    ({"A": "10", "B": "100", "C": "1000", "D": "1"}, "B"),
    ({"A": "the heart", "B": "the left heart", "C": "a lung", "D": "heart and lung"}, "B"),
    ({"A": "A and B", "B": "B only", "C": "None", "D": "All of A, B and C"}, "B"),
    ({"A": "vitamin A", "B": "vitamin B", "C": "vitamin C", "D": "vitamin D"}, "D"),
    ({"A": r"$\frac{1}{2}$", "B": "2", "C": r"$\sqrt{2}$", "D": "0.25"}, "A"),
]
"""Options whose texts look like labels, lie in each other, or name other options."""


def cases(count: int, seed: int, gym_packages: Path) -> Iterator[Case]:
    for number, row in enumerate(rows("mcqa", count, seed, range(1, 5))):
        yield _case(row, demonstrated(row), "demonstration", True)
        yield from _forms({**row, "grading_mode": list(READ)[number % len(READ)]})
    for options, expected in HARD:
        asked = {"input": [{"role": "user", "content": "Which?"}]}
        bare = {
            "responses_create_params": asked,
            "expected_answer": expected,
            "options": [{k: v} for k, v in options.items()],
        }
        for mode in READ:
            yield from _forms({**bare, "grading_mode": mode})
    for row in gym_rows(gym_packages, "mcqa"):
        if not row.get("options") or not isinstance(row.get("expected_answer"), str):
            continue
        bare = {key: value for key, value in row.items() if key != "response"}
        yield from _forms(bare)
        if "response" in row:
            yield _case(bare, response_from_openai(row["response"]), "rollout", None)


def _forms(row: Row) -> Iterator[Case]:
    options = {letter: text for entry in row["options"] for letter, text in entry.items() if text is not None}
    expected = row["expected_answer"]
    other = next(letter for letter in options if letter != expected)
    mode = row.get("grading_mode") or "strict_single_letter_boxed"
    own_pattern = bool((row.get("template_metadata") or {}).get("output_regex"))
    forms = {**{name: rf"\boxed{{{inside}}}" for name, inside in BOXED.items()}, **COLON, **OTHER}
    for name, form in forms.items():
        for letter, second in ((expected, other), (other, expected)):
            text = _filled(form, letter, second, options)
            known = name in READ[mode] and not own_pattern and _plain(options)
            yield _case(row, Response(text), name, (letter == expected) if known else None)


def _plain(options: dict[str, str]) -> bool:
    """No option's text lies in another's, or begins as a label does: there is one way to read the forms."""
    texts = [text.lower() for text in options.values()]
    within = any(one != two and one in two for one in texts for two in texts)
    return not within and len(set(texts)) == len(texts) and all(len(text) > 1 and text[1].isalnum() for text in texts)


def _filled(form: str, letter: str, other: str, options: dict[str, str]) -> str:
    marks = {"L": letter, "T": options[letter], "M": other}
    out, at = [], 0
    while at < len(form):
        mark = form[at]
        alone = not (form[at - 1 : at].isalpha() or form[at + 1 : at + 2].isalpha())
        if alone and mark in marks:
            out.append(marks[mark])
        elif alone and mark == "l":
            out.append(letter.lower())
        else:
            out.append(mark)
        at += 1
    return "".join(out)


def _case(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    return Case("mcqa", row, response, origin, right, gym("mcqa", row, response))


def as_case(row: Row, response: Response) -> Case:
    return _case(row, response, "", None)
