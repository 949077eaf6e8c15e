"""Reading \\boxed{…} out of a response."""

_MARKER = "\\boxed{"


def boxed(text: str, *, last: bool = True) -> str | None:
    """The content of the last (or first) \\boxed{…}, braces balanced; None where there is none or it is not closed."""
    start = text.rfind(_MARKER) if last else text.find(_MARKER)
    if start < 0:
        return None
    start += len(_MARKER)
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None
