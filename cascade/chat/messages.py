"""Types of messages, rows and responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]
    written: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Arguments as text, where the call was written so: `arguments` has 1 for `1`, and no longer knows of `1.0`."""
    id: str = field(default="", compare=False, repr=False)
    """As the model wrote it; empty in dialects without."""

    def text(self, name: str) -> str | None:
        """The argument as it was written; None where it is missing or not text."""
        value = self.written.get(name, self.arguments.get(name))
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Response:
    """A parsed response of the assistant.

    `finished` is False when the response was truncated by a limit. `malformed` says why a tool call could
    not be read; environments treat it as a wrong answer, not as a failure.
    """

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finished: bool = True
    malformed: str | None = None


def text_of(content: Any) -> str:
    """The text of a message's `content`, given as text or as a list of parts."""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
    return content or ""
