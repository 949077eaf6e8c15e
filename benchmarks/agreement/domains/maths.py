# ruff: noqa: E501 - its tables are read line by line
"""Boxed answers: every form of a number and of other answers that released rows and models use, right and wrong."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.agreement.case import Case, demonstrated, gym, gym_rows, rows
from cascade.chat import Response, Row, response_from_openai

FORMS: list[tuple[str, list[str], list[str]]] = [
    # (expected, right answers, wrong answers)
    ("7", ["7", "+7", "7.0", " 7 ", r"\frac{14}{2}", "x = 7", r"\text{7}", "$7$", "7."], ["8", "-7", "70", "7.1"]),
    ("-12", ["-12", "-12.0", r"-\frac{24}{2}", "− 12".replace("− ", "-")], ["12", "-12.5", "-21"]),
    ("0", ["0", "0.0", "-0", r"\frac{0}{5}"], ["1", r"\emptyset", "o"]),
    ("12000", ["12000", "12,000", r"12\,000", "12{,}000", r"12\ 000", "1.2e4", r"1.2 \times 10^4"], ["12", "1200", "120000"]),
    ("1234567", ["1,234,567", r"1\,234\,567", "1{,}234{,}567", "1234567.0"], ["1,234,568", "1.234567"]),
    ("0.5", ["0.5", ".5", r"\frac{1}{2}", r"\frac12", "1/2", r"\dfrac{1}{2}", r"50\%", "0.50"], ["0.05", "5", r"5\%", "2"]),
    (r"50\%", [r"50\%", "50%", "0.5", r"\frac{1}{2}"], [r"5\%", "500%", "0.05"]),
    (r"12.5\%", [r"12.5\%", "0.125", r"\frac{1}{8}"], [r"1.25\%", "0.0125"]),
    (r"\frac{3}{4}", [r"\frac{3}{4}", "0.75", "3/4", r"\tfrac34", r"\frac{6}{8}", r"75\%"], [r"\frac{4}{3}", "0.7", "34"]),
    (r"2\frac{1}{3}", [r"2\frac{1}{3}", r"\frac{7}{3}", "7/3"], [r"\frac{2}{3}", "2.3"]),
    (r"-\frac{5}{2}", [r"-\frac{5}{2}", "-2.5", r"\frac{-5}{2}", "-5/2"], ["2.5", r"\frac{5}{2}"]),
    ("0.333", ["0.333"], ["0.3", "0.334", "333"]),
    ("3.14", ["3.14", "3.140"], ["314", "3.15"]),
    ("1e-7", [r"10^{-7}", "0.0000001", "1e-7", r"1 \times 10^{-7}"], ["0", "1e-6", "0.000001"]),
    (r"6.02 \times 10^{23}", [r"6.02 \times 10^{23}", r"6.02 \cdot 10^{23}", "6.02e23"], [r"6.02 \times 10^{22}", "6.02"]),
    (r"\$15", [r"\$15", "15", r"15 \text{ dollars}", "$15"], ["51", r"\$16"]),
    (r"\$1,250.50", [r"\$1,250.50", "1250.5", "1250.50"], ["1250", "125050"]),
    (r"5 \text{ cm}", [r"5 \text{ cm}", r"5\,\text{cm}", "5", r"5\mathrm{cm}"], ["6", r"50 \text{ cm}"]),
    (r"45^\circ", [r"45^\circ", r"45^{\circ}", "45", r"45 \text{ degrees}"], [r"46^\circ", "54"]),
    (r"\pi", [r"\pi", r"1\pi"], ["3", "3.14", r"2\pi"]),
    (r"\frac{\pi}{2}", [r"\frac{\pi}{2}", r"\pi/2", r"0.5\pi"], [r"\frac{2}{\pi}", r"\pi"]),
    (r"\sqrt{2}", [r"\sqrt{2}", r"\sqrt 2", "2^{1/2}"], ["2", r"\sqrt{3}", "1.4"]),
    (r"2\sqrt{3}", [r"2\sqrt{3}", r"\sqrt{12}", r"2 \cdot \sqrt{3}"], [r"3\sqrt{2}", r"\sqrt{6}"]),
    (r"\frac{\sqrt{2}}{2}", [r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"], [r"\sqrt{2}", r"\frac{\sqrt{3}}{2}"]),
    ("2^{10}", ["1024", "2^{10}", "1,024"], ["20", "2^{9}"]),
    (r"\infty", [r"\infty", r"+\infty"], [r"-\infty", "0"]),
    ("x^2+2x+1", ["x^2+2x+1", "(x+1)^2", "1+2x+x^2"], ["x^2+1", "(x-1)^2"]),
    ("2x+3", ["2x+3", "3+2x"], ["2x", "3x+2"]),
    ("y=2x+3", ["y=2x+3", "2x+3"], ["y=3x+2"]),
    ("x=5", ["5", "x=5", "x = 5"], ["x=6", "-5"]),
    (r"\{1,2,3\}", [r"\{1,2,3\}", r"\{3,2,1\}", r"\{ 1, 2, 3 \}"], [r"\{1,2\}", r"\{1,2,4\}", "3"]),
    ("1, 2, 3", ["1, 2, 3", "1,2,3", "3, 2, 1"], ["1, 2", "1, 2, 4", "123"]),
    ("(1, 2)", ["(1, 2)", "(1,2)", r"\left(1, 2\right)"], ["(2, 1)", "(1, 3)", "1"]),
    ("[0, 1)", ["[0, 1)", "[0,1)"], ["(0, 1)", "[0, 1]", "(0,1]"]),
    (r"(-\infty, 2) \cup (3, \infty)", [r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)\cup(3,\infty)"], [r"(-\infty, 2)", "(2, 3)"]),
    (r"x \in [1,2]", [r"[1,2]", r"x \in [1,2]"], ["(1,2)"]),
    (r"x \geq 3", [r"x \geq 3", r"x \ge 3"], [r"x > 3", r"x \leq 3"]),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"], [r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"]),
    ("3+4i", ["3+4i", "4i+3"], ["3-4i", "7"]),
    (r"\log_2 8", ["3", r"\log_2 8"], ["4"]),
    (r"\binom{5}{2}", ["10", r"\binom{5}{2}"], ["20"]),
    ("5!", ["120", "5!"], ["5", "24"]),
    (r"\text{Tuesday}", [r"\text{Tuesday}", "Tuesday"], [r"\text{Monday}", "Monday"]),
    (r"\text{even}", [r"\text{even}", "even"], [r"\text{odd}"]),
    ("B", ["B", r"\text{B}", r"\textbf{B}", r"\mathrm{B}"], ["C", "A"]),
    (r"101_2", [r"101_2", r"101_{2}", "101"], ["5.5", r"110_2"]),
    ("99999999999999999999", ["99999999999999999999", "99,999,999,999,999,999,999"], ["99999999999999999998", "1e20"]),
    ("1:2", ["1:2"], ["2:1", "1:3"]),
    ("10:30", ["10:30"], ["10:31", "1030"]),
]  # fmt: skip

FRAMES = {
    "sentence": r"So the answer is \boxed{%s}.",
    "display": r"\[ \boxed{%s} \]",
    "inline": r"Thus $\boxed{%s}$.",
    "bold": r"**Answer:** $\boxed{%s}$",
}
SHAPES = {
    # name: (text, right where %s is the right answer)
    "no box": ("The answer is %s.", False),
    "box open": (r"The answer is \boxed{%s", False),
    "box twice": (r"\boxed{%s}, that is, \boxed{%s}", True),
    "wrong box, then right": (r"First I had \boxed{-987654}. No: \boxed{%s}", None),
    "right box, then wrong": (r"\boxed{%s}. No: \boxed{-987654}", False),
    "box, then a mention": (r"\boxed{%s}. (Asked for: \boxed{}.)", None),
    "fbox": (r"\fbox{%s}", None),
    "box without braces": (r"\boxed %s", True),
    "box with a blank": (r"\boxed {%s}", True),
}


def cases(count: int, seed: int, gym_packages: Path) -> Iterator[Case]:
    for expected, right, wrong in FORMS:
        for answer, truth in [(text, True) for text in right] + [(text, False) for text in wrong]:
            yield _case(_row(expected), Response(rf"\boxed{{{answer}}}"), "form", truth)
        for name, frame in FRAMES.items():
            yield _case(_row(expected), Response(frame % right[0]), f"form, {name}", True)
    for row in rows("math", count, seed, range(1, 4)):
        yield _case(row, demonstrated(row), "demonstration", True)
        expected = row["expected_answer"]
        yield _case(row, Response(rf"\boxed{{{int(expected) + 1}}}"), "off by one", False)
        for name, (text, truth) in SHAPES.items():
            yield _case(row, Response(text.replace("%s", expected)), name, truth)
    for row in gym_rows(gym_packages, "math_with_judge"):
        if isinstance(row.get("expected_answer"), str) and "question" in row:
            bare = {key: value for key, value in row.items() if key != "response"}
            yield _case(bare, Response(rf"\boxed{{{row['expected_answer']}}}"), "the row's own answer", True)
            yield _case(bare, Response(r"\boxed{-987654}"), "another answer", False)
            if "response" in row:
                yield _case(bare, response_from_openai(row["response"]), "rollout", None)


def _row(expected: str) -> Row:
    asked = {"input": [{"role": "user", "content": "What is it?"}]}
    return {"responses_create_params": asked, "question": "What is it?", "expected_answer": expected}


def _case(row: Row, response: Response, origin: str, right: bool | None) -> Case:
    asks = gym("math_with_judge", row, response)
    asks["math-verify"] = {"expected": row["expected_answer"], "text": response.content}
    return Case("math", row, response, origin, right, asks)


def as_case(row: Row, response: Response) -> Case:
    return _case(row, response, "", None)
