"""How often the regression check is wrong, what it finds and what that costs: a simulation through the very function
that decides (`cascade.decisions.regression.compare_with_best`).

    python -m benchmarks.gate_power [--runs 400] [--moments PROJECT]

Ten domains, each with a benchmark of 80 prompts × 2 rollouts and 280 further held-out prompts, a checkpoint and 14
earlier ones. Assumptions:

- Rewards are 0 or 1. A reward is 1 where a normal variable lies below a threshold, and the variable is a sum of four
  independent ones: of the prompt (its difficulty), of the prompt and the checkpoint (what training changed), of the
  prompt and the rollout's seed (the same for every checkpoint, which pairs them), and of the single rollout. Their
  shares are fitted, domain by domain, to the mean and the covariances of the rewards of the default nano run's later
  checkpoints (MOMENTS; `--moments PROJECT` prints those of another run).
- All earlier checkpoints are equally good: their mean pass rates over all possible prompts are the same, those on the
  benchmark's prompts are not. That is the case in which choosing the best of them misleads most.
- A planted loss lowers the mean of one domain, each in turn.

Today's rule, beside it, is the one before this: the best of the 14 by the whole benchmark, a paired test on the same
prompts and rollouts (Student's t for the sign flips, which is 60 times as fast and agrees to a tenth of a point), Holm
over the domains at 5 %, a minimum effect of 2 points.
"""

import argparse
import json
import math
import platform
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

from cascade.decisions.regression import compare_with_best
from cascade.evaluation.further import Sample
from cascade.evaluation.results import EvaluationResult, PromptResult
from cascade.evaluation.sequential import HELD_SPENDING, MAX_LOOKS, REGRESSED_SPENDING, boundaries, bounds
from cascade.evaluation.statistics import holm
from cascade.recipe import Comparison, Recipe
from cascade.utils.files import write_json
from cascade.utils.seeds import derive_seed

MOMENTS = {
    "math": (0.46, 0.161, 0.207, 0.150),
    "instruction_following": (0.53, 0.098, 0.155, 0.087),
    "mcqa": (0.33, 0.013, 0.151, 0.006),
    "tool_calling": (0.62, 0.121, 0.189, 0.120),
    "structured_output": (0.67, 0.124, 0.178, 0.117),
    "human_preference": (0.84, 0.020, 0.072, 0.008),
    "long_context": (0.40, 0.123, 0.156, 0.106),
    "code": (0.63, 0.099, 0.138, 0.088),
    "swe_agentless": (0.55, 0.083, 0.132, 0.073),
    "swe_agentic": (0.48, 0.070, 0.116, 0.069),
}
"""Domain → mean reward, and the covariance of two rewards of a prompt: of one checkpoint; of two checkpoints, same
seed; of two checkpoints, other seeds. From the default nano run, seed 0, checkpoints from mopd on."""

BENCHMARK, HELD_OUT, ROLLOUTS, EARLIER = 80, 280, 2, 14
OUT = Path("results/benchmarks/gate_power.json")
BUDGETS = (0.0, 0.5, 1.0, 2.0)
CHECKS = 6
"""Comparisons of a run of the default recipe: five regression checks and the gate."""

Floats = NDArray[np.float64]


class Domain:
    """Draws rewards of one domain."""

    def __init__(self, mean: float, within: float, same_seed: float, other_seed: float):
        self.mean = mean
        prompt = _correlation(mean, other_seed)
        parts = [prompt, _correlation(mean, within) - prompt, _correlation(mean, same_seed) - prompt]
        parts = [max(0.0, part) for part in parts]
        total = max(1.0, sum(parts))
        self.roots = [math.sqrt(part / total) for part in (*parts, max(0.0, 1 - sum(parts)))]

    def difficulty(self, rng: np.random.Generator, checkpoints: int, prompts: int) -> Floats:
        """[checkpoints, prompts]: what all rollouts of a prompt share."""
        shared, own = rng.standard_normal(prompts), rng.standard_normal((checkpoints, prompts))
        return self.roots[0] * shared + self.roots[1] * own

    def rewards(self, rng: np.random.Generator, difficulty: Floats, means: Floats) -> NDArray[np.bool_]:
        """[checkpoints, prompts, ROLLOUTS] of checkpoints with these mean pass rates; rollouts have the same seeds."""
        seeds = rng.standard_normal((difficulty.shape[1], ROLLOUTS))
        noise = rng.standard_normal((*difficulty.shape, ROLLOUTS))
        value = difficulty[:, :, None] + self.roots[2] * seeds + self.roots[3] * noise
        return np.asarray(value < ndtri(means)[:, None, None])


def _correlation(mean: float, covariance: float) -> float:
    """Correlation of two standard normal variables of which both lie below the threshold of `mean` as often as the
    covariance of their indicators says."""
    points = np.linspace(-9, 9, 3601)
    weights = np.exp(-points * points / 2)
    weights /= weights.sum()

    def surplus(rho: float) -> float:
        below = ndtr((ndtri(mean) - math.sqrt(rho) * points) / math.sqrt(1 - rho))
        return float(weights @ below**2) - mean**2 - covariance

    return brentq(surplus, 0.0, 1 - 1e-9) if covariance > 0 else 0.0


class World:
    """The project that is simulated: a recipe with ten domains, a checkpoint and the earlier ones."""

    def __init__(self, domains: dict[str, Domain]):
        self.domains = domains
        self.earlier = [f"earlier_{number}" for number in range(EARLIER)]
        self.nodes = [*self.earlier, "candidate"]
        self.recipe = _recipe(list(domains), self.earlier)
        self.benchmark = [f"prompt_{number}" for number in range(BENCHMARK)]
        self.held_out = [f"held_out_{number}" for number in range(HELD_OUT)]

    def rules(self, **settings: float) -> Comparison:
        return Comparison(against=self.earlier, **settings)


class Run:
    """One simulated run: the evaluations of all checkpoints, and further rollouts where the check asks for them
    (`cascade.decisions.regression.Further`)."""

    def __init__(self, world: World, rng: np.random.Generator, losses: dict[str, float], spread: float = 0.0):
        """`losses`: domain → what the candidate has lost, against the best earlier checkpoint. `spread`: standard
        deviation of the earlier checkpoints' mean pass rates, of which the best has the domain's mean."""
        self._world, self._rng = world, rng
        self._drawn: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._difficulty: dict[tuple[str, str], dict[str, float]] = {}
        self._means: dict[str, dict[str, float]] = {}
        self.rewards: dict[str, Floats] = {}
        """Domain → [checkpoints, prompts] mean reward on the benchmark, the candidate last."""
        self.spent = 0
        for name, domain in world.domains.items():
            levels = rng.normal(0.0, spread, EARLIER) if spread else np.zeros(EARLIER)
            levels = np.append(levels - levels.max(), -losses.get(name, 0.0)) + domain.mean
            self._means[name] = dict(zip(world.nodes, np.clip(levels, 0.01, 0.99).tolist(), strict=True))
            difficulty = domain.difficulty(rng, len(world.nodes), BENCHMARK)
            for node, row in zip(world.nodes, difficulty, strict=True):
                self._difficulty[name, node] = dict(zip(world.benchmark, row.tolist(), strict=True))
            means = np.array(list(self._means[name].values()))
            self.rewards[name] = domain.rewards(rng, difficulty, means).mean(-1)

    def results(self, node: str, domain: str) -> list[PromptResult]:
        return [
            PromptResult(prompt, len(rewards) * ROLLOUTS, 0, sum(rewards) / len(rewards))
            for prompt, rewards in self._drawn[node, domain].items()
        ]

    def evaluations(self) -> dict[str, EvaluationResult]:
        return {
            node: EvaluationResult(
                node,
                node,
                {
                    domain: [
                        PromptResult(prompt, ROLLOUTS, 0, reward)
                        for prompt, reward in zip(self._world.benchmark, rewards[number].tolist(), strict=True)
                    ]
                    for domain, rewards in self.rewards.items()
                },
            )
            for number, node in enumerate(self._world.nodes)
        }

    def prompts(self, domain: str) -> list[str]:
        return self._world.held_out

    def sample(self, samples: list[Sample]) -> None:
        # The candidate's and the reference's sample of the same prompts, one behind the other.
        for one, other in zip(samples[::2], samples[1::2], strict=True):
            name, nodes, domain = one.domain, (one.node, other.node), self._world.domains[one.domain]
            new = [prompt for prompt in one.prompts if prompt not in self._difficulty[name, one.node]]
            drawn = domain.difficulty(self._rng, 2, len(new))
            for node, row in zip(nodes, drawn, strict=True):
                self._difficulty[name, node].update(zip(new, row.tolist(), strict=True))
            difficulty = np.array([[self._difficulty[name, node][p] for p in one.prompts] for node in nodes])
            means = np.array([self._means[name][node] for node in nodes])
            rewards = domain.rewards(self._rng, difficulty, means).mean(-1)
            for node, row in zip(nodes, rewards, strict=True):
                for prompt, reward in zip(one.prompts, row.tolist(), strict=True):
                    self._drawn[node, name][prompt].append(reward)
            self.spent += 2 * len(one.prompts) * ROLLOUTS

    def count(self, node: str, domain: str) -> int:
        return ROLLOUTS * sum(len(rewards) for rewards in self._drawn[node, domain].values())


def _recipe(domains: list[str], earlier: list[str]) -> Recipe:
    optimizer = {"learning_rate": 1e-4}
    sources = {
        d: {"generator": "mcqa", "domain": d, "sft": 1, "rl": 1, "benchmark": BENCHMARK, "held_out": HELD_OUT}
        for d in domains
    }
    sft = {"round": 1, "epochs": 1.0, "batch": 1, "optimizer": optimizer}
    nodes = {name: {"init": "base", **sft} for name in (*earlier, "candidate")}
    return Recipe.model_validate(
        {
            "name": "simulated",
            "family": "simulated",
            "curation": {"sources": sources, "max_tokens": 1, "sequence_length": 1},
            "sft": nodes,
            "evaluation": {"rollouts": ROLLOUTS, "rollout": {"max_new_tokens": 1}},
        }
    )


def simulate(
    world: World, runs: int, key: str, loss: float = 0.0, planted: int = 1, spread: float = 0.0, **rules: float
) -> dict[str, float]:
    """Shares over runs, of a check by `rules`, with a loss planted in `planted` domains (each domain in turn)."""
    names = list(world.domains)
    totals: dict[str, float] = defaultdict(float)
    for number in range(runs):
        lost = [names[(number + 3 * other) % len(names)] for other in range(planted)] if loss else []
        rng = np.random.default_rng(derive_seed("gate_power", key, number))
        run = Run(world, rng, dict.fromkeys(lost, loss), spread)
        found = compare_with_best(world.recipe, world.rules(**rules), "candidate", run.evaluations(), run)
        regressed = {domain for domain, verdict in found.items() if not verdict["passed"]}
        others = [domain for domain in names if domain not in lost]
        totals["false_alarm"] += bool(regressed - set(lost))
        totals["cleared"] += sum(found[d]["verdict"] == "not regressed" for d in others) / len(others)
        if lost:
            totals["found"] += len(regressed & set(lost)) / len(lost)
            totals["missed"] += sum(found[d]["verdict"] == "not regressed" for d in lost) / len(lost)
        totals["further"] += run.spent / (2 * len(names) * BENCHMARK * ROLLOUTS)
        totals["visible_loss"] += sum(verdict["visible_loss"] for verdict in found.values()) / len(found)
    return {name: total / runs for name, total in totals.items()}


def fixed(
    world: World,
    runs: int,
    key: str,
    loss: float = 0.0,
    prompts: int = BENCHMARK,
    selected: bool = True,
    correct: bool = True,
) -> dict[str, float]:
    """Today's rule. `selected`: the reference is the best of the earlier checkpoints by the same results, as that rule
    has it; otherwise one fixed in advance. `correct`: with Holm."""
    names = list(world.domains)
    alarms, found = 0, 0.0
    for number in range(runs):
        lost = names[number % len(names)] if loss else None
        rng = np.random.default_rng(derive_seed("gate_power", "fixed", key, number))
        p_values, means = [], []
        for name, domain in world.domains.items():
            count = EARLIER if selected else 1
            levels = np.append(np.full(count, domain.mean), domain.mean - (loss if name == lost else 0.0))
            rewards = domain.rewards(rng, domain.difficulty(rng, count + 1, prompts), levels).mean(-1)
            difference = rewards[-1] - rewards[rewards[:-1].mean(1).argmax()]
            error = difference.std(ddof=1) / math.sqrt(prompts)
            means.append(difference.mean())
            p_values.append(float(student.cdf(difference.mean() / error, prompts - 1)) if error else 1.0)
        adjusted = holm(p_values) if correct else p_values
        regressed = {n for n, p, m in zip(names, adjusted, means, strict=True) if p <= 0.05 and m <= -0.02}
        alarms += bool(regressed - {lost})
        found += lost in regressed
    return {"false_alarm": alarms / runs, "found": found / runs}


def coverage(world: World, runs: int) -> dict[str, float]:
    """How often the bounds miss the true difference at any look: the upper one at a rate of 0.5 %, the lower at 10 %;
    the mean over domains, with a loss of 0 and of 5 points."""
    shares = tuple(2.0 ** (look - MAX_LOOKS + 1) for look in range(MAX_LOOKS))
    upper, lower = boundaries(shares, 0.005, REGRESSED_SPENDING), boundaries(shares, 0.1, HELD_SPENDING)
    missed = {"upper": 0, "lower": 0}
    rng = np.random.default_rng(derive_seed("gate_power", "coverage"))
    most = BENCHMARK // 2 * 2 ** (MAX_LOOKS - 1)
    for number in range(runs):
        loss = 0.05 * (number % 2)
        for domain in world.domains.values():
            means = np.array([domain.mean - loss, domain.mean])
            rewards = domain.rewards(rng, domain.difficulty(rng, 2, most), means).mean(-1)
            sums = np.cumsum(rewards[0] - rewards[1])
            squares = np.cumsum((rewards[0] - rewards[1]) ** 2)
            above = below = False
            for look, count in enumerate(BENCHMARK // 2 * 2**look for look in range(MAX_LOOKS)):
                found = bounds(count, sums[count - 1], squares[count - 1], upper[look], lower[look])
                above, below = above or bool(found.upper < -loss), below or bool(found.lower > -loss)
            missed["upper"] += above
            missed["lower"] += below
    return {name: count / runs / len(world.domains) for name, count in missed.items()}


def confidence_sequence_ratio(rate: float, miss_rate: float) -> float:
    """Rollouts that a test by the always-valid confidence sequence of a normal mixture (asymptotic, one-sided:
    Waudby-Smith et al., arXiv 2103.06476) needs for the power of the six looks; the mixture is the best for the last
    of them."""
    last = boundaries(tuple(2.0 ** (look - MAX_LOOKS + 1) for look in range(MAX_LOOKS)), rate, REGRESSED_SPENDING)[-1]

    def squared(log_m: float) -> float:
        m = math.exp(log_m)
        return (m + 1) / m * (math.log(m + 1) - 2 * math.log(2 * rate))

    width = math.sqrt(minimize_scalar(squared, bounds=(-3, 8), method="bounded").fun)
    power = float(-ndtri(miss_rate))
    return ((width + power) / (last + power)) ** 2


def moments(project: Path, nodes: list[str]) -> dict[str, tuple[float, ...]]:
    """MOMENTS of a project's evaluations, over these nodes."""
    import pyarrow.parquet as pq

    rewards: dict[str, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for node in nodes:
        path = project / "results" / "evaluations" / node / "rollouts.parquet"
        for row in pq.read_table(path, columns=["domain", "prompt_id", "rollout", "reward"]).to_pylist():
            if row["reward"] is not None:
                rewards[row["domain"]][row["prompt_id"]][node, row["rollout"]] = row["reward"]
    found: dict[str, tuple[float, ...]] = {}
    for domain, prompts in rewards.items():
        values = np.array([[[p.get((n, r), np.nan) for r in range(ROLLOUTS)] for n in nodes] for p in prompts.values()])
        centred = values - np.nanmean(values, axis=(0, 2))[None, :, None]
        pairs = [(i, j) for i in range(len(nodes)) for j in range(len(nodes)) if i != j]
        within = np.nanmean(centred[:, :, 0] * centred[:, :, 1])
        same = np.mean([np.nanmean(centred[:, i] * centred[:, j]) for i, j in pairs])
        other = np.mean([np.nanmean(centred[:, i, 0] * centred[:, j, 1]) for i, j in pairs])
        found[domain] = (float(np.nanmean(values)), float(within), float(same), float(other))
    return found


def interval(share: float, runs: int) -> list[float]:
    """95 %, Wilson."""
    centre, half = (
        (share + 1.92 / runs) / (1 + 3.84 / runs),
        1.96 * math.sqrt(share * (1 - share) / runs + 0.96 / runs**2),
    )
    return [round(centre - half / (1 + 3.84 / runs), 4), round(centre + half / (1 + 3.84 / runs), 4)]


def report(world: World, runs: int) -> dict[str, Any]:
    defaults = world.rules()
    fewer = max(10, runs // 4)
    equal = simulate(world, 2 * runs, "equal")
    five, ten = simulate(world, runs, "five", 0.05), simulate(world, runs, "ten", 0.10)
    full = simulate(world, 10, "full", margin=1e-6, significance=1e-9)["further"]
    first = BENCHMARK // 2
    affordable = first + round(full * BENCHMARK)
    alike = first + round(equal["further"] * BENCHMARK)
    return {
        "false_alarm": equal["false_alarm"],
        "power_5": five["found"],
        "power_10": ten["found"],
        "rollouts_ratio": equal["further"] / full,
        "intervals": {
            "false_alarm": interval(equal["false_alarm"], 2 * runs),
            "power_5": interval(five["found"], runs),
            "power_10": interval(ten["found"], runs),
        },
        "runs": {"false_alarm": 2 * runs, "power_5": runs, "power_10": runs, "others": fewer},
        "settings": defaults.model_dump(exclude={"against"}),
        "missed_5": five["missed"],
        "cleared": equal["cleared"],
        "false_alarm_in_six_checks_at_most": 1 - (1 - equal["false_alarm"]) ** CHECKS,
        "further_evaluations": {"equal": equal["further"], "loss_5": five["further"], "loss_10": ten["further"]},
        "budgets": [
            {
                "budget": budget,
                **{f"{k}_equal": v for k, v in simulate(world, fewer, "equal", budget=budget).items()},
                **{f"{k}_5": v for k, v in simulate(world, fewer, "five", 0.05, budget=budget).items()},
                "found_10": simulate(world, fewer, "ten", 0.10, budget=budget)["found"],
            }
            for budget in BUDGETS
        ],
        "today": {
            "evaluations": fixed(world, runs, "equal")
            | {
                "found_5": fixed(world, runs, "five", 0.05)["found"],
                "found_10": fixed(world, runs, "ten", 0.1)["found"],
            },
            "evaluations_fixed_reference": fixed(world, runs, "equal", selected=False),
            "whole_budget_fixed_reference": fixed(world, fewer, "equal", prompts=affordable, selected=False)
            | {"found_5": fixed(world, fewer, "five", 0.05, affordable, selected=False)["found"]},
            "rollouts_of_equal_fixed_reference": fixed(world, fewer, "equal", prompts=alike, selected=False)
            | {"found_5": fixed(world, fewer, "five", 0.05, alike, selected=False)["found"]},
        },
        "corrections": {
            # Holm tests the last of three at 1/8 instead of 1/10: more than it could gain here is a comparison at 1/8.
            "three_losses_bonferroni": simulate(world, fewer, "three", 0.05, planted=3),
            "three_losses_more_than_holm": simulate(world, fewer, "three", 0.05, planted=3, significance=0.05 * 10 / 8),
            "none_equal": simulate(world, fewer, "equal", significance=0.5),
            "none_5": simulate(world, fewer, "five", 0.05, significance=0.5),
        },
        "earlier_ones_differ": simulate(world, fewer, "spread", 0.05, spread=0.03),
        "coverage": coverage(world, runs),
        "confidence_sequence_ratio": confidence_sequence_ratio(0.005, defaults.miss_rate),
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--moments", type=Path, metavar="PROJECT", help="print the moments of a run's evaluations")
    parser.add_argument("--nodes", nargs="+", help="with --moments: the checkpoints; default: from mopd on")
    arguments = parser.parse_args()
    if arguments.moments:
        late = ["mopd", "rlhf", "long_context_rl", "code_rl", "swe_agentless_rl", "swe_agentic_rl"]
        for domain, values in moments(arguments.moments, arguments.nodes or late).items():
            print(f"{domain}: {', '.join(f'{value:.3f}' for value in values)}")
        return
    world = World({name: Domain(*values) for name, values in MOMENTS.items()})
    found = report(world, arguments.runs)
    write_json(OUT, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
