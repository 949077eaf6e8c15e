"""Whether two written answers mean the same. Runs in a worker process: SymPy may not come back."""

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify


def equal(expected: str, answer: str) -> bool:
    """Both are the content of a \\boxed{}. The library's own time limits need the main thread: they are off."""
    gold = parse(f"\\boxed{{{expected}}}", [LatexExtractionConfig()], parsing_timeout=None)
    found = parse(f"\\boxed{{{answer}}}", [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None)
    return bool(verify(gold, found, timeout_seconds=None))
