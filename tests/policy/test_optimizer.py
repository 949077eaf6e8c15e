import pytest
import torch
from torch import nn

from cascade.policy.optimizer import make_optimizer
from cascade.recipe import Optimizer


def stepped(settings: Optimizer, gradients: list[list[float]]) -> list[float]:
    matrix, vector = nn.Parameter(torch.tensor([[1.0, -2.0]])), nn.Parameter(torch.tensor([4.0]))
    optimizer = make_optimizer([matrix, vector], settings)
    for first, second, third in gradients:
        matrix.grad, vector.grad = torch.tensor([[first, second]]), torch.tensor([third])
        optimizer.step()
    return [*matrix.flatten().tolist(), *vector.tolist()]


def test_sgd_by_hand_without_momentum_and_with_decay_of_matrices_alone():
    settings = Optimizer(algorithm="sgd", learning_rate=0.5, weight_decay=0.1)
    found = stepped(settings, [[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    one = [1 - 0.5 * (1 + 0.1 * 1), -2 - 0.5 * (0.1 * -2), 4 - 0.5 * 2]
    two = [one[0] - 0.5 * 0.1 * one[0], one[1] - 0.5 * (1 + 0.1 * one[1]), one[2]]
    assert found == pytest.approx(two)


def test_adamw_is_the_default():
    found = stepped(Optimizer(learning_rate=0.5, weight_decay=0.0), [[3.0, -3.0, 0.1]])
    assert found == pytest.approx([0.5, -1.5, 3.5])  # Its first step has the size of the rate.
