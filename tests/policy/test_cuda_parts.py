"""What only runs on CUDA in earnest, where the CPU can compute it too."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from cascade.policy import attention, moe


def routing(tokens=7, copies=2, count=3):
    torch.manual_seed(0)
    chosen = torch.randint(0, count, (tokens, copies))
    _, order = chosen.flatten().sort(stable=True)
    return chosen, order, order.argsort()


def test_spreading_and_collecting_undo_each_others_order():
    _, order, back = routing()
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(moe.spread(x, order, back, 2), x[order // 2])
    torch.testing.assert_close(moe.collect(x[order // 2], order, back, 2), 2 * x)


def test_gradients_of_the_experts_parts():
    _, order, back = routing()
    x, y = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (7, 14))
    weight = torch.rand(14, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: moe.spread(x, order, back, 2), x)
    assert torch.autograd.gradcheck(lambda y: moe.collect(y, order, back, 2), y)
    assert torch.autograd.gradcheck(moe._WeightedSquaredRelu.apply, (y, weight))


class Modes(TorchDispatchMode):
    """Whether operations had to be deterministic, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.strict: dict[str, bool] = {}

    def __torch_dispatch__(self, operation, types, arguments=(), settings=None):
        wanted = torch.are_deterministic_algorithms_enabled()
        self.strict[str(operation)] = wanted and not torch.is_deterministic_algorithms_warn_only_enabled()
        return operation(*arguments, **(settings or {}))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_deterministic_attention_is_attention_and_sets_the_mode_for_its_backward_pass_alone(checkpointed):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, n, 8, requires_grad=True) for n in (9, 9, 9)]
    weights = torch.randn(2, 3, 9, 8)

    def loss(attend):
        q, k, v = (x.sin() for x in inputs)
        return (attend(q, k, v, is_causal=True, scale=0.3).cos() * weights).sum()

    expected = torch.autograd.grad(loss(F.scaled_dot_product_attention), inputs)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with Modes() as modes:
            total = (
                checkpoint(loss, attention._deterministic, use_reentrant=False)
                if checkpointed
                else loss(attention._deterministic)
            )
            found = torch.autograd.grad(total, inputs)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    strict = [name for name, mode in modes.strict.items() if mode and "detach" not in name]
    assert strict
    assert all("attention" in name and "backward" in name for name in strict)


def test_modules_of_other_libraries_attend_so_too_within_the_block():
    torchs = F.scaled_dot_product_attention
    with attention.deterministic_in_modules():
        assert F.scaled_dot_product_attention is attention.scaled_dot_product_attention
    assert F.scaled_dot_product_attention is torchs
