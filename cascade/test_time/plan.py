"""What a solve node will take, before it runs: responses, tokens and GPU hours, all of them at most."""

from dataclasses import dataclass

from cascade.layout import Layout
from cascade.policy.model_size import Shape, shape_of
from cascade.recipe import Recipe
from cascade.recipe.sections import GenerateVerifyRefine, SolveNode

FLOPS = 989e12
"""Dense bfloat16 operations a second of an H100."""
UTILISATION = 0.1
"""Share of them that sampling with many concurrent responses reaches: an assumption, memory being the limit."""
SUBTASKS = 5
"""Of a problem, where the benchmark is not there yet to be looked at: an IOI problem's, about."""


@dataclass(frozen=True)
class Estimate:
    """Of all problems together. `tokens`: sampled, if every response were as long as it may be."""

    problems: int
    generations: int
    tokens: int
    submissions: int
    gpu_hours: float


def estimate(node: SolveNode, problems: int, subtasks: int, parameters: int) -> Estimate:
    """`subtasks` of each problem; `parameters` that a token uses."""
    strategy, budget, writers = node.strategy, node.budget, len(node.writers)
    if isinstance(strategy, GenerateVerifyRefine):
        first = strategy.candidates * writers
        answers = first + (strategy.rounds - 1) * min(strategy.keep, first) * strategy.refinements * writers
        searched, graded, submissions = answers * (1 + strategy.verifications), strategy.grades, 0
    else:
        searched, graded = strategy.rounds * strategy.candidates * subtasks * writers, 0
        submissions = strategy.rounds * strategy.submissions * subtasks
    searched = min(searched, budget.generations or searched)
    tokens = searched * node.rollout.max_new_tokens
    tokens = min(tokens, budget.tokens or tokens) + graded * node.rollout.max_new_tokens
    times = problems * (2 if node.plain else 1)
    return Estimate(
        problems,
        searched * times + graded * problems,
        tokens * times,
        min(submissions, budget.submissions or submissions) * problems,
        tokens * times * 2 * parameters / (FLOPS * UTILISATION) / 3600,
    )


def active_parameters(shape: Shape, experts_per_token: int, experts: int) -> int:
    """Parameters that one token passes: of a layer's experts only those that it is sent to."""
    return shape.parameters - (shape.all_experts * (experts - experts_per_token) // experts if experts else 0)


def table(recipe: Recipe, layout: Layout) -> list[str]:
    """One line for each solve node; empty without any."""
    if not recipe.solve:
        return []
    lines = [
        "",
        f"{'at most':22} {'problems':>8} {'responses':>13} {'tokens':>10} {'submissions':>11} {'GPU hours':>10}",
    ]
    for name, node in recipe.solve.items():
        problems = _problems(recipe, node)
        if problems is None:
            lines.append(f"{name:22} {'?':>8}   all of {node.benchmark}: not known before curation; say `problems`")
            continue
        found = estimate(node, problems, SUBTASKS, _active(recipe, layout))
        lines.append(
            f"{name:22} {found.problems:>8,} {found.generations:>13,} {_short(found.tokens):>10} "
            f"{found.submissions:>11,} {found.gpu_hours:>10,.1f}"
        )
    lines.append(
        f"Of an H100 at {UTILISATION:.0%} of its {FLOPS / 1e12:.0f} TFLOP/s, every response as long as it may be, "
        f"every round used, and {SUBTASKS} subtasks a problem; `plain` samples included."
    )
    return lines


def _problems(recipe: Recipe, node: SolveNode) -> int | None:
    counts = [s.benchmark for s in recipe.curation.sources.values() if s.domain == node.benchmark and s.benchmark]
    known = None if -1 in counts else sum(counts)
    return min(node.problems, known) if node.problems and known else node.problems or known


def _active(recipe: Recipe, layout: Layout) -> int:
    from transformers import AutoConfig

    from cascade.launch.memory_plan import base_config

    file = base_config(recipe, layout)
    config = AutoConfig.from_pretrained(file, local_files_only=True)
    experts = getattr(config, "n_routed_experts", None) or getattr(config, "num_experts", None) or 0
    return active_parameters(shape_of(file), getattr(config, "num_experts_per_tok", 0) or 0, experts)


def _short(number: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"
