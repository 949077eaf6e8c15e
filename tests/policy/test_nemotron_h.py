import pytest
import tiny
import torch

from cascade.policy.blocks import Block
from cascade.policy.nemotron_h import hidden_states, supports


@pytest.fixture
def exact(monkeypatch):
    """transformers' own path in float64: it casts to float32 in places, which this undoes."""
    to, as_type, softmax = torch.Tensor.to, torch.Tensor.type, torch.nn.functional.softmax

    def keep(self, *arguments, **named):
        wide = self.dtype == torch.float64
        return to(self, *(self.dtype if wide and a is torch.float32 else a for a in arguments), **named)

    monkeypatch.setattr(torch.Tensor, "float", lambda self: to(self, torch.promote_types(self.dtype, torch.float32)))
    monkeypatch.setattr(torch.Tensor, "to", keep)
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim=-1, dtype=None: softmax(x, dim, dtype=x.dtype))
    monkeypatch.setattr(
        torch.Tensor, "type", lambda self, *a: self if self.dtype == torch.float64 else as_type(self, *a)
    )


@pytest.fixture
def double(exact):
    model = tiny.nemotron_h().double()
    model.set_experts_implementation("eager")
    return model


@pytest.mark.parametrize("recompute", [False, True])
def test_equals_transformers_in_float64_with_every_gradient(double, recompute):
    tokens = torch.randint(0, tiny.VOCABULARY, (3, 29))
    expected = double.model(tokens).last_hidden_state.flatten(0, 1)
    ours = hidden_states(double, [Block(tokens)], recompute=recompute).hidden
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=0)
    weight = torch.randn_like(expected)
    gradients = []
    for hidden in (expected, ours):
        double.zero_grad()
        (hidden * weight).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in double.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, atol=1e-9, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_rows_that_continue_shared_rows_equal_whole_rows_gradients_included(double):
    torch.manual_seed(1)
    prompts = [torch.randint(3, tiny.VOCABULARY, (n,)) for n in (9, 1)]
    parents, lengths = [0, 1, 0], [5, 3, 1]
    tails = [torch.randint(3, tiny.VOCABULARY, (n,)) for n in lengths]
    pad = torch.nn.utils.rnn.pad_sequence
    shared = Block(pad(prompts, batch_first=True), torch.tensor([9, 1]))
    rows = Block(pad(tails, batch_first=True), torch.tensor(lengths), (0, torch.tensor(parents)))
    hidden = hidden_states(double, [shared, rows]).hidden[shared.tokens.numel() :].view(3, 5, -1)
    results = {}
    for kind in ("shared", "whole"):
        double.zero_grad()
        total = 0
        for n, (tail, parent) in enumerate(zip(tails, parents, strict=True)):
            if kind == "whole":
                whole = torch.cat([prompts[parent], tail])
                part = hidden_states(double, [Block(whole.unsqueeze(0))]).hidden[-len(tail) :]
                torch.testing.assert_close(hidden[n, : len(tail)], part, atol=1e-9, rtol=0)
            else:
                part = hidden[n, : len(tail)]
            total = total + part.sin().sum()
        total.backward(retain_graph=True)
        results[kind] = [p.grad.clone() for p in double.parameters() if p.grad is not None]
    torch.testing.assert_close(results["shared"], results["whole"], atol=1e-9, rtol=1e-9)


def test_padding_changes_nothing_and_is_not_routed():
    model = tiny.nemotron_h()
    tokens = torch.randint(0, tiny.VOCABULARY, (2, 12))
    lengths = torch.tensor([12, 5])
    padded = hidden_states(model, [Block(tokens, lengths)])
    alone = hidden_states(model, [Block(tokens[1:, :5])])
    torch.testing.assert_close(padded.hidden[12:17], alone.hidden, atol=1e-5, rtol=0)
    assert [int(count.sum()) for count in padded.expert_counts] == [17 * 2, 17 * 2]


def test_blocks_of_several_lengths_run_as_one_batch():
    model = tiny.nemotron_h()
    blocks = [Block(torch.randint(0, tiny.VOCABULARY, shape)) for shape in ((2, 7), (3, 4), (1, 1))]
    together = hidden_states(model, blocks).hidden
    apart = torch.cat([hidden_states(model, [block]).hidden for block in blocks])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_expert_groups_are_respected():
    model = tiny.nemotron_h("*E", n_routed_experts=8, n_group=4, topk_group=2)
    tokens = torch.randint(0, tiny.VOCABULARY, (2, 20))
    with torch.no_grad():
        expected = model.model(tokens).last_hidden_state.flatten(0, 1)
        torch.testing.assert_close(hidden_states(model, [Block(tokens)]).hidden, expected, atol=1e-4, rtol=0)


def test_other_models_are_left_to_transformers():
    assert supports(tiny.nemotron_h())
    assert not supports(tiny.nemotron_h(mlp_hidden_act="silu"))
    assert not supports(tiny.qwen3())
