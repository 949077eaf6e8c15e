"""Re-scoring of a file of rollouts: each line is a prompt row with `response`, as NeMo Gym writes them."""

import json
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cascade import judges
from cascade.chat import Response, response_from_openai
from cascade.environments.base import Environment, Verdict, check_grading
from cascade.environments.registry import MODULES, called, environment_of, get, names, renamed
from cascade.errors import CascadeError, RowError
from cascade.utils.files import open_atomic

PROGRESS_EVERY = 1_000
"""Lines between two calls of `progress`."""

ASKED_AT_ONCE = 64
"""Lines verified concurrently if a server or one of the recipe's judges may be asked: waiting costs no CPU time."""

REPLACED = ("reward", "failure", "extracted", "reason")

Scored = tuple[dict[str, Any], Verdict]
"""A line as it was read, and its verdict."""


@dataclass
class Summary:
    """Totals over the non-blank lines."""

    count: int = 0
    reward_sum: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    disagreements: int = 0
    """Lines with a numeric `reward` whose new reward differs from it."""
    compared: int = 0
    """Lines with a numeric `reward` that got a new reward."""

    @property
    def scored(self) -> int:
        return self.count - self.failures.total()

    @property
    def mean_reward(self) -> float | None:
        """Mean over the lines that got a reward; None if none did."""
        return self.reward_sum / self.scored if self.scored else None

    def __str__(self) -> str:
        mean = "none" if self.mean_reward is None else f"{self.mean_reward:.4f}"
        lines = [f"{self.count} rollouts, {self.scored} scored, mean reward {mean}, {self.failures.total()} failures"]
        lines += [f"  {code}: {number}" for code, number in self.failures.most_common()]
        if self.compared:
            lines.append(f"{self.compared} came with a reward; {self.disagreements} of them differ from it")
        return "\n".join(lines)


def score_file(
    path: Path,
    environment: str | None = None,
    out: Path | None = None,
    progress: Callable[[int], None] | None = None,
    gym_url: str | None = None,
) -> Summary:
    """Score every line of `path` and write the lines with their verdicts, in the same order, to `out`.

    Each rollout is verified by itself (`Environment.verify`), also in environments whose training compares the
    rollouts of a prompt: in human_preference it is compared with the row's `reference`.

    The environment is the NeMo Gym resources server at `gym_url`, else `environment`, else the one that the row names.
    If `environment` is one of NeMo Gym's names, rows are verified as if they named it. Each output line is the input
    line with `reward` (null on failure), `failure` (a code), `extracted` and `reason`; the input's `reward` becomes
    `reward_given`. A line that cannot be verified is a failure with its reason, never an exception.
    Raises CascadeError if `path` cannot be read, `environment` is unknown or `gym_url` is not a server's address.
    """
    override = _environment(environment) if environment else None
    gym_name = environment if environment and environment not in MODULES else None
    if gym_url is not None:
        from cascade.environments.gym_server import GymServer  # imports httpx

        override, gym_name = GymServer(gym_url), None
    summary = Summary()
    with ExitStack() as files:
        target: TextIO | None = files.enter_context(open_atomic(out)) if out else None
        for row, verdict in files.enter_context(
            closing(
                _score_lines(_lines(path), override, gym_name, ASKED_AT_ONCE if gym_url or judges.any_named() else 1)
            )
        ):
            _count(summary, row, verdict)
            if target:
                target.write(json.dumps(_with_verdict(row, verdict), default=str) + "\n")
            if progress and summary.count % PROGRESS_EVERY == 0:
                progress(summary.count)
    return summary


def _environment(name: str) -> Environment:
    environment = called(name)
    if environment is None:
        gym = sorted({alias for known in names() for alias in get(known).gym_names})
        known = f"{', '.join(names())}, and what begins with NeMo Gym's {', '.join(gym)}"
        raise CascadeError(f"unknown environment {name!r}; known: {known}")
    return environment


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise CascadeError(f"{path}: cannot be read ({error.strerror}); give a JSON Lines file of rollouts") from None


def _score_lines(
    lines: Iterable[tuple[int, bytes]], override: Environment | None, gym_name: str | None, at_once: int
) -> Generator[Scored, None, None]:
    """Verdicts in the order of the lines: `at_once` lines at a time, and as many again queued."""
    if at_once == 1:
        yield from (_score_line(line, number, override, gym_name) for number, line in lines)
        return
    pool = ThreadPoolExecutor(at_once)
    futures: deque[Future[Scored]] = deque()
    try:
        for number, line in lines:
            futures.append(pool.submit(_score_line, line, number, override, gym_name))
            if len(futures) == 2 * at_once:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _score_line(line: bytes, number: int, override: Environment | None, gym_name: str | None) -> Scored:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"line": number}, Verdict(None, "bad_json", reason=f"line {number} is not JSON: {error}")
    if not isinstance(row, dict):
        return {"line": number}, Verdict(None, "bad_json", reason=f"line {number} is not a JSON object")
    try:
        check_grading(row)
        environment = override or environment_of(row)
        if "response" not in row:
            raise RowError("no_response", "the row has no `response`")
        named_row = renamed(row, gym_name) if gym_name else row
        environment.check_row(named_row)
        return row, environment.verify(named_row, _read_response(row["response"]))
    except RowError as error:
        return row, Verdict(None, error.code, reason=f"line {number}: {error}")
    except Exception as error:
        # The remaining lines are still scored; the failure code distinguishes this from a bad row.
        return row, Verdict(None, "verifier_error", reason=f"line {number}: {type(error).__name__}: {error}")


def _read_response(response: Any) -> Response:
    try:
        return response_from_openai(response)
    except (AttributeError, KeyError, TypeError) as error:
        raise RowError("bad_response", f"`response` has an item that cannot be read: {error!r}") from None


def _count(summary: Summary, row: dict[str, Any], verdict: Verdict) -> None:
    summary.count += 1
    if verdict.reward is None:
        summary.failures[verdict.failure or ""] += 1
        return
    summary.reward_sum += verdict.reward
    old_reward = row.get("reward")
    if isinstance(old_reward, int | float):
        summary.compared += 1
        summary.disagreements += abs(old_reward - verdict.reward) > 1e-6


def _with_verdict(row: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    fields = {key: value for key, value in row.items() if key not in REPLACED}
    if "reward" in row:
        fields["reward_given"] = row["reward"]
    return {**fields, **{key: getattr(verdict, key) for key in REPLACED}}
