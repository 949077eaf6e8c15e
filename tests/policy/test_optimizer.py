import pytest
import torch
from torch import nn

from cascade.policy.optimizer import make_optimizer
from cascade.recipe import Optimizer


def test_the_first_step_has_the_size_of_the_rate_and_only_matrices_decay():
    matrix, vector = nn.Parameter(torch.tensor([[1.0, -2.0]])), nn.Parameter(torch.tensor([4.0]))
    optimizer = make_optimizer([matrix, vector], Optimizer(learning_rate=0.5, weight_decay=0.1))
    matrix.grad, vector.grad = torch.tensor([[3.0, -3.0]]), torch.tensor([0.1])
    optimizer.step()
    assert matrix.flatten().tolist() == pytest.approx([1 - 0.5 * (0.1 * 1 + 1), -2 - 0.5 * (0.1 * -2 - 1)])
    assert vector.tolist() == pytest.approx([4 - 0.5])
