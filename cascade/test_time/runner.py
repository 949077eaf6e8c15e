"""Carries out what searches ask for: all problems together, in steps, so that a step is one batch of responses.

With the torch engine a batch's composition changes rounding, so a batch that a kill interrupted is sampled again as a
whole: the rows that exist stay, the others come out as they would have. With vLLM only what is missing is sampled.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade.chat import Row, encode, format_of, prompt_of, render, turn_markers
from cascade.environments.code.grading import Undecided
from cascade.environments.competition.judging import Judgement, Trial, generated_inputs, judge, try_out
from cascade.environments.competition.problems import Problem
from cascade.errors import CascadeError, SandboxError
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe.sections import Rollout
from cascade.rollout import make_sampler
from cascade.rollout.base import Sample, Sampler, SampleRequest
from cascade.rollout.transcript import response_text
from cascade.test_time.requests import Generate, Generated, Outcome, Request, Result, Search, Stopped, Submit, TryOut
from cascade.test_time.trail import Trail
from cascade.utils.seeds import derive_seed

BATCH = 256
"""Responses of a batch of the torch engine: what a kill can cost."""


@dataclass
class Checkpoint:
    """A checkpoint that answers, with its sampler. `name` is that in the trail."""

    name: str
    policy: Policy
    sampler: Sampler


@contextmanager
def checkpoints(
    named: list[tuple[str, Path]], engine: str, settings: Rollout, threads: int = 1
) -> Iterator[list[Checkpoint]]:
    """The checkpoints, loaded, to sample with `threads` CPU threads. vLLM's servers, or its engine, are shared: they
    hold one at a time."""
    loaded: list[Checkpoint] = []
    try:
        for name, path in named:
            policy = make_policy(engine, path, None)
            shared = loaded[0].sampler if loaded and settings.engine == "vllm" else None
            loaded.append(Checkpoint(name, policy, shared or make_sampler(settings, policy, threads)))
        yield loaded
    finally:
        for sampler in {id(each.sampler): each.sampler for each in loaded}.values():
            sampler.close()


@dataclass
class Task:
    """A problem under search. `problem` where it has subtasks."""

    id: str
    row: Row
    search: Search
    problem: Problem | None = None
    inputs: int = 0
    """Generated inputs of a subtask."""
    waiting: list[Request] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass
class Seconds:
    """Where the time went."""

    sampling: float = 0.0
    executing: float = 0.0


Report = Callable[[list[Task]], None]


class Runner:
    """`seed_keys`: with a problem's id and a request's key, of every seed. `seconds`: the budget of all that the trail
    took."""

    def __init__(
        self,
        models: list[Checkpoint],
        settings: Rollout,
        trail: Trail,
        pool: ThreadPoolExecutor,
        seed_keys: tuple[int | str, ...],
        seconds: float | None = None,
    ):
        self._models = models
        self._settings = settings
        self._trail = trail
        self._pool = pool
        self._seed_keys = seed_keys
        self._limit = seconds
        self._loaded: str | None = models[0].name if models else None
        self.seconds = Seconds()
        self.failures: list[str] = []
        self.stopped = ""
        """Why the search was ended from outside; empty where it was not."""

    def run(self, tasks: list[Task], report: Report = lambda tasks: None) -> None:
        """Run every task's search to its outcome. `report` is called after every step."""
        for task in tasks:
            self._advance(task, None)
        while waiting := [task for task in tasks if task.outcome is None]:
            try:
                self._check_stop()
                results = self._step(waiting)
            except Stopped:
                for task in waiting:
                    _end(task)
                break
            finally:
                self._trail.save_clock()
            for task, found in zip(waiting, results, strict=True):
                self._advance(task, found)
            report(tasks)

    def _advance(self, task: Task, results: list[Result] | None) -> None:
        """Tell a search its results, until it asks for something."""
        try:
            task.waiting = next(task.search) if results is None else task.search.send(results)
            while not task.waiting:
                task.waiting = task.search.send([])
        except StopIteration as end:
            task.outcome = end.value

    def _step(self, tasks: list[Task]) -> list[list[Result]]:
        wanted = [(task, request) for task in tasks for request in task.waiting]
        for number in range(len(self._models)):
            asked = [(t, r) for t, r in wanted if isinstance(r, Generate) and r.checkpoint == number]
            if asked:
                self._sample(number, asked)
        self._execute([(task, request) for task, request in wanted if not isinstance(request, Generate)])
        return [[self._result(task, request) for request in task.waiting] for task in tasks]

    def _sample(self, number: int, asked: list[tuple[Task, Generate]]) -> None:
        began, model = time.perf_counter(), self._models[number]
        try:
            if self._settings.engine == "vllm":
                missing = [(t, r) for t, r in asked if self._row(t, r) is None]
                batches = [missing] if missing else []
            else:
                batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
                batches = [batch for batch in batches if any(self._row(t, r) is None for t, r in batch)]
            for batch in batches:
                self._check_stop()
                if self._settings.engine == "vllm" and self._loaded != model.name:
                    model.sampler.refresh(model.policy)
                    self._loaded = model.name
                self._sample_batch(model, batch)
        finally:
            self.seconds.sampling += time.perf_counter() - began

    def _sample_batch(self, model: Checkpoint, batch: list[tuple[Task, Generate]]) -> None:
        seeds = [derive_seed(*self._seed_keys, task.id, request.key) for task, request in batch]
        tokenizer, parse = model.policy.tokenizer, format_of(model.policy.tokenizer).parse
        prompts = [self._prompt(model, task, request) for task, request in batch]

        def on_finish(index: int, sample: Sample) -> None:
            task, request = batch[index]
            text = response_text(tokenizer, sample)
            _, tools = prompt_of(task.row)
            self._trail.add(
                {
                    "problem": task.id,
                    "key": request.key,
                    "kind": request.role,
                    "round": request.round,
                    "checkpoint": model.name,
                    "seed": seeds[index],
                    "prompt": _digest(request.prompt),
                    "text": text,
                    "content": parse(text, prompts[index], tools=tools, finished=sample.finished).content,
                    "tokens": len(sample.token_ids),
                    "finished": sample.finished,
                }
            )
            self._check_stop()

        model.sampler.sample(
            [SampleRequest(encode(tokenizer, prompt), seed) for prompt, seed in zip(prompts, seeds, strict=True)],
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            on_finish=on_finish,
        )

    def _prompt(self, model: Checkpoint, task: Task, request: Generate) -> str:
        """The row's messages, with what is asked in place of the last one: a system message, and the tools, stay.

        Turn markers are broken up: a response that the prompt shows cannot begin another role's turn."""
        assert isinstance(request, Generate)
        messages, tools = prompt_of(task.row)
        text = turn_markers(model.policy.tokenizer).sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", request.prompt)
        messages = [*messages[:-1], {**messages[-1], "content": text}]
        return render(model.policy.tokenizer, messages, tools, thinking=self._settings.thinking, for_generation=True)

    def _execute(self, asked: list[tuple[Task, Request]]) -> None:
        """Programs run in threads; rows are written in the order of the requests."""
        began = time.perf_counter()
        missing = [(task, request) for task, request in asked if self._row(task, request) is None]
        for row in self._pool.map(lambda pair: _executed(*pair), missing):
            if failure := row.get("failure"):
                self.failures.append(failure)
            self._trail.add(row)
        self.seconds.executing += time.perf_counter() - began

    def _row(self, task: Task, request: Request) -> dict[str, Any] | None:
        return self._trail.get(task.id, request.key)

    def _result(self, task: Task, request: Request) -> Result:
        row = self._row(task, request)
        assert row is not None
        if isinstance(request, Generate):
            if row["prompt"] != _digest(request.prompt):
                raise CascadeError(
                    f"{self._trail.path}: {task.id} {request.key}: was asked something else; the trail is of another "
                    "version, so remove its directory"
                )
            return Generated(row["content"], row["tokens"], row["finished"])
        if "failure" in row:
            return None
        if isinstance(request, TryOut):
            return Trial(row["passes"], tuple(map(tuple, row["behaviours"])))
        return Judgement(tuple(row["shares"]), tuple(row["verdicts"]))

    def _check_stop(self) -> None:
        """Raises Stopped."""
        if self._limit is not None and self._trail.seconds() >= self._limit:
            self.stopped = f"its {self._limit:g} seconds are spent"
        elif self._trail.is_stopped():
            self.stopped = "the stop file is there"
        if self.stopped:
            raise Stopped


def _end(task: Task) -> None:
    try:
        task.search.throw(Stopped())
    except StopIteration as end:
        task.outcome = end.value
    assert task.outcome is not None


def _executed(task: Task, request: Request) -> dict[str, Any]:
    """The row of a program that was tried out or submitted."""
    assert task.problem is not None
    row: dict[str, Any] = {"problem": task.id, "key": request.key, "round": request.round}
    try:
        if isinstance(request, TryOut):
            subtasks = range(len(task.problem.subtasks))
            inputs = [generated_inputs(task.problem, number, task.inputs) for number in subtasks]
            trial = try_out(task.problem, request.program, inputs)
            return {**row, "kind": "try", "passes": trial.passes, "behaviours": list(map(list, trial.behaviours))}
        assert isinstance(request, Submit)
        found = judge(task.problem, request.program)
        kind = "submit" if request.counted else "judge"
        return {**row, "kind": kind, "shares": list(found.shares), "verdicts": list(found.verdicts)}
    except (SandboxError, Undecided) as error:
        code = getattr(error, "code", "sandbox")
        return {**row, "kind": "failed", "failure": code, "reason": str(error)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
