"""The benchmark of the paper's model shape: the model that it builds, and each part at a small size."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu import paper_shape
from cascade.policy.model_size import shape_of

ROOT = Path(__file__).parents[2]
TINY = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "hybrid_override_pattern": "ME*E",
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 1,
    "chunk_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}


def test_the_whole_model_has_the_released_one_s_parameters() -> None:
    """31.6 billion in all, of which a token meets 3.2 (3.6 with both embeddings)."""
    experts, router, shared, width = 128 * 2 * 2688 * 1856, 128 * 2688, 2 * 2688 * 3712, 2688
    mamba = 2688 * (2 * 4096 + 2 * 8 * 128 + 64) + 4096 * 2688 + 4 * 6144 + 6144 + 3 * 64 + 4096
    attention = 2 * 2688 * 32 * 128 + 2 * 2688 * 2 * 128
    head = 131072 * 2688
    total = 23 * (experts + router + shared) + 23 * mamba + 6 * attention + 53 * width + 2 * head
    shape = shape_of(ROOT / paper_shape.CONFIG)
    assert shape.parameters == total
    assert total / 1e9 == pytest.approx(31.6, abs=0.05)
    active = paper_shape.active(shape, 128)
    assert active == total - 23 * experts * 122 // 128 - head
    assert active / 1e9 == pytest.approx(3.2, abs=0.05)
    assert (active + head) / 1e9 == pytest.approx(3.6, abs=0.05)


def test_a_cut_is_the_first_layers(tmp_path: Path) -> None:
    shape = paper_shape.cut_shape(6, ROOT / paper_shape.CONFIG, tmp_path)
    assert shape.kinds == ("mamba", "moe", "mamba", "moe", "mamba", "attention")
    assert paper_shape.config(None, ROOT / paper_shape.CONFIG).num_hidden_layers == 52


def test_every_part_at_a_small_size(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    task = {"config": str(tmp_path / "tiny.json"), "layers": 4, "engine": "hf", "work": str(tmp_path / "work")}
    task |= {"lengths": [64, 128], "steps": 2, "new_tokens": 4, "servers": [], "weights": ""}
    task |= {"result": str(tmp_path / "found.json")}
    found = {}
    for do in ("sft", "rl", "save", "resume"):
        paper_shape.worker({**task, "do": do})
        found[do] = json.loads((tmp_path / "found.json").read_text())
        assert "unfinished" not in found[do]
    for length in ("64 tokens", "128 tokens"):
        first, last = found["sft"][length]["losses"]
        assert last < first
    assert found["sft"]["active parameters"] < found["sft"]["parameters"]
    assert max(most for _, most in found["rl"]["sampler against trainer, nats, mean and most"]) < 1e-4
    assert found["rl"]["median s"]["mopd, scoring"] > 0
    assert found["save"]["state bytes"] > 12 * found["save"]["parameters"]
    assert found["resume"]["resumed after step"] == 1
    assert found["resume"]["the next step's loss, norm and log-probabilities are the same to the bit"]
    mean, most = found["resume"]["exported against trainer, nats, mean and most"]
    assert 0 <= mean <= most < 1e-3


def test_a_run_that_does_not_end_leaves_what_it_found_and_is_run_again(tmp_path: Path, monkeypatch) -> None:
    """A second step of RL that fails: the first is in the file, marked."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    task = {"config": str(tmp_path / "tiny.json"), "layers": 4, "engine": "hf", "work": str(tmp_path / "work")}
    task |= {"steps": 2, "new_tokens": 4, "servers": [], "weights": "", "result": str(tmp_path / "found.json")}
    sampled, calls = paper_shape.two_gpus.sampled, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > 2:
            raise RuntimeError("no more")
        return sampled(*arguments)

    monkeypatch.setattr(paper_shape.two_gpus, "sampled", failing)
    with pytest.raises(RuntimeError, match="no more"):
        paper_shape.worker({**task, "do": "rl"})
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["unfinished"]
    assert len(found["all s"]["mopd, step"]) == 1
