import json
import random

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from cascade.errors import CascadeError, CheckpointError
from cascade.policy import nemo
from cascade.policy.base import Sequence
from cascade.policy.checkpoint import load_checkpoint, save_checkpoint, stored_types
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer, Rollout
from cascade.rollout import make_sampler
from cascade.utils.files import hash_directory

KINDS = list(tiny.MAKERS)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: tiny.checkpoint(root / kind, kind) for kind in KINDS}


def rollouts(groups=4, size=3):
    """Groups that share prompts, responses from one token up, and packed documents with untrained parts."""
    draw = random.Random(0)

    def tokens(n):
        return [draw.randrange(3, tiny.VOCABULARY) for _ in range(n)]

    sequences = []
    for _ in range(groups):
        prompt = tokens(draw.choice([1, 2, 9, 30]))
        for _ in range(size):
            response = tokens(draw.choice([1, 2, 12, 25]))
            sequences.append(Sequence(prompt + response, [False] * len(prompt) + [True] * len(response)))
    trained = [i % 20 != 0 and i % 3 > 0 and i < 50 for i in range(60)]
    sequences.insert(2, Sequence(tokens(60), trained, (20, 20, 20)))
    return sequences


def reference(model, sequences):
    log_probs, entropies = [], []
    for sequence in sequences:
        start = 0
        for length in sequence.documents or (len(sequence.token_ids),):
            tokens = sequence.token_ids[start : start + length]
            distribution = tiny.reference_log_probs(model, tokens)
            for i in range(1, length):
                if sequence.trained[start + i]:
                    log_probs.append(distribution[i - 1, tokens[i]])
                    entropies.append(-(distribution[i - 1].exp() * distribution[i - 1]).sum())
            start += length
    return torch.stack(log_probs), torch.stack(entropies)


@pytest.mark.parametrize("budget", [40, 8192])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_unpadded_sequences_through_transformers(checkpoints, kind, budget):
    policy = HFPolicy(checkpoints[kind], micro_batch_tokens=budget)
    scores = policy.score(rollouts())
    log_probs, entropies = reference(load_checkpoint(checkpoints[kind])[0].eval(), rollouts())
    torch.testing.assert_close(scores.log_probs, log_probs, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy, entropies, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_is_adamw_on_the_clipped_gradient_of_the_whole_batch(checkpoints, kind):
    settings = Optimizer(learning_rate=1.0, gradient_clip=0.5, weight_decay=0.1, micro_batch_tokens=50)
    policy = HFPolicy(checkpoints[kind], settings)
    sequences = [s for s in rollouts() if not s.documents]
    count = sum(sum(s.trained) for s in sequences)
    weights = torch.linspace(-1, 1, count)
    report = policy.step(sequences, lambda log_probs, index: (weights[index] * log_probs).sum() / count, 1e-3)

    model = load_checkpoint(checkpoints[kind])[0].eval()
    parts = []
    for s in sequences:
        distribution = model(torch.tensor([s.token_ids])).logits[0, :-1].log_softmax(-1)
        parts += [distribution[i - 1, s.token_ids[i]] for i in range(1, len(s.token_ids)) if s.trained[i]]
    loss = (weights * torch.stack(parts)).sum() / count
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == m] for m in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98)).step()
    assert report.loss == pytest.approx(loss.item(), abs=1e-5)
    assert report.gradient_norm == pytest.approx(norm.item(), rel=1e-4)
    expected = dict(model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        # Adam turns the sign of a vanishing gradient into a full step: compare all but a few elements.
        close = torch.isclose(parameter, expected[name], atol=2e-5, rtol=0)
        assert close.float().mean() > 0.99, name


@pytest.mark.parametrize("kind", ["nemotron_h", "qwen3_moe"])
def test_a_frozen_router_does_not_move(checkpoints, kind):
    policy = HFPolicy(checkpoints[kind], Optimizer(learning_rate=1.0), update_router=False)
    before = policy.training_state()
    policy.step(rollouts(), lambda log_probs, _: -log_probs.mean(), 1e-2)
    after = policy.training_state()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(".gate.weight" in name or "correction_bias" in name for name in changed)
    assert any("experts" in name for name in changed)
    unfrozen = HFPolicy(checkpoints[kind], Optimizer(learning_rate=1.0))
    unfrozen.step(rollouts(), lambda log_probs, _: -log_probs.mean(), 1e-2)
    assert any(
        ".gate.weight" in name and not torch.equal(before[name], value)
        for name, value in unfrozen.training_state().items()
        if name in before
    )


def test_expert_load_is_a_share_per_layer_and_none_for_dense_models(checkpoints):
    reports = {
        kind: HFPolicy(checkpoints[kind], Optimizer(learning_rate=1.0)).step(rollouts(), lambda p, _: -p.mean(), 1e-4)
        for kind in KINDS
    }
    assert reports["qwen3"].expert_load is None
    assert reports["nemotron_h"].expert_load.shape == (2, 6)
    assert reports["qwen3_moe"].expert_load.shape == (2, 4)
    torch.testing.assert_close(reports["qwen3_moe"].expert_load.sum(1), torch.ones(2))


def test_what_a_group_shares_is_computed_once(checkpoints):
    prompt = list(range(3, 43))
    group = [Sequence([*prompt, n, n + 1], [False] * 40 + [True] * 2) for n in range(50, 58)]
    reports = {
        kind: HFPolicy(checkpoints[kind], Optimizer(learning_rate=1.0)).step(group, lambda p, _: -p.mean(), 1e-4)
        for kind in ("nemotron_h", "qwen3", "olmo2")
    }
    assert reports["nemotron_h"].tokens == reports["qwen3"].tokens == 40 + 8
    assert reports["olmo2"].tokens == 8 * 41


@pytest.mark.parametrize("kind", KINDS)
def test_layers_computed_again_give_the_same_step(checkpoints, kind):
    kept, again = (
        HFPolicy(checkpoints[kind], Optimizer(learning_rate=1.0), checkpoint_activations=flag) for flag in (False, True)
    )
    reports = [policy.step(rollouts(), lambda p, _: -p.mean(), 1e-4) for policy in (kept, again)]
    assert reports[0].gradient_norm == reports[1].gradient_norm
    ends = [policy.training_state() for policy in (kept, again)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not again.model.training


@pytest.mark.parametrize("kind", ["nemotron_h", "qwen3", "olmo2"])
def test_training_state_resumes_exact_to_the_bit(checkpoints, kind):
    settings = Optimizer(learning_rate=1.0)
    whole, first, second = (HFPolicy(checkpoints[kind], settings) for _ in range(3))
    for policy in (whole, first):
        policy.step(rollouts(), lambda p, _: -p.mean(), 1e-3)
    state = first.training_state()
    first.step(rollouts(), lambda p, _: -p.mean(), 1e-2)
    second.load_training_state(state)
    for policy in (whole, second):
        policy.step(rollouts(2), lambda p, _: -p.mean(), 1e-3)
    one, other = whole.training_state(), second.training_state()
    assert one.keys() == other.keys()
    assert any(name.startswith("optimizer.exp_avg_sq.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_state_of_another_model_is_refused(checkpoints):
    state = HFPolicy(checkpoints["qwen3"]).training_state()
    with pytest.raises(CheckpointError, match="another model"):
        HFPolicy(checkpoints["nemotron_h"]).load_training_state(state)


@pytest.mark.parametrize("kind", KINDS)
def test_saving_gives_equal_bytes_and_loads_the_same(checkpoints, kind, tmp_path):
    policy = HFPolicy(checkpoints[kind])
    for name in ("a", "b"):
        policy.save(tmp_path / name)
    assert hash_directory(tmp_path / "a") == hash_directory(tmp_path / "b") == hash_directory(checkpoints[kind])
    again = HFPolicy(tmp_path / "a").training_state()
    assert all(torch.equal(value, again[name]) for name, value in policy.training_state().items())
    assert again.keys() == policy.training_state().keys()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_config_names_the_layers_for_every_reader(checkpoints):
    config = json.loads((checkpoints["nemotron_h"] / "config.json").read_text())
    assert config["hybrid_override_pattern"] == "ME*EM-"
    assert config["num_hidden_layers"] == len(config["layers_block_type"]) == 6
    assert AutoConfig.from_pretrained(checkpoints["nemotron_h"]).layers_block_type == config["layers_block_type"]
    assert (checkpoints["nemotron_h"] / "chat_template.jinja").is_file()


def damage(directory, how):
    if how == "no weights":
        (directory / "model.safetensors").unlink()
    elif how == "no config":
        (directory / "config.json").unlink()
    elif how == "broken config":
        (directory / "config.json").write_text("{")
    elif how == "cut weights":
        path = directory / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "other shape":
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**config, "moe_intermediate_size": 8}))
    elif how == "no tokenizer":
        (directory / "tokenizer.json").unlink()
    elif how == "not a directory":
        return directory / "nowhere"
    return directory


@pytest.mark.parametrize(
    "how", ["no weights", "no config", "broken config", "cut weights", "other shape", "no tokenizer", "not a directory"]
)
def test_a_bad_checkpoint_is_one_line_naming_it(how, tmp_path):
    directory = damage(tiny.checkpoint(tmp_path / "model"), how)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(directory)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    directory = tiny.checkpoint(tmp_path / "model")
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"<extra{n}>" for n in range(100)])
    tokenizer.save_pretrained(directory)
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_checkpoint(directory)


def test_steps_that_cannot_be_say_why(checkpoints):
    with pytest.raises(CascadeError, match="without an optimizer"):
        HFPolicy(checkpoints["qwen3"]).step(rollouts(), lambda p, _: p.mean(), 1e-3)
    policy = HFPolicy(checkpoints["qwen3"], Optimizer(learning_rate=1.0))
    with pytest.raises(CascadeError, match="no trained token"):
        policy.step([Sequence([3, 4], [False, False])], lambda p, _: p.mean(), 1e-3)
    with pytest.raises(CascadeError, match="gradient norm is nan"):
        policy.step(rollouts(), lambda p, _: (p * float("nan")).sum(), 1e-3)
    with pytest.raises(CascadeError, match="sequence 0: token 0"):
        policy.score([Sequence([3, 4], [True, True])])
    with pytest.raises(CascadeError, match="sequence 1: 2 tokens"):
        policy.score([Sequence([3, 4], [False, True]), Sequence([3, 4], [False, True], (3,))])
    assert len(policy.score([]).log_probs) == 0


def test_weights_on_disk_are_float32(checkpoints):
    assert {t.dtype for t in load_file(checkpoints["nemotron_h"] / "model.safetensors").values()} == {torch.float32}


INFINITE = float("inf")


@pytest.mark.parametrize("limit", [(0.0, INFINITE), (0.01, 0.2)])
def test_the_time_step_is_held_to_time_step_limit_and_not_to_its_initialisations_least(tmp_path, limit):
    """The released models have `time_step_min` 0.001 and `time_step_limit` [0, Infinity]."""
    model = tiny.nemotron_h(time_step_min=0.001, time_step_limit=limit)
    save_checkpoint(model, tiny.tokenizer(), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["time_step_limit"] = list(limit)  # As JSON of Python, Infinity, which the released files have too.
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    policy = HFPolicy(tmp_path / "model")
    expected = {}
    for low, high in (limit, (0.001, INFINITE)):  # The second as transformers would.
        for module in model.modules():
            if hasattr(module, "time_step_limit"):
                module.time_step_limit = (low, high)
        expected[low, high], _ = reference(model, rollouts())
    ours = policy.score(rollouts()).log_probs
    torch.testing.assert_close(ours, expected[limit], atol=2e-5, rtol=0)
    assert (ours - expected[0.001, INFINITE]).abs().max() > 1e-3
    # What is written is what was read: NeMo Automodel follows the same key.
    policy.save(tmp_path / "saved")
    saved = AutoConfig.from_pretrained(tmp_path / "saved")
    assert (saved.time_step_min, tuple(saved.time_step_limit)) == (0.001, limit)
    assert nemo._overrides(tmp_path / "saved") == {}


def test_vllm_is_not_asked_to_limit_a_time_step(tmp_path):
    save_checkpoint(tiny.nemotron_h(time_step_limit=(0.01, 0.2)), tiny.tokenizer(), tmp_path / "model")
    with pytest.raises(CascadeError, match=r"time_step_limit \(0.01, 0.2\): vLLM does not limit"):
        make_sampler(Rollout(engine="vllm", max_new_tokens=4), HFPolicy(tmp_path / "model"))


def train_once(policy):
    batch = [s for s in rollouts() if not s.documents]
    policy.step(batch, lambda log_probs, index: log_probs.sum() / 100, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_has_the_types_of_the_one_it_was_trained_from(checkpoints, kind, tmp_path):
    model, tokenizer = load_checkpoint(checkpoints[kind], torch.bfloat16)
    for name, value in model.named_buffers():
        if name.endswith("correction_bias"):  # As in released models, one tensor stays wider than the others.
            value.data = value.float() + 1e-6
    save_checkpoint(model, tokenizer, tmp_path / "base")
    types = stored_types(tmp_path / "base")
    assert set(types.values()) == {torch.bfloat16} | ({torch.float32} if "nemotron" in kind else set())
    policy = HFPolicy(tmp_path / "base", Optimizer(learning_rate=1e-3))
    train_once(policy)
    exact = {name: value.clone() for name, value in policy.model.state_dict().items()}
    policy.save(tmp_path / "trained")
    assert stored_types(tmp_path / "trained") == types
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["dtype"] == "bfloat16"
    # What is stored is the trained model, rounded once; and the policy is what is stored.
    stored = load_checkpoint(tmp_path / "trained")[0].state_dict()
    for name, value in exact.items():
        kept = name.endswith("correction_bias") or not value.is_floating_point()
        torch.testing.assert_close(stored[name], value if kept else value.bfloat16().float(), atol=0, rtol=0)
    assert torch.equal(HFPolicy(tmp_path / "trained").score(rollouts()).log_probs, policy.score(rollouts()).log_probs)


def test_a_checkpoint_in_float32_is_what_was_trained(checkpoints, tmp_path):
    model, tokenizer = load_checkpoint(checkpoints["qwen3"], torch.bfloat16)
    save_checkpoint(model, tokenizer, tmp_path / "base")
    policy = HFPolicy(tmp_path / "base", Optimizer(learning_rate=1e-3), checkpoint_dtype="float32")
    train_once(policy)
    exact = {name: value.clone() for name, value in policy.model.state_dict().items()}
    policy.save(tmp_path / "trained")
    assert set(stored_types(tmp_path / "trained").values()) == {torch.float32}
    stored = load_checkpoint(tmp_path / "trained")[0].state_dict()
    assert all(torch.equal(stored[name], value) for name, value in exact.items())
    sizes = [sum(file.stat().st_size for file in (tmp_path / d).glob("*.safetensors")) for d in ("base", "trained")]
    assert sizes[1] > 1.9 * sizes[0]
