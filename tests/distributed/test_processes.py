"""Two processes, started by torchrun over gloo, do what one does: scores, losses, gradients, states, checkpoints."""

from pathlib import Path

import pytest
import torch

from cascade.errors import CascadeError
from cascade.policy.batching import trained_count
from cascade.policy.checkpoint import load_checkpoint
from cascade.policy.nemo import NemoPolicy, _place
from cascade.recipe import Parallel
from cascade.utils import distributed
from tests.distributed import worker
from tests.distributed.launch import launch
from tests.policy import tiny

CHECKS = ["hf/nemotron_h", "sharded/qwen3_moe"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What one process and two found, by check."""
    folder = tmp_path_factory.mktemp("processes")
    for kind in ("nemotron_h", "qwen3_moe"):
        tiny.checkpoint(folder / kind / "checkpoint", kind)
    launch("worker.py", folder, *CHECKS)
    launch("worker.py", folder, "hf/nemotron_h", "hf/qwen3_moe", processes=1)
    one, two = (torch.load(folder / f"found.{n}.pt", weights_only=False) for n in (1, 2))
    return {check: one[f"hf/{check.split('/')[1]}"] for check in CHECKS}, two


@pytest.mark.parametrize("check", CHECKS)
def test_gradients_equal_one_process_s(check: str, found: tuple[dict, dict]) -> None:
    one, two = (side[check]["steps"][0] for side in found)
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, gradient in one["gradients"].items():
        difference = (two["gradients"][name] - gradient).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-9, name  # Other micro-batches add up in another order.
    assert two["report"].gradient_norm == pytest.approx(one["report"].gradient_norm, rel=1e-6)


@pytest.mark.parametrize("check", CHECKS)
def test_scores_and_reports_come_in_the_order_of_the_batch(check: str, found: tuple[dict, dict]) -> None:
    one, two = (side[check] for side in found)
    torch.testing.assert_close(two["before"], one["before"], atol=1e-5, rtol=0)
    assert len(two["before"]) == trained_count(worker.sequences())
    first, other = one["steps"][0]["report"], two["steps"][0]["report"]
    torch.testing.assert_close(other.scores.log_probs, first.scores.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.scores.entropy, first.scores.entropy, atol=1e-5, rtol=0)
    # transformers' layers, which the split model runs, count padding and a group's prompt with each of its rollouts.
    exact = check.startswith("hf/")
    torch.testing.assert_close(other.expert_load, first.expert_load, atol=1e-6 if exact else 0.02, rtol=0)
    assert other.loss == pytest.approx(first.loss, rel=1e-6)
    assert other.tokens == first.tokens if exact else other.tokens >= first.tokens


@pytest.mark.parametrize("check", CHECKS)
def test_training_goes_the_same_way(check: str, found: tuple[dict, dict]) -> None:
    one, two = (side[check] for side in found)
    assert (one["after"] - one["before"]).abs().max() > 0.05
    torch.testing.assert_close(two["after"], one["after"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("check", CHECKS)
def test_a_resumed_step_is_the_same_to_the_bit(check: str, found: tuple[dict, dict]) -> None:
    last, again = found[1][check]["steps"][-1], found[1][check]["again"]
    assert again["report"].loss == last["report"].loss
    assert torch.equal(again["report"].scores.log_probs, last["report"].scores.log_probs)
    assert all(torch.equal(again["gradients"][name], gradient) for name, gradient in last["gradients"].items())


def test_each_process_keeps_its_part_of_a_split_model(found: tuple[dict, dict]) -> None:
    assert found[1]["hf/nemotron_h"]["parts"] == ["state.safetensors"]
    assert found[1]["sharded/qwen3_moe"]["parts"] == ["state.2.1.safetensors", "state.safetensors"]
    folder = found[1]["sharded/qwen3_moe"]["saved"].parent
    sizes = [path.stat().st_size for path in folder.glob("state*")]
    assert max(sizes) < 1.1 * min(sizes)


@pytest.mark.parametrize("check", CHECKS)
def test_the_checkpoint_is_whole(check: str, found: tuple[dict, dict]) -> None:
    of = found[1][check]
    model, _ = load_checkpoint(of["saved"])
    if "whole" in of:
        with torch.no_grad():
            torch.testing.assert_close(of["whole"], model(torch.tensor([[3, 4, 5, 6]])).logits)
    policy = worker.HFPolicy(of["saved"])
    torch.testing.assert_close(policy.score(worker.sequences()).log_probs, of["after"], atol=1e-4, rtol=0)


def test_places_in_the_mesh() -> None:
    """Eight processes, sequences split over two, matrices over two: data 0 holds ranks 0 to 3."""
    places = [_place(Parallel(tensor=2, context=2), rank, 8) for rank in range(8)]
    assert [place.data for place in places] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [place.context for place in places] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [place.tensor for place in places] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert places[0].data_size == 2


def test_alone_a_process_is_the_first_of_one() -> None:
    assert (distributed.rank(), distributed.size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather("x") == ["x"]
    assert distributed.gather_shards(distributed.shard([1, 2, 3])) == [1, 2, 3]
    assert distributed.broadcast_from_main(lambda: 5) == 5


def test_nemo_says_what_it_needs(tmp_path: Path) -> None:
    checkpoint = tiny.checkpoint(tmp_path / "model", "qwen3")
    with pytest.raises(CascadeError, match="parallel: expert is 8, which does not divide the 1 processes"):
        NemoPolicy(checkpoint, parallel=Parallel(expert=8))
    if not torch.cuda.is_available():
        with pytest.raises(CascadeError, match="engine nemo needs NVIDIA GPUs"):
            NemoPolicy(checkpoint)


def test_shards_are_gathered_together(found: tuple[dict, dict]) -> None:
    """Rows that do not divide, fewer rows than processes, other types and dimensions, copies, plain tensors."""
    values = found[1]["whole"]
    assert list(values) == [*worker.LAYOUTS, "plain"]
    for name, (whole, expected) in values.items():
        assert whole.dtype == expected.dtype, name
        assert torch.equal(whole, expected), name
