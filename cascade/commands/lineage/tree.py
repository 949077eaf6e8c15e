"""A tree in plain text."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Branch:
    line: str
    branches: list["Branch"] = field(default_factory=list)

    def add(self, line: str) -> "Branch":
        self.branches.append(Branch(line))
        return self.branches[-1]

    def lines(self) -> list[str]:
        return [self.line, *self._below()]

    def _below(self) -> Iterator[str]:
        for branch in self.branches:
            last = branch is self.branches[-1]
            yield ("└─ " if last else "├─ ") + branch.line
            yield from (("   " if last else "│  ") + line for line in branch._below())
