"""Off-policy distillation: SFT on the teachers' answers that their verifiers accept (sequence-level knowledge
distillation). Sampled once, by each domain's teacher, before the first step."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from cascade import environments
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Policy, Sequence
from cascade.recipe import OffPolicyNode, Recipe
from cascade.rollout import make_sampler
from cascade.rollout.driver import Driver, RolloutRequest
from cascade.training import task_vectors
from cascade.training.lr_schedule import learning_rate
from cascade.training.metrics import Metrics, step_metrics
from cascade.training.node_run import NodeRun, require_files
from cascade.training.prompts import Cursor, Draw, PromptSource, load_prompts
from cascade.training.sft import mean_negative_log_prob
from cascade.training.shuffle import ShuffledEpochs
from cascade.training.teacher_scoring import Teacher, check_compatible, chosen_teachers, teacher_inputs
from cascade.utils import distributed
from cascade.utils.files import read_jsonl, write_jsonl
from cascade.utils.progress import Progress, say
from cascade.utils.seeds import derive_seed


def run_off_policy(
    recipe: Recipe, name: str, layout: Layout, after_step: Callable[[int, Policy, Metrics], None] | None = None
) -> None:
    """Train node `name` of section `off_policy` and publish its checkpoint. `after_step` is called after every step.

    Raises CascadeError when no answer is good enough, and when an input is missing or does not fit.
    """
    node = recipe.off_policy[name]
    files = {domain: layout.prompts(domain) for domain in node.mix}
    require_files(list(files.values()), "`cascade node curate` writes it")
    teachers = chosen_teachers(recipe, name, layout)
    common_start = task_vectors.common_start(recipe, node, teachers, layout)
    run = NodeRun(recipe, name, layout, list(files.values()), teacher_inputs(teachers, common_start))
    run.set_up_torch()
    for checkpoint in sorted({teacher.checkpoint for teacher in teachers.values()}):
        check_compatible(run.parent, checkpoint)
    policy = run.load_policy()
    step = run.resume(policy).step
    if step == 0 and common_start is not None:
        checkpoints = [teacher.checkpoint for teacher in teachers.values()]
        task_vectors.merge_into(policy.model, common_start, checkpoints, node.merge_scale)
    began = time.perf_counter()
    saved = run.work / "answers.jsonl"
    if step == 0 or not saved.exists():
        source = PromptSource(
            {domain: load_prompts(path, domain) for domain, path in files.items()},
            node.mix,
            recipe.seed,
            name,
            cursor=Cursor(),
        )
        with distributed.step():
            sampled = sample_answers(recipe, name, node, teachers, source.draw_step(node.prompts))
        if distributed.is_main():
            write_jsonl(saved, sampled)
        distributed.barrier()
    sampled = list(read_jsonl(saved))
    answers = accepted(sampled, node.min_reward)
    say(f"{name}: {len(answers)} of {len(sampled)} answers have a reward of {node.min_reward:g} or more")
    if not answers:
        raise CascadeError(f"{name}: no answer of a teacher has a reward of {node.min_reward:g}; lower min_reward")
    order = ShuffledEpochs(len(answers), recipe.seed, name, "answers")
    steps = max(1, round(node.epochs * len(answers) / node.batch))
    progress = Progress(name, steps, step)
    once = {"rollout/tokens": float(sum(sum(row["trained"]) for row in sampled))} | shares_accepted(sampled, answers)
    while step < steps:
        batch = [as_sequence(answers[order[i]]) for i in range(step * node.batch, (step + 1) * node.batch)]
        training = time.perf_counter()
        rate = learning_rate(node.optimizer, step, steps)
        with distributed.step():
            report = policy.step(batch, mean_negative_log_prob(sum(sum(s.trained) for s in batch)), rate)
        metrics = step_metrics(report, rate, time.perf_counter() - training)
        metrics |= {"time/step_seconds": time.perf_counter() - began, **(once if step == 0 else {})}
        run.journal.metrics(metrics, step)
        progress.step(step, {"loss": f"{report.loss:.3f}"})
        step += 1
        began = time.perf_counter()
        if after_step is not None:
            after_step(step, policy, metrics)
        if step % node.checkpoint_every == 0 or step == steps:
            run.save(policy, step, {})
    run.finish(policy)


def sample_answers(
    recipe: Recipe, name: str, node: OffPolicyNode, teachers: dict[str, Teacher], draws: list[Draw]
) -> list[dict]:
    """A row for each answer of the prompts' teachers: domain, token_ids, trained, reward (None without a verdict)."""
    rows: list[dict] = []
    with ThreadPoolExecutor(recipe.judging_threads) as pool:
        for teacher in {teacher.hash: teacher for teacher in teachers.values()}.values():
            own = [draw for draw in draws if teachers[draw.prompt.domain].hash == teacher.hash]
            rows += _answers(recipe, name, node, teacher.checkpoint, own, pool)
    return rows


def _answers(
    recipe: Recipe, name: str, node: OffPolicyNode, checkpoint: Path, draws: list[Draw], pool: ThreadPoolExecutor
) -> list[dict]:
    policy = make_policy(node.engine, checkpoint, None, parallel=node.parallel)
    mine = distributed.shard(draws)
    requests = [
        RolloutRequest(
            draw.prompt.row,
            environments.get(draw.prompt.environment),
            [derive_seed(recipe.seed, name, draw.prompt.id, i, draw.position) for i in range(node.rollouts)],
        )
        for draw in mine
    ]
    with closing(make_sampler(node.rollout, policy)) as sampler:
        driver = Driver(sampler, policy.tokenizer, pool, node.rollout, together=False, judge_unfinished=False)
        groups = driver.run(requests).groups
    return [
        row
        for group in distributed.gather_shards(
            [
                [
                    {
                        "domain": draw.prompt.domain,
                        "token_ids": result.transcript.token_ids,
                        "trained": result.transcript.trained,
                        "reward": result.verdict.reward if result.verdict else None,
                    }
                    for result in group
                ]
                for draw, group in zip(mine, groups, strict=True)
            ]
        )
        for row in group
    ]


def accepted(rows: list[dict], min_reward: float) -> list[dict]:
    """The answers with at least this reward."""
    return [row for row in rows if row["reward"] is not None and row["reward"] >= min_reward]


def shares_accepted(sampled: list[dict], answers: list[dict]) -> Metrics:
    """By domain, the share of the answers that are trained on."""
    domains = sorted({row["domain"] for row in sampled})
    counts = {d: [sum(row["domain"] == d for row in rows) for rows in (answers, sampled)] for d in domains}
    return {f"rollout/accepted/{domain}": kept / total for domain, (kept, total) in counts.items()}


def as_sequence(row: dict) -> Sequence:
    return Sequence(row["token_ids"], row["trained"])
