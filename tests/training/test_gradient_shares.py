import pytest
import torch

from cascade.layout import Layout
from cascade.policy.base import Sequence
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.training.metrics import Halves
from cascade.training.on_policy import run_on_policy
from tests.training.miniature import make_checkpoint, make_hybrid, make_recipe
from tests.training.test_on_policy import steps_of

SEQUENCES = [Sequence([2, 6 + i, 3, 6, 7 + i % 3, 8], [False, False, False, True, True, True]) for i in range(6)]


def gradient(policy: HFPolicy, sequences: list[Sequence], objective) -> torch.Tensor:
    """Of every parameter, in float64, by a step at rate zero."""
    policy.step(sequences, objective, 0.0)
    return torch.cat([p.grad.double().flatten() for p in policy.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("make", [make_checkpoint, make_hybrid])
def test_products_are_those_of_the_parts_own_gradients_and_the_step_is_the_same(make, tmp_path):
    optimizer = Optimizer(learning_rate=1e-9, gradient_clip=1e9, weight_decay=0.0)
    policy = HFPolicy(make(tmp_path, 0), optimizer)
    parts = [3, 0, 1, 2, 0, 5]  # Domain 2 has one half alone.
    weights = torch.linspace(-1, 2, 18)
    whole = gradient(policy, SEQUENCES, lambda p, index: (weights[index] * p).sum())
    report = policy.step(SEQUENCES, lambda p, index: (weights[index] * p).sum(), 0.0, parts)
    by_part = torch.cat([p.grad.double().flatten() for p in policy.model.parameters() if p.grad is not None])
    torch.testing.assert_close(by_part, whole, rtol=1e-4, atol=1e-6)

    def alone(part: int) -> torch.Tensor:
        chosen = [i for i, of in enumerate(parts) if of == part]
        own = torch.cat([weights[3 * i : 3 * i + 3] for i in chosen])
        return gradient(policy, [SEQUENCES[i] for i in chosen], lambda p, index: (own[index] * p).sum())

    expected = {d: float(alone(2 * d) @ alone(2 * d + 1)) for d in (0, 1)}
    assert report.products == pytest.approx(expected, rel=1e-4)


def test_the_estimate_is_unbiased():
    """Gradients with noise far above their mean: the square of their sum is far off, the estimate's mean is not."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(10, generator=generator, dtype=torch.float64)
    halves = Halves(["one"], [], [3, 2])
    noise = 4 * torch.randn(20000, 5, 10, generator=generator, dtype=torch.float64)
    prompts = mean + noise
    products = (prompts[:, :3].sum(1) * prompts[:, 3:].sum(1)).sum(1)
    estimates = [halves.metrics({0: x})["train/gradient_square/one"] for x in products.tolist()]
    exact = float((5 * mean).square().sum())
    error = torch.tensor(estimates).std().item() / 20000**0.5
    assert abs(sum(estimates) / 20000 - exact) < 4 * error
    assert float(prompts.sum(1).square().sum(1).mean()) > 2 * exact


def test_shares_by_hand():
    metrics = Halves(["a", "b", "c"], [], [1, 1, 2, 1, 1, 1]).metrics({0: 3.0, 1: 4.0, 2: -1.0})
    assert metrics["train/gradient_square/a"] == 12
    assert metrics["train/gradient_square/b"] == 18
    assert metrics["train/gradient_square/c"] == -4
    assert metrics["train/gradient_share/b"] == 0.6
    assert metrics["train/gradient_share/c"] == 0


def test_both_algorithms_report_shares_of_every_domain(project: Layout):
    for node in ("mopd", "rl"):
        run_on_policy(make_recipe(**{node: {"gradient_shares": True, "steps": 2, "prompts": 8}}), node, project)
        for step in steps_of(project, node):
            shares = [step[f"train/gradient_share/{d}"] for d in ("one", "two") if f"train/gradient_share/{d}" in step]
            assert shares
            assert sum(shares) == pytest.approx(1)
