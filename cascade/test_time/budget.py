"""Hard budgets of one problem: nothing is asked for that could exceed them."""

from dataclasses import dataclass


@dataclass
class Ledger:
    """What may be spent, and what was. None: no limit. A response is asked for only where `max_new_tokens`, the most
    that it can take, is left."""

    max_new_tokens: int
    generations: int | None = None
    tokens: int | None = None
    submissions: int | None = None
    spent_generations: int = 0
    spent_tokens: int = 0
    spent_submissions: int = 0

    def affordable(self, wanted: int) -> int:
        """How many of these responses may be asked for."""
        if self.generations is not None:
            wanted = min(wanted, self.generations - self.spent_generations)
        if self.tokens is not None:
            wanted = min(wanted, (self.tokens - self.spent_tokens) // self.max_new_tokens)
        return max(wanted, 0)

    def whole(self, wanted: int, cost: int) -> int:
        """How many of `wanted` things, each of `cost` responses, may be asked for."""
        return min(wanted, self.affordable(wanted * cost) // cost)

    def generated(self, tokens: list[int]) -> None:
        self.spent_generations += len(tokens)
        self.spent_tokens += sum(tokens)

    @property
    def submissions_left(self) -> int | None:
        return None if self.submissions is None else self.submissions - self.spent_submissions
