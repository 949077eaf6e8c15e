"""Re-score a file of rollouts: each line a prompt row with `response`, as NeMo Gym writes them."""

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
from cascade.environments.registry import environment_of, get
from cascade.errors import CascadeError, RowError
from cascade.utils.files import open_atomic

PROGRESS_EVERY = 1_000
"""Lines between two calls of `progress`."""

CONCURRENT_LINES = 64
"""Lines judged concurrently where a server or a judge model may be used."""

REPLACED = ("reward", "failure", "extracted", "reason")

Scored = tuple[dict[str, Any], Verdict]
"""A line of the file, and its verdict."""


@dataclass
class Summary:
    """Counts over the lines that are not blank."""

    count: int = 0
    reward_sum: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    disagreements: int = 0
    """Lines whose numeric `reward` in the file differs from the new one."""
    compared: int = 0
    """Lines with a numeric `reward` in the file and a new one."""

    @property
    def scored(self) -> int:
        return self.count - self.failures.total()

    @property
    def mean_reward(self) -> float | None:
        """Mean over the lines with a reward; None where there are none."""
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
    """Score every line of `path` and write the lines with their verdicts, in their order, to `out`.

    Each rollout is judged by itself (`Environment.verify`), also where training compares the rollouts of a prompt:
    in human_preference it is compared with the row's `reference`.

    The environment is the NeMo Gym resources server at `gym_url`, else `environment`, else what the row names. Each
    line out is the line in with `reward` (null on failure), `failure` (a code), `extracted` and `reason`; a `reward`
    that came with the line is kept as `reward_given`. A line that cannot be judged is a failure with its reason,
    never an exception.
    Raises CascadeError where `path` cannot be read, `environment` is unknown or `gym_url` is not a server's address.
    """
    judge_environment = get(environment) if environment else None
    if gym_url is not None:
        from cascade.environments.gym_server import GymServer  # brings httpx

        judge_environment = GymServer(gym_url)
    summary = Summary()
    with ExitStack() as files:
        target: TextIO | None = files.enter_context(open_atomic(out)) if out else None
        for row, verdict in files.enter_context(
            closing(
                _score_lines(_lines(path), judge_environment, CONCURRENT_LINES if gym_url or judges.any_named() else 1)
            )
        ):
            _count(summary, row, verdict)
            if target:
                target.write(json.dumps(_with_verdict(row, verdict), default=str) + "\n")
            if progress and summary.count % PROGRESS_EVERY == 0:
                progress(summary.count)
    return summary


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise CascadeError(f"{path}: cannot be read ({error.strerror}); give a JSON Lines file of rollouts") from None


def _score_lines(
    lines: Iterable[tuple[int, bytes]], environment: Environment | None, at_once: int
) -> Generator[Scored, None, None]:
    """Yield results in the order of the lines, judging `at_once` concurrently, with as many more queued."""
    if at_once == 1:
        yield from (_score_line(line, number, environment) for number, line in lines)
        return
    pool = ThreadPoolExecutor(at_once)
    pending: deque[Future[Scored]] = deque()
    try:
        for number, line in lines:
            pending.append(pool.submit(_score_line, line, number, environment))
            if len(pending) == 2 * at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _score_line(line: bytes, number: int, environment: Environment | None) -> Scored:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"line": number}, Verdict(None, "bad_json", reason=f"line {number} is not JSON: {error}")
    if not isinstance(row, dict):
        return {"line": number}, Verdict(None, "bad_json", reason=f"line {number} is not a JSON object")
    try:
        check_grading(row)
        judge = environment or environment_of(row)
        if "response" not in row:
            raise RowError("no_response", "the row has no `response`")
        judge.check_row(row)
        return row, judge.verify(row, _read_response(row["response"]))
    except RowError as error:
        return row, Verdict(None, error.code, reason=f"line {number}: {error}")
    except Exception as error:
        # The following lines are still scored; the code distinguishes this from bad rows.
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
    given = row.get("reward")
    if isinstance(given, int | float):
        summary.compared += 1
        summary.disagreements += abs(given - verdict.reward) > 1e-6


def _with_verdict(row: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in REPLACED}
    if "reward" in row:
        kept["reward_given"] = row["reward"]
    return {**kept, **{key: getattr(verdict, key) for key in REPLACED}}
