import pytest
import torch
from transformers.models.nemotron_h.modeling_nemotron_h import mamba2_chunk_scan

from cascade.policy.ssd import chunk_length, ssd, ssd_step


def make(length, groups, rows=2, heads=4, channels=3, size=5):
    torch.manual_seed(length)
    shape = {"dtype": torch.float64}
    x = torch.randn(rows, length, heads, channels, **shape)
    dt = torch.rand(rows, length, heads, **shape) + 0.05
    a = -torch.rand(heads, **shape) * 3
    b, c = torch.randn(2, rows, length, groups, size, **shape)
    d = torch.randn(heads, **shape)
    initial = torch.randn(rows, groups, size, heads // groups * channels, **shape)
    return [x, dt, a, b, c, d], initial


def recurrence(x, dt, a, b, c, d, state):
    """The definition, position by position."""
    _rows, length, heads, channels = x.shape
    share = heads // b.shape[2]
    state = state.unflatten(-1, (share, channels)).permute(0, 1, 3, 4, 2).flatten(1, 2)
    out = []
    for t in range(length):
        keys, queries = (z[:, t].repeat_interleave(share, 1) for z in (b, c))
        state = state * (dt[:, t] * a).exp()[..., None, None]
        state = state + (dt[:, t, :, None] * x[:, t])[..., None] * keys[:, :, None]
        out.append((state * queries[:, :, None]).sum(-1) + d[:, None] * x[:, t])
    final = state.unflatten(1, (-1, share)).permute(0, 1, 4, 2, 3).flatten(3)
    return torch.stack(out, 1), final


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (4, 4), (13, 4), (13, 13), (13, 32)])
def test_equals_the_recurrence_for_any_chunk_and_initial_state(length, chunk, groups):
    arguments, initial = make(length, groups)
    y, final = ssd(*arguments, chunk, initial, True)
    expected, state = recurrence(*arguments, initial)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(final, state, atol=1e-10, rtol=0)
    without = ssd(*arguments, chunk, None, False)
    torch.testing.assert_close(without[0], recurrence(*arguments, initial * 0)[0], atol=1e-10, rtol=0)
    assert without[1] is None


@pytest.mark.parametrize("carried", [False, True])
def test_gradient_is_that_of_finite_differences(carried):
    arguments, initial = make(7, 2)
    inputs = [t.requires_grad_() for t in [*arguments, initial]]
    if carried:
        assert torch.autograd.gradcheck(lambda *t: ssd(*t[:6], 3, t[6], True), inputs)
    else:
        assert torch.autograd.gradcheck(lambda *t: ssd(*t, 7, None, False)[0], inputs[:6])


def test_equals_transformers_in_float64(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)
    (x, dt, a, b, c, d), _ = make(21, 2)
    x.requires_grad_()
    expected = mamba2_chunk_scan(x, dt, a, b, c, 8, D=d)
    y = ssd(x, dt, a, b, c, d, 8, None, False)[0]
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=0)
    weight = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (y, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_positions_with_a_zero_step_leave_the_state():
    (x, dt, a, b, c, d), initial = make(9, 1)
    dt[:, 6:] = 0
    _, padded = ssd(x, dt, a, b, c, d, 4, initial, True)
    _, short = ssd(x[:, :6], dt[:, :6], a, b[:, :6], c[:, :6], d, 4, initial, True)
    torch.testing.assert_close(padded, short, atol=1e-12, rtol=0)


def test_steps_one_by_one_equal_the_chunked_scan():
    (x, dt, a, b, c, d), state = make(11, 2)
    expected, final = ssd(x, dt, a, b, c, d, 4, state, True)
    ys = [ssd_step(x[:, t], dt[:, t], a, b[:, t], c[:, t], state) + d[:, None] * x[:, t] for t in range(11)]
    torch.testing.assert_close(torch.stack(ys, 1), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(state, final, atol=1e-10, rtol=0)


def test_strong_decay_stays_finite():
    (x, dt, a, b, c, d), initial = make(40, 1)
    y, _ = ssd(x.float(), dt.float() * 1000, a.float(), b.float(), c.float(), d.float(), 32, initial.float(), True)
    assert y.isfinite().all()


def test_chunk_length_covers_with_little_padding():
    assert [chunk_length(n) for n in (1, 32, 33, 64, 151)] == [1, 32, 17, 32, 31]
