import pytest
import torch

from cascade.policy import logits


@pytest.mark.parametrize("transform", [logits.Transform(), logits.Transform(0.3), logits.Transform(2.0, 5.0)])
@pytest.mark.parametrize("held", [0, 2**25])
def test_equals_log_softmax_with_gradients_in_any_chunk(monkeypatch, held, transform):
    monkeypatch.setattr(logits, "CHUNK", {"cpu": 64 * 11})
    monkeypatch.setattr(logits, "HELD", {"cpu": held})
    torch.manual_seed(0)
    hidden = torch.randn(150, 7, dtype=torch.float64, requires_grad=True)
    weight = (3 * torch.randn(11, 7, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 11, (150,))
    scale = torch.randn(150, dtype=torch.float64)
    raw = transform.scale * hidden @ weight.t()
    distribution = (raw if transform.cap is None else transform.cap * (raw / transform.cap).tanh()).log_softmax(-1)
    expected = distribution.gather(1, targets.unsqueeze(1)).squeeze(1)
    log_probs, entropy = logits.token_log_probs(hidden, weight, targets, transform)
    torch.testing.assert_close(log_probs, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(entropy, -(distribution.exp() * distribution).sum(-1), atol=1e-12, rtol=0)
    assert not entropy.requires_grad
    ours = torch.autograd.grad((log_probs * scale).sum(), (hidden, weight))
    theirs = torch.autograd.grad((expected * scale).sum(), (hidden, weight))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_large_logits_stay_finite():
    hidden, weight = torch.tensor([[1e4, 0.0]]), torch.eye(2)
    log_probs, entropy = logits.token_log_probs(hidden, weight, torch.tensor([1]))
    assert log_probs.item() == -1e4
    assert entropy.item() == 0


@pytest.mark.parametrize("transform", [logits.Transform(), logits.Transform(0.3), logits.Transform(2.0, 5.0)])
def test_the_forward_kl_is_that_of_the_whole_vocabulary_with_gradients(monkeypatch, transform):
    monkeypatch.setattr(logits, "CHUNK", {"cpu": 64 * 11})
    torch.manual_seed(0)
    hidden, teacher_hidden = torch.randn(150, 7, dtype=torch.float64, requires_grad=True), torch.randn(150, 5).double()
    weight = (3 * torch.randn(11, 7, dtype=torch.float64)).requires_grad_()
    teacher_weight = torch.randn(11, 5).double()
    scale = torch.randn(150, dtype=torch.float64)

    def log_probs(hidden, weight, of):
        raw = of.scale * hidden @ weight.t()
        return (raw if of.cap is None else of.cap * (raw / of.cap).tanh()).log_softmax(-1)

    ours, theirs = log_probs(hidden, weight, transform), log_probs(teacher_hidden, teacher_weight, logits.Transform())
    expected = (theirs.exp() * (theirs - ours)).sum(-1)
    found, entropy = logits.token_forward_kl(hidden, weight, teacher_hidden, teacher_weight, transform)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(entropy, -(ours.exp() * ours).sum(-1), atol=1e-12, rtol=0)
    assert not entropy.requires_grad
    found = torch.autograd.grad((found * scale).sum(), (hidden, weight))
    expected = torch.autograd.grad((expected * scale).sum(), (hidden, weight))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
