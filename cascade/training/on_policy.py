"""The one on-policy loop, for RL and for multi-domain distillation.

Draw prompts; sample a group for each; verify; drop zero-variance groups and refill; advantages (group-relative,
or teacher log-ratio); one optimizer step; log; save. Strictly on-policy: one step per batch of fresh rollouts.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

from cascade.errors import CascadeError, RecipeError
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe import Distillation, DistillNode, OnPolicyNode, Recipe, RLNode
from cascade.rollout import make_sampler
from cascade.training import task_vectors
from cascade.training.algorithms import GRPO, MOPD, AdvantageSource
from cascade.training.batch import Batch
from cascade.training.collector import Collector
from cascade.training.difficulty import (
    SignalWatch,
    as_json,
    choose_levels,
    from_json,
    in_words,
    measure,
)
from cascade.training.lr_schedule import learning_rate
from cascade.training.metrics import Halves, Metrics, agreement_metrics, rollout_metrics, step_metrics
from cascade.training.node_run import NodeRun, require_files
from cascade.training.prompts import Cursor, Prompt, PromptSource, load_prompts
from cascade.training.recovery import HeldOutScores, RecoveryMonitor, set_aside
from cascade.training.samples import sample_rows
from cascade.training.teacher_scoring import (
    Teacher,
    Teachers,
    check_compatible,
    chosen_teachers,
    shares,
    teacher_inputs,
)
from cascade.utils import distributed
from cascade.utils.progress import Progress, say

AfterStep = Callable[[int, Policy, Metrics], None]
"""(number of finished steps, policy, metrics of the last step)."""


def run_on_policy(recipe: Recipe, name: str, layout: Layout, after_step: AfterStep | None = None) -> None:
    """Train node `name` of section `rl`, `distill` or `repair` and publish its checkpoint. `after_step` is called
    after every step.

    Raises CascadeError when trainer and sampler disagree by more than `max_log_prob_gap`, when too many
    rollouts have no verdict, when too few prompts of an RL node teach (`min_teaching`), and when an input is missing or
    does not fit.
    """
    node = recipe.node(name)
    assert isinstance(node, OnPolicyNode)
    _check_sampling(name, node)
    files = {domain: layout.prompts(domain) for domain in node.mix}
    require_files(list(files.values()), "`cascade node curate` writes it")
    teachers = chosen_teachers(recipe, name, layout) if isinstance(node, Distillation) else {}
    common_start = task_vectors.common_start(recipe, node, teachers, layout)
    run = NodeRun(recipe, name, layout, list(files.values()), teacher_inputs(teachers, common_start))
    run.set_up_torch()

    policy = run.load_policy()
    advantages = _advantage_source(node, run, teachers)
    state = run.resume(policy)
    recovery = state.progress.pop("recovery", None)
    measured = state.progress.pop("difficulty", None)
    cursor = Cursor(**state.progress)
    prompts = {domain: load_prompts(path, domain) for domain, path in files.items()}
    held_out = set_aside(prompts, node.held_out) if isinstance(node, Distillation) and node.held_out else None
    mix = shares(node, teachers) if isinstance(node, Distillation) else node.mix
    progress = Progress(name, node.steps, state.step)
    watch = SignalWatch(node, name, run.earlier_metrics()) if isinstance(node, RLNode) else None

    with (
        ThreadPoolExecutor(recipe.judging_threads) as pool,
        closing(make_sampler(node.rollout, policy)) as sampler,
    ):

        def collector_of(prompts: dict[str, list[Prompt]]) -> Collector:
            source = PromptSource(prompts, mix, recipe.seed, name, cursor=cursor)
            return Collector(node, name, recipe.seed, sampler, policy.tokenizer, source, pool)

        if isinstance(node, RLNode) and node.difficulty:
            if measured:
                found = from_json(measured)
            else:
                with distributed.step():
                    sampler.refresh(policy)
                    found = measure(node, name, recipe.seed, prompts, collector_of(prompts))
            for domain, words in in_words(node, found).items():
                say(f"{name}: {domain}: {words}")
                run.journal.tags({f"difficulty/{domain}": words})
            prompts, measured = choose_levels(node, name, prompts, found), as_json(found)
        collector = collector_of(prompts)
        monitor = None
        if held_out is not None:
            assert isinstance(node, Distillation)
            scores = HeldOutScores(held_out, node, policy.tokenizer, pool, recipe.seed, name)
            monitor = RecoveryMonitor(node, scores, teachers, recovery)
            with distributed.step():
                monitor.measure_ends(policy, sampler)
        if state.step == 0 and isinstance(node, DistillNode) and common_start is not None:
            checkpoints = [teacher.checkpoint for teacher in teachers.values()]
            task_vectors.merge_into(policy.model, common_start, checkpoints, node.merge_scale)
        for step in range(state.step, node.steps):
            began = time.perf_counter()
            with distributed.step():
                sampler.refresh(policy)
                metrics: Metrics = {} if monitor is None else monitor.step(step, sampler)
                collected = collector.collect(step)
                metrics |= rollout_metrics(collected)
                batch = Batch.of(collected.kept, rewarded=isinstance(node, RLNode))
                if batch is None:
                    metrics["train/tokens"] = 0  # No optimizer step, so its moments stay as they are.
                else:
                    scoring = time.perf_counter()
                    signal = advantages(batch)
                    training = time.perf_counter()
                    rate = learning_rate(node.optimizer, step, node.steps)
                    halves = Halves.of(batch) if node.gradient_shares else None
                    report = policy.step(batch.sequences, signal, rate, halves.parts if halves else None)
                    metrics |= step_metrics(report, rate, time.perf_counter() - training)
                    metrics |= agreement_metrics(batch, report) | signal.metrics(report.scores.log_probs)
                    metrics |= halves.metrics(report.products) if halves else {}
                    metrics["time/scoring_seconds"] = training - scoring
            metrics["rollout/skipped_step"] = float(batch is None)
            metrics["time/step_seconds"] = time.perf_counter() - began
            metrics["time/verification_wait_share"] = collected.waiting_seconds / metrics["time/step_seconds"]
            run.journal.metrics(metrics, step)
            if watch is not None:
                watch.step(metrics, collected.groups)
            _check_gap(name, node, step, metrics)
            if step in (0, node.steps // 2, node.steps - 1):
                run.add_samples(sample_rows(collected.rollouts, step))
            progress.step(step, _headline(metrics))
            if after_step is not None:
                after_step(step + 1, policy, metrics)
            if (step + 1) % node.checkpoint_every == 0 or step + 1 == node.steps:
                extra = monitor.as_json() if monitor else {"difficulty": measured} if measured else {}
                run.save(policy, step + 1, cursor.as_json() | extra)
    run.finish(policy)


def _advantage_source(node: OnPolicyNode, run: NodeRun, teachers: dict[str, Teacher]) -> AdvantageSource:
    if isinstance(node, Distillation):
        for checkpoint in sorted({teacher.checkpoint for teacher in teachers.values()}):
            check_compatible(run.parent, checkpoint)
        return partial(MOPD, teachers=Teachers(teachers, node), node=node)
    assert isinstance(node, RLNode)
    if node.kl == 0:
        return GRPO
    start = make_policy(node.engine, run.parent, None, parallel=node.parallel)
    return partial(GRPO, kl=node.kl, start=start)


def _check_sampling(name: str, node: OnPolicyNode) -> None:
    if node.rollout.temperature != 1 or node.rollout.top_p != 1:
        raise RecipeError(
            f"{name}.rollout: temperature and top_p must be 1 in training: what is sampled must be what is trained"
        )


def _check_gap(name: str, node: OnPolicyNode, step: int, metrics: Metrics) -> None:
    gap = metrics.get("train/log_prob_gap", 0.0)
    if not gap <= node.rollout.max_log_prob_gap:
        raise CascadeError(
            f"{name}: step {step}: trainer and sampler differ by {gap:.3g} nats a token, above "
            f"rollout.max_log_prob_gap {node.rollout.max_log_prob_gap}; the sampler runs other weights or numerics"
        )


def _headline(metrics: Metrics) -> dict[str, str]:
    fields = {"reward": f"{metrics['rollout/reward']:.3f}"} if "rollout/reward" in metrics else {}
    if "train/reverse_kl" in metrics:
        fields["reverse KL"] = f"{metrics['train/reverse_kl']:.3f}"
    if metrics["rollout/skipped_step"]:
        fields["step"] = "skipped, nothing to learn from"
    return fields | {
        "length": f"{metrics['rollout/length']:.0f}",
        "tokens/s": f"{metrics['speed/sampling_tokens_per_second']:,.0f}",
    }
