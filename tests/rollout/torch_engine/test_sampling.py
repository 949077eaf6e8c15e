import torch

from cascade.rollout.torch_engine.sampling import draw, uniforms


def test_draws_follow_the_distribution():
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    points = (torch.arange(20000) + 0.5) / 20000
    tokens, log_probs = draw(logits.expand(20000, -1), points, 1.0, 1.0)
    expected = logits[0].log_softmax(-1)
    shares = torch.bincount(tokens, minlength=4) / 20000
    torch.testing.assert_close(shares, expected.exp(), atol=1e-4, rtol=0)
    torch.testing.assert_close(log_probs, expected[tokens], atol=1e-5, rtol=0)


def test_log_probabilities_are_at_the_temperature():
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    tokens, log_probs = draw(logits, torch.tensor([0.1]), 0.5, 1.0)
    torch.testing.assert_close(log_probs, (logits / 0.5).log_softmax(-1)[0, tokens])


def test_a_vanishing_temperature_is_greedy():
    logits = torch.randn(50, 30)
    tokens, log_probs = draw(logits, torch.rand(50), 1e-6, 1.0)
    assert torch.equal(tokens, logits.argmax(-1))
    assert torch.equal(log_probs, torch.zeros(50))


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[torch.tensor([2, 0, 3, 1])]
    points = (torch.arange(1000) + 0.5) / 1000
    for top_p, kept in ((0.4, {1}), (0.6, {1, 3}), (0.81, {0, 1, 3}), (0.96, {0, 1, 2, 3})):
        tokens, log_probs = draw(logits.expand(1000, -1), points, 1.0, top_p)
        assert set(tokens.tolist()) == kept
        torch.testing.assert_close(log_probs, logits[tokens])


def test_impossible_tokens_are_never_drawn_at_the_ends():
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 0.0, -torch.inf]]).expand(2, -1)
    tokens, _ = draw(logits, torch.tensor([0.0, 1 - 2**-24]), 1.0, 1.0)
    assert tokens.tolist() == [1, 3]


def test_numbers_depend_on_seed_and_position_alone():
    many = uniforms([7, 2**63 - 1, 7], 10)
    assert torch.equal(many[0], many[2])
    assert not torch.equal(many[0], many[1])
    assert torch.equal(uniforms([7], 4)[0], many[0, :4])
    assert ((many >= 0) & (many < 1)).all()
