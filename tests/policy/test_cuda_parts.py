"""What only runs on CUDA in earnest, where the CPU can compute it too."""

import torch
import torch.nn.functional as F

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


def test_deterministic_attention_is_attention_and_leaves_the_mode_as_it_was():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 9, 9)]
    mask = torch.rand(2, 1, 5, 9) > 0.3
    mask[..., 0] = True
    weights = torch.randn(2, 3, 5, 8)
    expected = torch.autograd.grad(
        (F.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.3) * weights).sum(), inputs
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        y = attention._Deterministic.apply(*inputs, mask, 0.3)
        found = torch.autograd.grad((y * weights).sum(), inputs)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected)
