"""Held-out benchmarks: k responses a prompt, the same seeds for every checkpoint, so comparisons are paired."""

import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from cascade import environments, judges
from cascade.chat import prompt_of, render
from cascade.errors import CascadeError
from cascade.evaluation.results import (
    EvaluationResult,
    prompt_results,
    record,
    summarise,
    write_prompts,
    write_rollouts,
)
from cascade.files import fingerprint, hash_directory, hash_file, read_json, write_json
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.progress import say
from cascade.recipe import BASE, PLACEMENT, Evaluation, Node, Recipe
from cascade.rollout import make_sampler
from cascade.rollout.base import Sampler
from cascade.rollout.driver import Answer, Driver, Question
from cascade.seeds import derive_seed
from cascade.tracking import evaluation_journal
from cascade.training.prompts import Prompt, load_prompts
from cascade.training.run import checkpoint_of

MAX_FAILURE_RATE = 0.1
"""Share of a domain's rollouts without a verdict above which its score would say little about the model."""


def evaluate(
    recipe: Recipe, node: str, layout: Layout, checkpoint: Path | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Evaluate a node's checkpoint on every domain's benchmark and return the summary.

    Writes to results/evaluations/NODE, or to `out`: summary.json, prompts.csv (one line a prompt),
    rollouts.parquet (one line a rollout), manifest.json (hashes of what was evaluated). Finished domains are
    kept in the work directory until all are, so an evaluation that was killed goes on where it was. Where the node
    passed the checkpoint of its `init` on, what was found of that one is taken over.

    Every response is judged by itself (`Environment.verify`), so scores compare between checkpoints: where a
    domain's reward is relative, against the row's reference.

    Only an evaluation of the node's own checkpoint enters the node's journal.
    Raises CascadeError for a missing checkpoint or benchmark, or too many rollouts without a verdict.
    """
    source = checkpoint or checkpoint_of(recipe, layout, node)
    out_dir = out or layout.evaluation(node)
    settings = recipe.evaluation
    checkpoint_hash = hash_directory(source)
    inputs = {
        "checkpoint": checkpoint_hash,
        "settings": settings.model_dump(mode="json", exclude={"rollout": PLACEMENT}),
        "seed": recipe.seed,
        "benchmarks": {domain: _benchmark_hash(layout, domain) for domain in recipe.domains},
        **recipe.judges.inputs,
    }
    torch.set_num_threads(recipe.threads)
    work = layout.work(f"{node}.evaluation") / fingerprint(inputs)[:16]
    own = out is None and checkpoint is None
    lines: list[dict[str, Any]] = _taken_over(recipe, node, layout, inputs) if own else []
    benchmark: Benchmark | None = None
    for domain in recipe.domains if not lines else ():
        kept = work / f"{domain}.parquet"
        if not kept.exists():
            benchmark = benchmark or Benchmark(recipe, _engine(recipe, node), source)
            began = time.perf_counter()
            found = benchmark.run(load_prompts(layout.benchmark(domain), domain))
            _check_failures(node, domain, found)
            write_rollouts(kept, found)
            say(f"{node}: {domain}: {len(found)} rollouts judged in {time.perf_counter() - began:.1f} s")
            if (usage := judges.take_usage()).requests:
                say(f"{node}: {domain}: the judge took {usage}")
        lines += pq.read_table(kept).to_pylist()
    if benchmark is not None:
        benchmark.close()
    result = EvaluationResult(node, checkpoint_hash, prompt_results(lines))
    summary = summarise(result, lines, settings.rollouts)
    write_rollouts(out_dir / "rollouts.parquet", lines)
    write_prompts(out_dir / "prompts.csv", result.domains)
    write_json(out_dir / "manifest.json", {"node": node, "inputs": inputs, "checkpoint": checkpoint_hash})
    write_json(out_dir / "summary.json", summary)
    if own:
        record(evaluation_journal(layout, node), layout, node)
    shutil.rmtree(work.parent, ignore_errors=True)
    return summary


def _taken_over(recipe: Recipe, node: str, layout: Layout, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """A repair's: the rollouts of the evaluation of its `init`, where that was made from the very same inputs."""
    section = recipe.repair.get(node)
    if section is None or section.engine != _engine(recipe, section.init):
        return []
    found = layout.evaluation(section.init)
    if not all((found / file).exists() for file in ("manifest.json", "rollouts.parquet")):
        return []
    if read_json(found / "manifest.json")["inputs"] != inputs:
        return []
    say(f"{node}: evaluated as {section.init}, whose checkpoint it passes on")
    return pq.read_table(found / "rollouts.parquet").to_pylist()


class Benchmark:
    """A checkpoint, loaded to answer prompts."""

    def __init__(self, recipe: Recipe, engine: str, checkpoint: Path):
        self._seed = recipe.seed
        self._settings: Evaluation = recipe.evaluation
        self._policy: Policy = make_policy(engine, checkpoint, None)
        self._sampler: Sampler = make_sampler(recipe.evaluation.rollout, self._policy)
        self._pool = ThreadPoolExecutor(max_workers=recipe.judging_threads)

    def run(self, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """One line a rollout, prompts in their order."""
        settings, tokenizer = self._settings.rollout, self._policy.tokenizer
        rows = [prompt.row for prompt in prompts]
        driver = Driver(self._sampler, tokenizer, self._pool, settings, together=False, judge_unfinished=True)
        questions = [
            Question(
                row,
                environments.get(prompt.environment),
                [derive_seed(self._seed, "benchmark", prompt.id, j) for j in range(self._settings.rollouts)],
            )
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        texts = [render(tokenizer, *prompt_of(r), thinking=settings.thinking, for_generation=True) for r in rows]
        return [
            _line(prompt, text, rollout, answer)
            for prompt, text, answers in zip(prompts, texts, driver.ask(questions).groups, strict=True)
            for rollout, answer in enumerate(answers)
        ]

    def close(self) -> None:
        self._sampler.close()
        self._pool.shutdown()


def _line(prompt: Prompt, text: str, rollout: int, answer: Answer) -> dict[str, Any]:
    assert answer.verdict is not None
    return {
        "domain": prompt.domain,
        "prompt_id": prompt.id,
        "rollout": rollout,
        "reward": answer.verdict.reward,
        "failure": answer.verdict.failure,
        "reason": answer.verdict.reason,
        "length": answer.transcript.length,
        "finished": answer.transcript.finished,
        "prompt": text,
        "response": answer.text,
    }


def _check_failures(node: str, domain: str, lines: list[dict[str, Any]]) -> None:
    codes = Counter(line["failure"] for line in lines if line["failure"] is not None)
    if codes.total() > MAX_FAILURE_RATE * len(lines):
        shown = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        raise CascadeError(
            f"evaluation of {node}: {domain}: {codes.total()} of {len(lines)} rollouts have no verdict ({shown}), "
            f"above {MAX_FAILURE_RATE:.0%}; mend the verifier or the benchmark's rows, then rerun"
        )


def _benchmark_hash(layout: Layout, domain: str) -> str:
    path = layout.benchmark(domain)
    if not path.exists():
        raise CascadeError(f"{path}: no such file; curation writes it (`cascade node curate`)")
    return hash_file(path)


def _engine(recipe: Recipe, node: str) -> str:
    section = recipe.node(node) if node != BASE else None
    return section.engine if isinstance(section, Node) else "hf"
