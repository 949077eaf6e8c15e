"""Answers on which letter extraction was reported to be wrong, with the letter that they give and the report."""

import pytest

from cascade.chat import Response, Row
from cascade.environments.mcqa import ENVIRONMENT
from cascade.environments.mcqa.grading import DEFAULT_MODE

METALS = {"A": "iron", "B": "zinc", "C": "copper", "D": "silver", "E": "tin"}
ORGANISMS = {"A": "S. aureus", "B": "E. coli", "C": "C. difficile", "D": "B-lymphocytes", "E": "none of these"}
SENTENCES = {"A": "heat is lost", "B": "a pump works", "C": "A decrease in pressure", "D": "I do not know"}
COLOURS = {"A": "red", "B": "dark red", "C": "blue"}
NUMBERS = {"A": "1", "B": "10", "C": "100"}
SIGNED = {"A": "5", "B": "-5", "C": "1.5", "D": "15"}
TEN = {letter: f"option {number}" for number, letter in enumerate("ABCDEFGHIJ")}

STRICT, BOXED, COLON, MARKDOWN = DEFAULT_MODE, "lenient_boxed", "lenient_answer_colon", "lenient_answer_colon_md"


def letter(options: dict[str, str], mode: str, text: str, **fields: object) -> str | None:
    row: Row = {"options": [{k: v} for k, v in options.items()], "expected_answer": "A", "grading_mode": mode, **fields}
    ENVIRONMENT.check_row(row)
    verdict = ENVIRONMENT.verify(row, Response(text))
    assert verdict.reward == float(verdict.extracted == "A")
    return verdict.extracted


CASES = [
    # Wrappers.
    *(
        ("NVIDIA-NeMo/Gym#1790", METALS, mode, f"\\boxed{{{inside}}}", "C")
        for mode in (STRICT, BOXED)
        for inside in (
            *("\\textbf{C}", "\\mathrm{C}", "\\mathbf{C}", "\\textit{C}", "\\text{\\textbf{C}}", "\\text{(C)}"),
            *(
                "\\mathsf{C}",
                "{C}",
                "\\bf C",
                "**C**",
                "$C$",
                "\\textbf{C. copper}",
                "\\textbf{C}. copper",
                "(C)",
                "[C]",
            ),
            *("\\ C", "\\operatorname{C}", "\\emph{C}", "C.", "C: copper", "C) copper", "\\text{C: } copper"),
        )
    ),
    *(
        ("", METALS, mode, f"Answer: {inside}", "C")
        for mode in (COLON, MARKDOWN)
        for inside in (
            "\\textbf{C}",
            "**C**",
            "$C$",
            "(C)",
            "$\\boxed{C}$",
            "\\(C\\)",
            "`C`",
            "copper",
            "C.",
            "**copper**",
        )
    ),
    # An option's text that begins with a letter.
    ("NVIDIA-NeMo/Gym#1844", ORGANISMS, STRICT, "The organism is \\boxed{E. coli}", None),
    ("NVIDIA-NeMo/Gym#1844", ORGANISMS, STRICT, "These are \\boxed{B-lymphocytes}", None),
    ("", ORGANISMS, STRICT, "\\boxed{\\textit{E. coli}}", None),
    ("", ORGANISMS, STRICT, "\\boxed{C. difficile}", "C"),
    ("", ORGANISMS, BOXED, "\\boxed{E. coli}", "B"),
    ("", ORGANISMS, BOXED, "\\boxed{B-lymphocytes}", "D"),
    ("", ORGANISMS, STRICT, "\\boxed{B. E. coli}", "B"),
    ("", ORGANISMS, STRICT, "\\boxed{E}", "E"),
    ("", ORGANISMS, STRICT, "\\boxed{E. none of these}", "E"),
    ("", ORGANISMS, STRICT, "\\boxed{E.coli}", None),
    ("", ORGANISMS, COLON, "Answer: E. coli", "B"),
    ("", ORGANISMS, COLON, "Answer: E.coli", "B"),
    ("", ORGANISMS, MARKDOWN, "Answer: E.coli", "B"),
    ("", ORGANISMS, MARKDOWN, "Answer: E.coli, as it ferments lactose", "B"),
    ("", ORGANISMS, MARKDOWN, "Answer: E. coli", "B"),
    ("", ORGANISMS, MARKDOWN, "Answer: B-lymphocytes, as shown", "D"),
    ("", {"A": "5 A", "B": "2 V", "C": "5 V"}, STRICT, "\\boxed{2 V}", None),
    ("", {"A": "2 V", "B": "5 A", "C": "5 V"}, STRICT, "\\boxed{5 A}", None),
    ("", {"A": "2 V", "B": "5 A", "C": "5 V"}, BOXED, "\\boxed{5 A}", "B"),
    # An option's text within another's.
    ("NVIDIA-NeMo/Gym#1844", COLOURS, BOXED, "\\boxed{dark red}", "B"),
    ("", COLOURS, BOXED, "\\boxed{red}", "A"),
    ("", COLOURS, BOXED, "\\boxed{it is dark red}", "B"),
    ("", COLOURS, BOXED, "\\boxed{red or dark red}", None),
    ("", COLOURS, BOXED, "\\boxed{covered}", None),
    ("NVIDIA-NeMo/Gym#1844", NUMBERS, BOXED, "\\boxed{100}", "C"),
    ("", NUMBERS, BOXED, "\\boxed{10}", "B"),
    ("", NUMBERS, BOXED, "\\boxed{1000}", None),
    ("", NUMBERS, BOXED, "\\boxed{1.5}", None),
    ("", SIGNED, BOXED, "\\boxed{x = -5}", "B"),
    ("", SIGNED, BOXED, "\\boxed{x = 1.5}", "C"),
    ("", SIGNED, BOXED, "\\boxed{-15}", None),
    # The others ruled out.
    ("NVIDIA-NeMo/Gym#1945", METALS, MARKDOWN, "Answer: B, since A and C are not metals", "B"),
    ("NVIDIA-NeMo/Gym#1945", METALS, MARKDOWN, "Answer: B (A and C react)", "B"),
    ("", METALS, MARKDOWN, "Answer: (B), because A, C and D are wrong", "B"),
    ("", METALS, MARKDOWN, "**Answer:** B. A and C are not metals", "B"),
    ("", METALS, MARKDOWN, "Answer: B, A and C are not metals", "B"),
    ("", METALS, MARKDOWN, "Answer: B, not A or C", "B"),
    ("", METALS, MARKDOWN, "Answer: option B, as A and D fail", "B"),
    ("", METALS, MARKDOWN, "Answer: The correct option is B since A and C are not", "B"),
    ("", METALS, MARKDOWN, "Answer: I choose B because A and C fail", "B"),
    ("", TEN, MARKDOWN, "Answer: I choose B because A and C fail", "B"),
    ("", METALS, MARKDOWN, "Answer: B, or maybe C", None),
    ("", METALS, MARKDOWN, "Answer: B or perhaps C", None),
    ("", METALS, MARKDOWN, "Answer: B, possibly C", None),
    ("", METALS, MARKDOWN, "Answer: B (or maybe C)", None),
    ("", METALS, MARKDOWN, "Answer: B, maybe even C", None),
    ("", METALS, MARKDOWN, "Answer: maybe B", "B"),
    ("", METALS, MARKDOWN, "Answer: B, maybe C is wrong too", "B"),
    ("", METALS, MARKDOWN, "Answer: B, though C is possible", "B"),
    ("", METALS, MARKDOWN, "Answer: A or B", None),
    ("", METALS, MARKDOWN, "Answer: A, B", None),
    ("", METALS, MARKDOWN, "Answer: A, B and C are correct", None),
    ("", METALS, MARKDOWN, "Answer: A and B", None),
    ("", METALS, MARKDOWN, "Answer: A/B", None),
    ("", METALS, MARKDOWN, "Answer: (A) or (B)", None),
    ("", METALS, MARKDOWN, "Answer: either A or B", None),
    ("", METALS, MARKDOWN, "Answer: B\nAnswer: A or C", "B"),
    # The article and the pronoun.
    ("EleutherAI/lm-evaluation-harness#4188", SENTENCES, MARKDOWN, "Answer: A decrease in pressure", "C"),
    ("EleutherAI/lm-evaluation-harness#4188", SENTENCES, MARKDOWN, "Answer: a pump works", "B"),
    ("", SENTENCES, MARKDOWN, "Answer: I do not know", "D"),
    ("", SENTENCES, MARKDOWN, "Answer: A decrease in pressure, since heat is lost", "C"),
    ("", SENTENCES, MARKDOWN, "Answer: A catalyst", None),
    ("", SENTENCES, MARKDOWN, "Answer: a catalyst", None),
    ("", SENTENCES, MARKDOWN, "Answer: A", "A"),
    ("", SENTENCES, MARKDOWN, "Answer: a", "A"),
    ("", SENTENCES, MARKDOWN, "Answer: A because heat is lost", "A"),
    ("", SENTENCES, MARKDOWN, "Answer: A heat is lost", "A"),
    ("", SENTENCES, MARKDOWN, "Answer: A. heat is lost", "A"),
    ("", SENTENCES, MARKDOWN, "Answer: A, heat is lost", "A"),
    ("", TEN, MARKDOWN, "Answer: I think C", "C"),
    ("", TEN, MARKDOWN, "Answer: I", "I"),
    ("", METALS, STRICT, "\\boxed{A}, \\boxed{B} and \\boxed{C}", None),
    ("", METALS, STRICT, "\\boxed{A}? No, for iron rusts. \\boxed{C}", "C"),
]


@pytest.mark.parametrize(("report", "options", "mode", "text", "given"), CASES)
def test_the_letter_that_an_answer_gives(report: str, options: dict, mode: str, text: str, given: str | None) -> None:
    assert letter(options, mode, text) == given


def test_a_rows_own_pattern_that_captures_the_first_letter_of_an_options_text() -> None:
    template = {"template_metadata": {"output_regex": r"Answer:\s*([A-D])"}}
    assert letter(SENTENCES, MARKDOWN, "Answer: A decrease in pressure", **template) == "C"
    assert letter(SENTENCES, MARKDOWN, "Answer: a pump works", **template) == "B"
    assert letter(SENTENCES, MARKDOWN, "Answer: B", **template) == "B"
    assert letter(ORGANISMS, MARKDOWN, "Answer: C. difficile", **template) == "C"


@pytest.mark.parametrize(
    ("options", "mode", "text", "ours", "theirs"),
    [
        (METALS, STRICT, "\\boxed{\\textbf{C}}", "C", None),
        (ORGANISMS, STRICT, "\\boxed{E. coli}", None, "E"),
        (COLOURS, BOXED, "\\boxed{dark red}", "B", None),
        (METALS, MARKDOWN, "Answer: B, since A and C are not metals", "B", None),
        (SENTENCES, MARKDOWN, "Answer: A decrease in pressure", "C", "A"),
    ],
)
def test_the_rules_of_nemo_gym(options: dict, mode: str, text: str, ours: str | None, theirs: str | None) -> None:
    assert letter(options, mode, text) == ours
    assert letter(options, mode, text, grading="gym") == theirs


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("Answer: C) B. subtilis", "C"),
        ("Answer: C: B. subtilis", "C"),
        ("Answer: C, B", None),
        ("Answer: C or B", None),
    ],
)
def test_a_label_with_its_own_text_is_one_answer_though_the_text_begins_as_a_label_does(answer, letter):
    options = [{"A": "E. coli"}, {"B": "S. aureus"}, {"C": "B. subtilis"}, {"D": "H. pylori"}]
    row = {"options": options, "expected_answer": "C", "grading_mode": MARKDOWN}
    assert ENVIRONMENT.verify(row, Response(answer)).extracted == letter


FOUND = [
    (METALS, STRICT, r"\boxed{\Large C}", "C"),
    (METALS, STRICT, r"\boxed{\textsc{C}}", "C"),
    (METALS, STRICT, r"\boxed{\textcolor{red}{C}}", "C"),
    (METALS, STRICT, r"\boxed{\color{red}{C}}", "C"),
    (NUMBERS, BOXED, r"\boxed{1/2}", None),
    (NUMBERS, BOXED, r"\boxed{10^2}", None),
    (NUMBERS, BOXED, r"\boxed{2+1}", None),
    (COLOURS, BOXED, r"\boxed{not red}", None),
    (METALS, MARKDOWN, "Answer: not A", None),
    (METALS, MARKDOWN, "Answer: A is wrong", None),
    (METALS, MARKDOWN, "Answer: A is wrong, so B", "B"),
    (METALS, MARKDOWN, "Answer: A and C are wrong; B is right", "B"),
    (METALS, MARKDOWN, "Answer: It cannot be A; it is B", "B"),
    (METALS, MARKDOWN, "Answer: B, A is wrong", "B"),
    (TEN, MARKDOWN, "Answer: I'm sure it's B", "B"),
    (TEN, MARKDOWN, "Answer: I'm not sure", None),
]
"""What else belongs to these kinds, found here."""


@pytest.mark.parametrize(("options", "mode", "text", "right"), FOUND)
def test_neighbours_of_the_reported_forms(options: dict[str, str], mode: str, text: str, right: str | None) -> None:
    assert letter(options, mode, text) == right
