"""The questions of generate–verify–refine, for any problem in words, and how their answers are read.

The rubric, complete 1, something left out ½, wrong 0, is that of DeepSeekMath-V2 (arXiv 2511.22570).
"""

import re

from cascade.environments.shared.boxed import boxed

SCORES = (0.0, 0.5, 1.0)

_VERIFY = (
    "{problem}\n\nAnswer:\n{answer}\n\nCheck every step of this answer, say what is wrong, and give its score in "
    "\\boxed{{}}: 1 if it is right and complete, 0.5 if it leaves something out, 0 if a step is wrong."
)
_REFINE = "{problem}\n\nAn earlier answer:\n{answer}\n\nWhat reviewers say:\n{critiques}\n\nWrite a better answer."
_NUMBER = re.compile(r"(?:0|1|0?\.5|0\.50|0\.0|1\.0|1/2|\\[dt]?frac\{?1\}?\{?2\}?)")


def verify_prompt(problem: str, answer: str) -> str:
    return _VERIFY.format(problem=problem, answer=answer)


def refine_prompt(problem: str, answer: str, critiques: list[str]) -> str:
    return _REFINE.format(problem=problem, answer=answer, critiques="\n".join(f"- {words}" for words in critiques))


def critique(words: str, score: float) -> str:
    """What a verifier answers: `score_of` and `words_of` read it."""
    return f"{words}\n\\boxed{{{score:g}}}"


def score_of(text: str) -> float | None:
    """0, 0.5 or 1 out of the last \\boxed{}; None where it has none of them."""
    inside = (boxed(text) or "").strip()
    if not _NUMBER.fullmatch(inside):
        return None
    return 0.5 if "2" in inside or "5" in inside else float(inside)


def words_of(text: str) -> str:
    """The critique without its score, on one line."""
    return " ".join(text[: text.rfind("\\boxed")].split() if "\\boxed" in text else text.split())
