"""The jobs of the distillation benchmark, each in a process of one thread: training a variant, evaluating a checkpoint.

What a job finished is not done again; what a training run began goes on from its last saved state.
"""

import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.distillation.variants import CURVE, START, STEPS, VARIANTS
from cascade.layout import Layout
from cascade.policy.base import Policy
from cascade.recipe import Recipe, load
from cascade.training.metrics import Metrics
from cascade.utils.files import hash_directory, read_json, write_json
from cascade.utils.machine import machine

TEACHERS = "select_teachers"


@dataclass(frozen=True)
class Place:
    """`start`: the folder with the start, its teachers, prompts and benchmarks (`benchmarks.distillation.start`).
    `work`: checkpoints and states. `parts`: what is known of each finished evaluation; all that a merge reads."""

    start: Path
    work: Path
    parts: Path


@dataclass(frozen=True)
class Run:
    """A training run."""

    variant: str
    seed: int
    domain: str = ""

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}" + (f"-{self.domain}" if self.domain else "")

    @property
    def nodes(self) -> list[tuple[str, dict[str, Any]]]:
        """None of a checkpoint of the start's folder: what is run is its evaluation."""
        return VARIANTS[self.variant].nodes if self.variant in VARIANTS else []

    def steps(self) -> dict[int, int]:
        """Steps after which a checkpoint is evaluated → rollouts of a prompt. 0: the checkpoint before the first."""
        nodes = self.nodes
        if not nodes:
            return {0: 4}
        if self.domain:
            return {_own_steps(self): 4}
        if nodes[-1][0] == "rl":
            return {**dict.fromkeys(CURVE, 1), STEPS: 4, nodes[-1][1]["steps"]: 4}
        if nodes[-1][0] == "off_policy":
            return {-1: 4}  # The last, whose number depends on how many answers are accepted.
        return {**{step: 1 for step in CURVE if step < nodes[-1][1]["steps"]}, nodes[-1][1]["steps"]: 4}


def domains_of(place: Place) -> list[str]:
    return list(read_json(place.start / "teachers.json"))


def do(place: Place, run: Run, step: int | None) -> None:
    """Train a run; or, with a step, evaluate its checkpoint after it."""
    if step is None:
        train(place, run)
    else:
        evaluate(place, run, step, run.steps()[step])


def train(place: Place, run: Run) -> None:
    """Train the variant and keep its checkpoints, each with what it cost so far: CPU seconds of this process, and
    sampled tokens."""
    project = Layout(place.work / run.name)
    recipe = _prepare(place, run, project)
    cost = {"seconds": 0.0, "tokens": 0.0}
    variant = VARIANTS[run.variant]
    if variant.merge is not None:
        _merge(place, recipe, project, variant.merge)
        return
    for number, (kind, _) in enumerate(variant.nodes):
        name = f"node{number}"
        last = number + 1 == len(variant.nodes)
        costs = project.root / f"{name}.json"
        if not project.checkpoint(name).exists():
            _train_node(recipe, kind, name, project, run, dict(cost), costs, last)
        cost = read_json(costs)[-1]


def _train_node(
    recipe: Recipe, kind: str, name: str, project: Layout, run: Run, cost: dict[str, float], costs: Path, last: bool
) -> None:
    from cascade.training.off_policy import run_off_policy
    from cascade.training.on_policy import run_on_policy

    node = recipe.node(name)
    resumed = (project.work(name) / "state.safetensors").exists()
    rows: list[dict[str, float]] = read_json(costs) if costs.exists() and resumed else []
    began = time.process_time()

    def after_step(step: int, policy: Policy, metrics: Metrics) -> None:
        nonlocal began
        sampled = metrics.get(
            "rollout/tokens", metrics.get("rollout/groups", 0) * metrics.get("rollout/length", 0) * node.rollouts
        )  # type: ignore[attr-defined]
        del rows[step - 1 :]
        before = rows[-1] if rows else cost
        rows.append(
            {
                "seconds": before["seconds"] + time.process_time() - began,
                "tokens": before["tokens"] + sampled,
            }
        )
        write_json(costs, rows)
        if last and step in run.steps():
            target = project.root / "steps" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            policy.save(target)
        began = time.process_time()

    (run_off_policy if kind == "off_policy" else run_on_policy)(recipe, name, project, after_step)
    if last and -1 in run.steps():
        shutil.copytree(project.checkpoint(name), project.root / "steps" / "-1", dirs_exist_ok=True)


def _prepare(place: Place, run: Run, project: Layout) -> Recipe:
    """The run's project: the start's recipe with the variant's nodes, its data and checkpoints by links."""
    teachers: dict[str, str] = read_json(place.start / "teachers.json")
    content = yaml.safe_load((place.start / "params.yaml").read_text(encoding="utf-8"))
    content |= {"seed": run.seed, "threads": 1}
    mix = {run.domain: 1.0} if run.domain else {domain: 1 / len(teachers) for domain in teachers}
    before = START
    content["teachers"] = {TEACHERS: {"round": 1, "candidates": sorted(set(teachers.values()))}}
    for number, (kind, settings) in enumerate(VARIANTS[run.variant].nodes):
        node = {"init": before, "round": 1 if kind == "rl" else 2, "mix": mix, "checkpoint_every": 5, **settings}
        if run.domain:
            node["steps"] = _own_steps(run, len(teachers))
        if kind != "rl":
            node["teachers"] = TEACHERS
        before = f"node{number}"
        content.setdefault(kind, {})[before] = node
    project.root.mkdir(parents=True, exist_ok=True)
    write_json(project.params, content)  # JSON is YAML, without anchors for what two nodes have in common.
    links = {project.root / "data": place.start / "data"}
    links |= {project.checkpoint(path.name): path for path in (place.start / "models").iterdir()}
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target.absolute())
    decision = {
        "teachers": {
            domain: {
                "node": node,
                "checkpoint": f"models/{node}",
                "hash": hash_directory(place.start / "models" / node),
            }
            for domain, node in teachers.items()
        }
    }
    write_json(project.decision(TEACHERS), decision)
    return load(project.params)


def _own_steps(run: Run, domains: int = 5) -> int:
    return round(STEPS / domains)


def _merge(place: Place, recipe: Recipe, project: Layout, scale: float) -> None:
    """`scale` 0: the mean."""
    from cascade.policy import make_policy
    from cascade.training import task_vectors

    nodes = sorted(set(read_json(place.start / "teachers.json").values()))
    common = project.checkpoint(recipe.common_start(nodes))
    policy = make_policy("hf", project.checkpoint(START), None)
    task_vectors.merge_into(policy.model, common, [project.checkpoint(node) for node in nodes], scale or None)
    policy.save(project.root / "steps" / "0")


def evaluate(place: Place, run: Run, step: int, rollouts: int) -> None:
    """Evaluate a checkpoint on the held-out prompts of every domain, or of the run's. A part for each domain."""
    from cascade.evaluation.checkpoint_runner import CheckpointRunner
    from cascade.training.prompts import load_prompts

    layout = Layout(place.start)
    recipe = load(layout.params)
    settings = recipe.evaluation.model_copy(update={"rollouts": rollouts})
    recipe = recipe.model_copy(update={"evaluation": settings, "threads": 1})
    checkpoint = checkpoint_at(place, run, step)
    with closing(CheckpointRunner(recipe, "hf", checkpoint, threads=1)) as runner:
        for domain in missing(place, run, step):
            rewards: dict[str, list[float]] = {}
            lengths = []
            for row in runner.run(load_prompts(layout.benchmark(domain), domain)):
                rewards.setdefault(row["prompt_id"], [])
                if row["reward"] is not None:
                    rewards[row["prompt_id"]].append(row["reward"])
                lengths.append(row["length"])
            part: dict[str, Any] = {
                "rewards": [round(sum(v) / len(v), 6) if v else None for _, v in sorted(rewards.items())],
                "rollouts": rollouts,
                "length": sum(lengths) / len(lengths),
                "machine": "{cores} cores, {processor}".format(**machine()),
                **cost_at(place, run, step),
            }
            write_json(part_of(place, run, step, domain), part)


def checkpoint_at(place: Place, run: Run, step: int) -> Path:
    if run.variant == START or run.variant not in VARIANTS:
        return place.start / "models" / run.variant
    return place.work / run.name / "steps" / str(step)


def cost_at(place: Place, run: Run, step: int) -> dict[str, float]:
    """What a checkpoint cost from the start on."""
    if step == 0:
        return {"seconds": 0.0, "tokens": 0.0}
    rows = read_json(place.work / run.name / f"node{len(run.nodes) - 1}.json")
    return rows[-1] if step < 0 else rows[step - 1]


def part_of(place: Place, run: Run, step: int, domain: str) -> Path:
    return place.parts / run.name / str(step) / f"{domain}.json"


def evaluated_in(place: Place, run: Run) -> list[str]:
    """The domains of a run's evaluations; of a teacher's those that it teaches."""
    if run.domain:
        return [run.domain]
    teachers: dict[str, str] = read_json(place.start / "teachers.json")
    return [domain for domain, node in teachers.items() if node == run.variant] or list(teachers)


def missing(place: Place, run: Run, step: int) -> list[str]:
    """The domains in which a checkpoint is still to be evaluated."""
    return [domain for domain in evaluated_in(place, run) if not part_of(place, run, step, domain).exists()]
