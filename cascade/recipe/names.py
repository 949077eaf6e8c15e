"""Names that MLflow accepts. It would reject others only at the end of the run."""

import re
from typing import Annotated

from pydantic import AfterValidator


def _nameable(name: str) -> str:
    if not re.fullmatch(r"\w(?:[\w .-]*\w)?", name) or len(name) > 200:
        raise ValueError(
            f"{name!r} cannot be a name in MLflow; letters, digits, spaces, _ . and - alone, a letter or digit first "
            "and last, 200 characters at most"
        )
    return name


def _alias(name: str) -> str:
    if not re.fullmatch(r"[\w-]{1,200}", name) or re.fullmatch(r"latest|v\d+", name, re.IGNORECASE):
        raise ValueError(
            f"{name!r} cannot be an alias in MLflow; letters, digits, _ and - alone, 200 characters at most, "
            "and neither latest nor v and a number"
        )
    return name


Name = Annotated[str, AfterValidator(_nameable)]
"""Name of an experiment or a model, or part of a metric's or tag's name."""

Alias = Annotated[str, AfterValidator(_alias)]
"""Alias of a model version."""
