"""Low-rank adapters: against peft's own forward pass and gradients, the merged directory, resuming."""

import copy

import pytest
import tiny
import torch
from safetensors.torch import load_file

from cascade.errors import CascadeError, CheckpointError
from cascade.policy.base import Sequence
from cascade.policy.checkpoint import load_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.recipe import Lora, Optimizer
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler

peft = pytest.importorskip("peft", reason="pip install -e '.[lora]'")

KINDS = list(tiny.MAKERS)
LORA = Lora(rank=4, alpha=6.0)
SETTINGS = Optimizer(learning_rate=0.02, gradient_clip=1e9, weight_decay=0.0, micro_batch_tokens=60)
CLOSE = {"atol": 2e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: tiny.checkpoint(root / kind, kind) for kind in KINDS}


def sequences() -> list[Sequence]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for length in (9, 17, 17, 30, 5):
        tokens = torch.randint(3, tiny.VOCABULARY, (length,), generator=draw).tolist()
        found.append(Sequence(tokens, [i > 2 for i in range(length)]))
    return found


COUNT = sum(sum(sequence.trained) for sequence in sequences())
WEIGHTS = torch.linspace(-1, 1, COUNT)


def objective(log_probs, index):
    return (WEIGHTS[index] * log_probs).sum() / COUNT


def trained(checkpoint, steps: int = 3, lora: Lora = LORA, seed: int = 1, **settings) -> HFPolicy:
    policy = HFPolicy(checkpoint, SETTINGS, lora=lora, seed=seed, **settings)
    for _ in range(steps):
        policy.step(sequences(), objective, 0.02)
    return policy


def log_probs_of(model) -> torch.Tensor:
    """Through transformers and whatever peft put into the model, one unpadded sequence at a time."""
    found = []
    for sequence in sequences():
        ids = torch.tensor([sequence.token_ids])
        values = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
        found.append(values[torch.tensor(sequence.trained[1:])])
    return torch.cat(found)


def adapted(checkpoint, policy: HFPolicy):
    """peft's model of the checkpoint as it is on disk, with the adapters of the policy."""
    model, _ = load_checkpoint(checkpoint)
    names = sorted({name.rpartition(".")[0] for name in policy._adapters.parameters})
    config = peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=names)
    net = peft.inject_adapter_in_model(config, model.eval())
    state = policy.training_state()
    for name in names:
        layer = net.get_submodule(name)
        layer.lora_A["default"].weight.data = state[f"lora.{name}.lora_A"]
        layer.lora_B["default"].weight.data = state[f"lora.{name}.lora_B"]
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_step_the_policy_is_the_checkpoint(checkpoints, kind):
    policy, plain = trained(checkpoints[kind], 0), HFPolicy(checkpoints[kind])
    weights = plain.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in policy.model.state_dict().items())
    torch.testing.assert_close(policy.score(sequences()).log_probs, plain.score(sequences()).log_probs, **CLOSE)
    state = policy.training_state()
    assert all((value == 0).all() for name, value in state.items() if name.endswith("lora_B"))
    assert all(value.std() > 0 for name, value in state.items() if name.endswith("lora_A"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapted_policy_the_merged_directory_and_the_sampler_agree(checkpoints, kind, tmp_path):
    policy = trained(checkpoints[kind])
    scores = policy.score(sequences()).log_probs
    assert (scores - HFPolicy(checkpoints[kind]).score(sequences()).log_probs).abs().max() > 0.01
    with torch.no_grad():
        torch.testing.assert_close(scores, log_probs_of(adapted(checkpoints[kind], policy)), **CLOSE)
    policy.save(tmp_path / "merged")
    reloaded = HFPolicy(tmp_path / "merged")
    weights = reloaded.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in policy.model.state_dict().items())
    torch.testing.assert_close(reloaded.score(sequences()).log_probs, scores, **CLOSE)
    request = SampleRequest([5, 6, 7], seed=3)
    (sample,) = TorchSampler(policy).sample([request], max_new_tokens=12)
    of_sample = Sequence([5, 6, 7, *sample.token_ids], [False] * 3 + [True] * len(sample.token_ids))
    torch.testing.assert_close(torch.tensor(sample.log_probs), policy.score([of_sample]).log_probs, **CLOSE)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_peft(checkpoints, kind, recompute):
    policy = trained(checkpoints[kind], 2, checkpoint_activations=recompute)
    net = adapted(checkpoints[kind], policy)
    (WEIGHTS * log_probs_of(net)).sum().div(COUNT).backward()
    policy.step(sequences(), objective, 0.0)
    for name, parameter in policy._adapters.parameters.items():
        layer, _, part = name.rpartition(".")
        reference = getattr(net.get_submodule(layer), part)["default"].weight.grad
        torch.testing.assert_close(parameter.grad, reference, atol=2e-5, rtol=1e-3)
        assert reference.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapted_weights_change_and_by_their_product(checkpoints, kind, tmp_path):
    policy = trained(checkpoints[kind])
    state = policy.training_state()
    policy.save(tmp_path / "merged")
    before, after = (load_checkpoint(d)[0].state_dict() for d in (checkpoints[kind], tmp_path / "merged"))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    adapters = {name.removesuffix(".lora_A") for name in policy._adapters.parameters if name.endswith("lora_A")}
    assert changed == {f"{name}.weight" for name in adapters}
    for name in adapters:
        first, second = (state[f"lora.{name}.lora_{part}"].double() for part in "AB")
        product = before[f"{name}.weight"].double() + 6.0 / 4 * second @ first
        torch.testing.assert_close(after[f"{name}.weight"].double(), product, atol=1e-6, rtol=1e-6)


def test_all_linear_layers_but_the_output_matrix_have_one(checkpoints):
    def names(kind: str, lora: Lora = LORA) -> set[str]:
        return {
            name.split(".")[-2]
            for name in trained(checkpoints[kind], 0, lora)._adapters.parameters
            if name.endswith("lora_A")
        }

    assert names("qwen3") == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert names("qwen3_moe") == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert names("nemotron_h") == {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "up_proj", "down_proj"}
    assert names("qwen3", Lora(rank=2, targets=("q_proj", "v_proj"))) == {"q_proj", "v_proj"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_has_state_of_adapters_alone_and_resuming_is_exact(checkpoints, kind, tmp_path):
    policy = trained(checkpoints[kind], 2)
    state = copy.deepcopy(policy.training_state())
    kinds = {name.split(".")[0] for name in state}
    assert kinds == {"lora", "optimizer"}
    assert all(name.endswith(("lora_A", "lora_B")) for name in state)
    adapters = sum(name.startswith("lora.") for name in state)
    assert sum(name.startswith("optimizer.exp_avg.") for name in state) == adapters
    resumed = trained(checkpoints[kind], 0, seed=2)
    resumed.load_training_state(state)
    for name, other in (("through", policy), ("resumed", resumed)):
        other.step(sequences(), objective, 0.02)
        other.save(tmp_path / name)
    assert load_bytes(tmp_path / "through") == load_bytes(tmp_path / "resumed")


def load_bytes(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_initial_values_are_of_the_seed(checkpoints):
    first, again, other = (trained(checkpoints["qwen3"], 0, seed=seed).training_state() for seed in (1, 1, 2))
    name = next(name for name in first if name.endswith("lora_A"))
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trained(checkpoints["qwen3"], 0)
    assert torch.equal(torch.rand(1), expected)


def test_a_policy_that_is_not_trained_has_no_adapters(checkpoints):
    assert HFPolicy(checkpoints["qwen3"], None, lora=LORA)._adapters is None


def test_a_state_of_other_adapters_is_refused(checkpoints):
    state = trained(checkpoints["qwen3"], 1).training_state()
    for lora in (Lora(rank=3), Lora(rank=4, targets=("q_proj",))):
        with pytest.raises(CheckpointError, match="the training state is of another model"):
            trained(checkpoints["qwen3"], 0, lora).load_training_state(state)


@pytest.mark.parametrize(
    ("kind", "targets", "line"),
    [
        ("qwen3", ("nothing",), r"^lora\.targets: Target modules .*not found in the base model.*"),
        ("qwen3", ("embed_tokens",), r"^lora\.targets: model\.embed_tokens is a Embedding, not a linear layer; leave"),
        ("qwen3", ("lm_head",), r"^lora\.targets: the weight of lm_head is tied to another module; leave it out$"),
        ("nemotron_h", ("out_proj",), r"^lora\.targets: .*out_proj.*incompatible with Mamba"),
    ],
)
def test_targets_that_cannot_be_are_one_line(checkpoints, kind, targets, line):
    with pytest.raises(CascadeError, match=line) as caught:
        trained(checkpoints[kind], 0, Lora(targets=targets))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_in_bfloat16_gets_merged_weights_in_bfloat16(checkpoints, tmp_path):
    model, tokenizer = load_checkpoint(checkpoints["qwen3"], torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    policy = trained(tmp_path / "base")
    policy.save(tmp_path / "merged")
    assert {value.dtype for value in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.bfloat16}
    weights = HFPolicy(tmp_path / "merged").model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in policy.model.state_dict().items())


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
def test_steps_smaller_than_bfloat16_are_kept_sampled_from_and_rounded_when_saved(checkpoints, lora, tmp_path):
    model, tokenizer = load_checkpoint(checkpoints["qwen3"], torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    policy = HFPolicy(tmp_path / "base", SETTINGS, lora=lora, seed=1)
    start = {name: value.clone() for name, value in policy.model.state_dict().items()}
    sampler = TorchSampler(policy)
    for _ in range(3):
        policy.step(sequences(), objective, 1e-5)
    now = policy.model.state_dict()
    moved = [name for name, value in now.items() if not torch.equal(value, start[name])]
    assert moved
    assert {now[name].dtype for name in moved} == {torch.float32}
    changed = sum(int((now[name] != start[name]).sum()) for name in moved)
    assert sum(int((now[name].bfloat16().float() != start[name]).sum()) for name in moved) < changed / 2

    sampler.refresh(policy)
    (sample,) = sampler.sample([SampleRequest([5, 6, 7], seed=3)], max_new_tokens=12)
    of_sample = Sequence([5, 6, 7, *sample.token_ids], [False] * 3 + [True] * len(sample.token_ids))
    exact = policy.score([of_sample]).log_probs
    torch.testing.assert_close(torch.tensor(sample.log_probs), exact, **CLOSE)
    policy.save(tmp_path / "saved")
    loaded = HFPolicy(tmp_path / "saved").score([of_sample]).log_probs
    torch.testing.assert_close(loaded, policy.score([of_sample]).log_probs, **CLOSE)
    assert 0 < (loaded - exact).abs().max() < 0.05
