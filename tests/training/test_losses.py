import math

import pytest
import torch

from cascade.training import losses

LOG2 = math.log(2)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def parameter(*values: float) -> torch.Tensor:
    return tensor(*values).requires_grad_()


def test_group_advantages_use_the_groups_mean_and_population_std():
    rewards = tensor(1, 0, 5, 0, 0, 7)  # group 7: 1 0 0 0; group 2: 5 7
    groups = torch.tensor([7, 7, 2, 7, 7, 2])
    std = math.sqrt(3 / 16)
    expected = tensor(0.75 / std, -0.25 / std, -1, -0.25 / std, -0.25 / std, 1)
    torch.testing.assert_close(losses.group_advantages(rewards, groups), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "rewards",
    [
        [0.1 + 0.2, 0.3, 0.3, 0.3],
        [0.7 + 0.1, 0.8, 0.8],
        [1.1 + 2.2, 3.3, 3.3, 3.3],
        [sum([0.1] * 10), 1.0],
        [1 / 3 + 1 / 3 + 1 / 3, 1.0, 1.0],
        [0.0, 0.0],
        [1e-12 * (0.1 + 0.2), 1e-12 * 0.3],
    ],
)
def test_rewards_that_differ_by_rounding_alone_are_equal(rewards, dtype):
    groups = torch.zeros(len(rewards), dtype=torch.long)
    assert losses.group_advantages(torch.tensor(rewards, dtype=dtype), groups).tolist() == [0] * len(rewards)
    assert losses.all_equal(rewards)


def test_small_differences_are_differences():
    for rewards in ([0.5, 0.5001], [1e-6, 2e-6], [0.0, 1e-12], [0.999999, 1.0]):
        assert not losses.all_equal(rewards)
        found = losses.group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(found, torch.tensor([-1.0, 1.0], dtype=torch.float64))


def test_a_zero_variance_group_has_no_advantage_even_where_its_mean_rounds():
    rewards = tensor(0.1, 0.1, 0.1, 0.3, 0.6)
    groups = torch.tensor([0, 0, 0, 1, 1])
    assert sum([0.1, 0.1, 0.1]) / 3 != 0.1
    assert losses.zero_variance(rewards, groups).tolist() == [True, True, True, False, False]
    torch.testing.assert_close(losses.group_advantages(rewards, groups), tensor(0, 0, 0, -1, 1))


def test_policy_gradient_weighs_every_token_of_the_step_alike():
    log_probs = parameter(-1, -2, -3)
    loss = losses.policy_gradient_loss(log_probs, tensor(2, 2, -1), total_tokens=4)
    loss.backward()
    assert loss.item() == pytest.approx(-(2 * -1 + 2 * -2 + -1 * -3) / 4)
    torch.testing.assert_close(log_probs.grad, tensor(-0.5, -0.5, 0.25))


def test_importance_weights_drop_tokens_outside_the_range_and_keep_its_ends():
    sampler = tensor(-1, -1, -1, -1, -1000)
    train = parameter(-1 + LOG2 / 2, -1.0, -1 + 1.01 * LOG2, -1 - 1.01 * LOG2, 0)
    weights = losses.importance_weights(train, sampler, 0.5, 2.0)
    torch.testing.assert_close(weights, tensor(math.sqrt(2), 1, 0, 0, 0))
    assert not weights.requires_grad
    at_ends = losses.importance_weights(tensor(0.0), tensor(0.0), 1.0, 1.0)
    assert at_ends.tolist() == [1.0]


def test_distillation_loss_by_hand():
    # Response A has two tokens, B one; A's second token is dropped but still counts in |V(A)|.
    log_probs = parameter(-1.0, -0.5, -2.0)
    teacher = tensor(-0.5, -3.0, -2.5)
    weights = tensor(1.5, 0.0, 0.8)
    loss = losses.distillation_loss(log_probs, teacher, weights, torch.tensor([2, 2, 1]), responses=2)
    loss.backward()
    by_hand = -(1.5 * 0.5 * -1.0 / 2 + 0.8 * -0.5 * -2.0 / 1) / 2
    assert loss.item() == pytest.approx(by_hand)
    # sg[a]: the gradient is that of log π alone, so the student moves towards what the teacher likes better.
    torch.testing.assert_close(log_probs.grad, tensor(-1.5 * 0.5 / 2 / 2, 0, 0.8 * 0.5 / 2))


def test_distillation_gradient_is_that_of_the_reverse_kl():
    """On-policy, over all tokens of a one-token response: E[sg(log π - log π_T) ∇ log π] = ∇ KL(π ‖ π_T)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_()
    teacher = torch.randn(5, dtype=torch.float64, generator=generator).log_softmax(0)
    policy = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - teacher)).sum(), logits)
    policy = logits.log_softmax(0)
    # Each token counted as often as π samples it: its probability as the weight.
    loss = losses.distillation_loss(policy, teacher, policy.exp().detach(), torch.ones(5), responses=1)
    (estimated,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(estimated, exact)


def test_kl_to_start_has_the_k3_value_and_the_reverse_kl_gradient():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    start = torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(0)
    policy = logits.log_softmax(0)
    (exact_gradient,) = torch.autograd.grad((policy.exp() * (policy - start)).sum(), logits)

    policy = logits.log_softmax(0)
    per_token = losses.kl_to_start(policy, start)
    ratio = (start - policy).exp()
    torch.testing.assert_close(per_token, ratio - 1 - (start - policy))
    assert (per_token >= 0).all()
    expectation = (policy.exp().detach() * per_token).sum()
    assert expectation.item() == pytest.approx((policy.exp() * (policy - start)).sum().item())
    (gradient,) = torch.autograd.grad(expectation, logits)
    torch.testing.assert_close(gradient, exact_gradient)


def test_reverse_kl_and_mismatch_kl_by_hand():
    train, other = tensor(-1.0, -2.0), tensor(-1.5, -1.0)
    torch.testing.assert_close(losses.reverse_kl(train, other), tensor(0.5, -1.0))
    torch.testing.assert_close(losses.mismatch_kl(train, other), tensor(math.exp(0.5) - 1 - 0.5, math.exp(-1) - 1 + 1))


def test_segment_mean_of_interleaved_segments():
    means = losses.segment_mean(tensor(1, 10, 3, 20), torch.tensor([0, 2, 0, 2]), 3)
    assert means[[0, 2]].tolist() == [2, 15]
    assert means[1].isnan()
