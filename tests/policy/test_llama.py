import llamas
import pytest
import tiny
import torch

from cascade.policy import forward
from cascade.policy.blocks import Block
from cascade.policy.llama import hidden_states, supports
from tests.policy.test_nemotron_h import exact  # noqa: F401 (fixture)

KINDS = list(llamas.KINDS)


@pytest.fixture(params=KINDS)
def double(request, exact):  # noqa: F811
    model = llamas.make(request.param)
    for parameter in model.parameters():  # The frequencies stay as they are.
        parameter.data = parameter.data.double()
    model.set_experts_implementation("eager")
    return model


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("recompute", [False, True])
def test_equals_transformers_in_float64_with_every_gradient(double, recompute):
    tokens = torch.randint(0, tiny.VOCABULARY, (3, 19), generator=torch.Generator().manual_seed(0))
    expected = double.model(tokens).last_hidden_state.flatten(0, 1)
    ours = hidden_states(double, [Block(tokens)], recompute=recompute).hidden
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=0)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    of_theirs = gradients(double)
    (ours * weight).sum().backward()
    of_ours = gradients(double)
    assert of_ours.keys() == of_theirs.keys()
    for name, gradient in of_theirs.items():
        torch.testing.assert_close(of_ours[name], gradient, atol=1e-9, rtol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_rows_that_continue_shared_rows_equal_whole_rows_gradients_included(double):
    torch.manual_seed(1)
    prompts = [torch.randint(3, tiny.VOCABULARY, (n,)) for n in (9, 1)]
    parents, lengths = [0, 1, 0], [5, 3, 1]
    tails = [torch.randint(3, tiny.VOCABULARY, (n,)) for n in lengths]
    pad = torch.nn.utils.rnn.pad_sequence
    shared = Block(pad(prompts, batch_first=True), torch.tensor([9, 1]))
    rows = Block(pad(tails, batch_first=True), torch.tensor(lengths), (0, torch.tensor(parents)))
    hidden = hidden_states(double, [shared, rows]).hidden[shared.tokens.numel() :].view(3, 5, -1)
    total = sum(hidden[n, : len(tail)].sin().sum() for n, tail in enumerate(tails))
    total.backward()
    found, total = gradients(double), 0
    for n, (tail, parent) in enumerate(zip(tails, parents, strict=True)):
        whole = torch.cat([prompts[parent], tail])
        part = double.model(whole.unsqueeze(0)).last_hidden_state[0, -len(tail) :]
        torch.testing.assert_close(hidden[n, : len(tail)], part, atol=1e-9, rtol=0)
        total = total + part.sin().sum()
    total.backward()
    torch.testing.assert_close(found, gradients(double), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["qwen3_moe", "mistral"])
def test_padding_changes_nothing_and_is_not_routed(kind):
    model = llamas.make(kind)
    tokens = torch.randint(0, tiny.VOCABULARY, (2, 12))
    padded = hidden_states(model, [Block(tokens, torch.tensor([12, 5]))])
    alone = hidden_states(model, [Block(tokens[1:, :5])])
    torch.testing.assert_close(padded.hidden[12:17], alone.hidden, atol=1e-5, rtol=0)
    assert [int(count.sum()) for count in padded.expert_counts] == [17 * 2] * (2 if kind == "qwen3_moe" else 0)


def test_what_it_does_not_compute_is_left_to_transformers():
    assert all(supports(llamas.make(kind)) and forward.supports(llamas.make(kind)) for kind in KINDS)
    assert not supports(llamas.make("llama", hidden_act="gelu"))
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert not supports(llamas.make("llama", rope_parameters=dynamic))
    model = llamas.make("llama")
    model.model.layers[1].mlp.up_proj = torch.nn.Sequential(model.model.layers[1].mlp.up_proj)
    assert not supports(model)
    assert not supports(tiny.nemotron_h())
