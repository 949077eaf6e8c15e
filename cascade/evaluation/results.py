"""Evaluation results: one row for each rollout, one for each prompt, one summary.

Score means avg@k throughout: the mean reward of a prompt's k rollouts, averaged over prompts. pass@1 and
pass@k count a rollout as a solution where its reward is 1. A rollout without a verdict counts only as a
failure.
"""

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cascade.errors import CascadeError
from cascade.evaluation.statistics import SOLVED, Interval, mean_interval, pass_at_k
from cascade.layout import Layout
from cascade.tracking import EVALUATED, Journal
from cascade.tracking.journal import COMPARABLE
from cascade.utils.files import fingerprint, hash_file, read_json, write_atomic

ROLLOUTS = pa.schema(
    [
        ("domain", pa.string()),
        ("prompt_id", pa.string()),
        ("rollout", pa.int32()),
        ("reward", pa.float64()),
        ("failure", pa.string()),
        ("reason", pa.string()),
        ("length", pa.int32()),
        ("finished", pa.bool_()),
        ("prompt", pa.string()),
        ("response", pa.string()),
    ]
)
"""`reward` is null where `failure` is not; `length` is in tokens, the end-of-turn token included."""

PROMPT_COLUMNS = ["domain", "prompt_id", "rollouts", "solved", "reward"]


@dataclass(frozen=True)
class PromptResult:
    """One benchmark prompt: of `rollouts` with a verdict, `solved` are solutions; `reward` is their mean."""

    prompt_id: str
    rollouts: int
    solved: int
    reward: float


@dataclass(frozen=True)
class EvaluationResult:
    """The per-prompt results of one checkpoint on every domain's benchmark."""

    node: str
    checkpoint: str
    """Hash of the evaluated checkpoint (files.hash_directory)."""
    domains: dict[str, list[PromptResult]]

    def score(self, domain: str) -> float:
        results = self.of(domain)
        return sum(r.reward for r in results) / len(results)

    def interval(self, domain: str) -> Interval:
        results = self.of(domain)
        return mean_interval([r.reward for r in results], sum(r.rollouts for r in results))

    def of(self, domain: str) -> list[PromptResult]:
        """Raises CascadeError where the domain was not evaluated."""
        if not self.domains.get(domain):
            raise CascadeError(f"the evaluation of {self.node} has no results for domain {domain!r}; evaluate it again")
        return self.domains[domain]


def prompt_results(rollouts: list[dict[str, Any]]) -> dict[str, list[PromptResult]]:
    """Rollout rows → results by domain, in the order of the rows. Prompts without any verdict are left out."""
    rewards: dict[tuple[str, str], list[float]] = {}
    for line in rollouts:
        prompt_rewards = rewards.setdefault((line["domain"], line["prompt_id"]), [])
        if line["reward"] is not None:
            prompt_rewards.append(line["reward"])
    domains: dict[str, list[PromptResult]] = defaultdict(list)
    for (domain, prompt_id), values in rewards.items():
        if values:
            solved = sum(value >= SOLVED for value in values)
            domains[domain].append(PromptResult(prompt_id, len(values), solved, sum(values) / len(values)))
    return dict(domains)


def check_is_its_own(node: str, checkpoint: str, layout: Layout) -> None:
    """Raises CascadeError where `checkpoint`, the hash of what is under models/, is not of what the node wrote."""
    path = layout.training(node) / "manifest.json"
    if path.exists() and read_json(path)["checkpoint"] != checkpoint:
        raise CascadeError(
            f"{layout.checkpoint(node)}: its files are not those that the node wrote; "
            f"`cascade node {node}` makes it again"
        )


def summarise(evaluation: EvaluationResult, rollouts: list[dict[str, Any]], k: int) -> dict[str, Any]:
    """The DVC metric: per domain and the mean over domains. Shares and rewards lie in [0, 1]."""
    domains: dict[str, dict[str, float]] = {}
    for domain, results in evaluation.domains.items():
        lines = [line for line in rollouts if line["domain"] == domain]
        interval = evaluation.interval(domain)
        # pass@k needs k verdicts; a prompt with failures would count as harder than it is.
        complete = [r for r in results if r.rollouts == k]
        solved = {
            f"pass@{n}": sum(pass_at_k(k, r.solved, n) for r in complete) / len(complete)
            for n in _ks(k)
            if n > 1 and complete
        }
        domains[domain] = {
            "avg@k": evaluation.score(domain),
            "ci_low": interval.low,
            "ci_high": interval.high,
            "pass@1": sum(r.solved / r.rollouts for r in results) / len(results),
            **solved,
            "truncated": sum(not line["finished"] for line in lines) / len(lines),
            "length": sum(line["length"] for line in lines) / len(lines),
            "failures": sum(line["failure"] is not None for line in lines),
            "prompts": len(results),
        }
    names = [name for name in next(iter(domains.values())) if name == "avg@k" or name.startswith("pass@")]
    mean = {name: sum(values[name] for values in domains.values()) / len(domains) for name in names}
    return {"checkpoint": evaluation.checkpoint, "k": k, "mean": mean, "domains": domains}


def _ks(k: int) -> list[int]:
    """1, 2, 4, … and k itself."""
    return sorted({2**i for i in range(k.bit_length())} | {k})


def write_prompts(path: Path, domains: dict[str, list[PromptResult]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PROMPT_COLUMNS)
    for domain, results in domains.items():
        writer.writerows([domain, r.prompt_id, r.rollouts, r.solved, repr(r.reward)] for r in results)
    write_atomic(path, text.getvalue())


def read_prompts(path: Path) -> dict[str, list[PromptResult]]:
    """Raises CascadeError naming the file that is missing or is not a prompts.csv."""
    try:
        return parse_prompts(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise CascadeError(f"{path}: no such file; evaluate the checkpoint first") from None
    except UnicodeDecodeError as error:
        raise CascadeError(f"{path}: not the per-prompt results of an evaluation ({error!r})") from None


def parse_prompts(text: str, source: str) -> dict[str, list[PromptResult]]:
    """The content of a prompts.csv. Raises CascadeError naming `source` where it is not one."""
    domains: dict[str, list[PromptResult]] = defaultdict(list)
    try:
        for line in csv.DictReader(io.StringIO(text, newline="")):
            result = PromptResult(line["prompt_id"], int(line["rollouts"]), int(line["solved"]), float(line["reward"]))
            domains[line["domain"]].append(result)
    except (KeyError, TypeError, ValueError) as error:
        raise CascadeError(f"{source}: not the per-prompt results of an evaluation ({error!r})") from None
    return dict(domains)


def load_result(layout: Layout, node: str) -> EvaluationResult:
    """A node's evaluation from its files. Raises CascadeError when it is missing or is not an evaluation."""
    directory = layout.evaluation(node)
    summary = read_json(directory / "summary.json")
    try:
        lines = pq.read_table(directory / "rollouts.parquet", columns=["domain", "prompt_id", "reward"]).to_pylist()
        return EvaluationResult(node, summary["checkpoint"], prompt_results(lines))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise CascadeError(f"{directory}: not an evaluation ({error!r}); `cascade evaluate {node}` makes it") from None


def record(journal: Journal, layout: Layout, node: str) -> None:
    """Write a finished evaluation to its journal, from its files, replacing earlier entries."""
    directory = layout.evaluation(node)
    summary = read_json(directory / "summary.json")
    journal.rewind(0)
    journal.metrics({f"eval/{name}": value for name, value in summary["mean"].items()}, step=0)
    for domain, values in summary["domains"].items():
        journal.metrics({f"eval/{domain}/{name}": value for name, value in values.items()}, step=0)
        benchmark = layout.benchmark(domain)
        if benchmark.exists():
            journal.dataset(f"benchmark/{domain}", benchmark, hash_file(benchmark), "evaluation")
    write_prompts(directory / "prompts.csv", load_result(layout, node).domains)
    for file in ("summary.json", "prompts.csv"):
        journal.artifact(directory / file, "evaluation")
    inputs = {k: v for k, v in read_json(directory / "manifest.json")["inputs"].items() if k != "checkpoint"}
    journal.tags({EVALUATED: summary["checkpoint"], COMPARABLE: fingerprint(inputs)})


def write_rollouts(path: Path, lines: list[dict[str, Any]], metadata: dict[str, str] | None = None) -> None:
    """Write rollout rows as Parquet; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    schema = ROLLOUTS.with_metadata(metadata) if metadata else ROLLOUTS
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def write_check_rollouts(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write rollout rows with the `node` whose checkpoint they are of; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    schema = pa.schema([("node", pa.string()), *ROLLOUTS])
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())
