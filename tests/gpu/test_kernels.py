"""The Triton kernels against the plain functions, on fresh random inputs, in float32 and bfloat16."""

from types import SimpleNamespace

import pytest
import torch

from cascade.policy import elementwise, moe
from cascade.rollout.torch_engine import kernels

ROWS = 37


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


def compare(function, *arguments):
    """Outputs and changed buffers on CUDA against those on the CPU, by the relative norm of what differs."""
    there = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
    expected, found = function(*arguments), function(*there)
    tolerance = 1e-5 if arguments[0].dtype == found.dtype == torch.float32 else 1e-2
    for one, other in [(found, expected), *zip(there, arguments, strict=True)]:
        if isinstance(other, torch.Tensor) and other.numel():  # No rotary positions: tables without columns.
            difference = (one.cpu().double() - other.double()).norm() / other.double().norm()
            assert difference < tolerance


@pytest.mark.parametrize("width", [40, 768, 2688])
def test_add_norm(width, dtype):
    x, update, weight = torch.randn(ROWS, width), torch.randn(ROWS, width).to(dtype), torch.randn(width)
    compare(kernels.add_norm, x, update, weight, 1e-5, dtype)
    compare(kernels.add_norm, x, None, weight, 1e-5, dtype)


@pytest.mark.parametrize(("width", "group"), [(48, 24), (1536, 1536), (4096, 512)])
def test_gated_norm(width, group, dtype):
    gate = torch.randn(ROWS, width + 24).to(dtype)[:, 8 : 8 + width]
    compare(kernels.gated_norm, torch.randn(ROWS, width), gate, torch.randn(width), group, 1e-5, dtype)


@pytest.mark.parametrize("biased", [True, False])
def test_convolve(biased, dtype):
    window, inputs = torch.randn(ROWS, 3, 1664).to(dtype), torch.randn(ROWS, 2000).to(dtype)[:, 16:1680]
    compare(kernels.convolve, window, inputs, torch.randn(4, 1664), torch.randn(1664) if biased else None)


@pytest.mark.parametrize(("heads", "size", "channels", "groups"), [(24, 64, 64, 1), (8, 128, 64, 4), (4, 12, 24, 2)])
@pytest.mark.parametrize("limits", [(0.0, float("inf")), (0.01, 0.5)])
def test_advance_state(heads, size, channels, groups, limits, dtype):
    state = torch.randn(ROWS, heads, size, channels)
    mixed = torch.randn(ROWS, heads * channels + 2 * groups * size).to(dtype)
    dt = (8 * torch.randn(ROWS, heads)).to(dtype)
    of_head = torch.randn(heads), -torch.rand(heads), torch.randn(heads)
    compare(kernels.advance_state, state, mixed, dt, *of_head, groups, limits)


@pytest.mark.parametrize(("heads", "held", "size"), [(12, 2, 64), (8, 8, 32), (32, 2, 128)])
def test_attend(heads, held, size, dtype):
    queries, key, value = (torch.randn(ROWS, n, size).to(dtype) for n in (heads, held, held))
    keys, values = torch.randn(2, ROWS, held, 256, size).to(dtype)
    compare(kernels.attend, queries, key, value, keys, values, torch.arange(ROWS) * 6, size**-0.5)


@pytest.mark.parametrize(
    ("heads", "held", "size", "half", "normed", "window"),
    [
        (9, 3, 64, 32, False, None),
        (32, 4, 128, 64, True, 70),
        (4, 4, 32, 8, True, None),
        (6, 1, 80, 0, False, 1),
        (6, 1, 80, 16, True, 500),
    ],
)
def test_attend_turns_norms_and_slides(heads, held, size, normed, half, window, dtype):
    joint = torch.randn(ROWS, heads + 2 * held, size).to(dtype)
    keys, values = torch.randn(2, ROWS, held, 256, size).to(dtype)
    angles = torch.arange(256).unsqueeze(1) * torch.rand(half)
    weights = torch.rand(2, size) + 0.5

    def attend(joint, keys, values, lengths, cos, sin, of_queries, of_keys):
        queries, key, value = joint.split([heads, held, held], 1)
        rotary, norms = (cos, sin) if half else None, (of_queries, of_keys, 1e-5) if normed else None
        return kernels.attend(queries, key, value, keys, values, lengths, size**-0.5, window, rotary, norms)

    compare(attend, joint, keys, values, torch.arange(ROWS) * 6, angles.cos(), angles.sin(), *weights)


def test_attend_sees_nothing_beyond_the_length():
    queries, key, value = torch.randn(3, 4, 2, 16).cuda()
    keys, values = torch.full((2, 4, 2, 64, 16), torch.nan).cuda()
    lengths = torch.zeros(4, dtype=torch.long).cuda()
    torch.testing.assert_close(kernels.attend(queries, key, value, keys, values, lengths, 0.25), value)


@pytest.mark.parametrize("weighted", [True, False])
def test_squared_relu(weighted, dtype):
    hidden = torch.randn(ROWS, 6 * 704).to(dtype)
    compare(kernels.squared_relu, hidden, torch.rand(ROWS, 6) if weighted else None)


@pytest.mark.parametrize(("parts", "width"), [(None, 1536), (6, 72), (128, 24)])
def test_swiglu(parts, width, dtype):
    hidden = torch.randn(ROWS, (parts or 1) * 2 * width).to(dtype)
    compare(kernels.swiglu, hidden, torch.rand(ROWS, parts) if parts else None)


@pytest.mark.parametrize(("experts", "chosen", "normalise"), [(16, 4, True), (6, 2, False), (128, 8, True)])
def test_softmax_route(experts, chosen, normalise):
    compare(kernels.softmax_route, torch.randn(ROWS, 300), 0.05 * torch.randn(experts, 300), chosen, normalise)


@pytest.mark.parametrize(("heads", "size", "half"), [(9, 64, 32), (3, 80, 16), (1, 8, 4)])
def test_turned(heads, size, half, dtype):
    x = torch.randn(ROWS, heads + 2, size).to(dtype)
    angles = torch.randn(ROWS, half)
    compare(elementwise.turned, x, angles.cos(), angles.sin())
    compare(lambda x, cos, sin: elementwise.turned(x[:, 2:], cos, sin), x, angles.cos(), angles.sin())


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("width", [24, 1536, 3000])
def test_swiglu_and_its_gradient(width, weighted, dtype):
    joint, by_out = torch.randn(ROWS, 2 * width).to(dtype), torch.randn(ROWS, width).to(dtype)
    weight = torch.rand(ROWS).to(dtype) if weighted else None
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    found = []
    for device, kind in (("cpu", torch.float64), ("cuda", dtype)):
        leaves = [t.to(device, kind).requires_grad_() for t in (joint, weight) if t is not None]
        gate, up = leaves[0].chunk(2, -1)
        out = elementwise.swiglu(gate, up, *leaves[1:])
        found.append([out.detach(), *torch.autograd.grad(out, leaves, by_out.to(device, kind))])
    for expected, ours in zip(*found, strict=True):
        assert (ours.cpu().double() - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize(("experts", "chosen", "normalise"), [(16, 4, True), (6, 2, False), (128, 6, True)])
def test_route(experts, chosen, normalise):
    weight, bias, x = 0.05 * torch.randn(experts, 300), 0.1 * torch.randn(experts), torch.randn(ROWS, 300)

    def route(x, weight, bias):
        gate = SimpleNamespace(
            weight=weight,
            e_score_correction_bias=bias,
            num_experts=experts,
            top_k=chosen,
            norm_topk_prob=normalise,
            routed_scaling_factor=2.5,
            num_group=1,
            topk_group=1,
        )
        return kernels.route(x, gate)

    compare(route, x, weight, bias)


@pytest.mark.parametrize(("width", "copies"), [(40, 1), (2688, 6), (768, 4)])
def test_collect(width, copies, dtype):
    """With rows for some of the copies only, and with none."""
    tokens = 50
    for kept in (tokens * copies, tokens * copies // 2):
        order = torch.randperm(tokens * copies)
        back = order.argsort().clamp(max=kept)
        compare(moe.collect, torch.randn(kept, width).to(dtype), order[:kept], back, copies)
    nothing = torch.zeros(tokens * copies, dtype=torch.long).cuda()
    assert not moe.collect(torch.randn(0, width, dtype=dtype).cuda(), nothing[:0], nothing, copies).any()
