import pytest
import torch

from cascade.errors import CheckpointError
from cascade.policy.checkpoint import load_checkpoint
from cascade.policy.hf import HFPolicy
from cascade.training import task_vectors
from tests.training.miniature import make_checkpoint, make_hybrid


def weights(**values: list[float]) -> task_vectors.Weights:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_merged_weights_by_hand():
    common, first, second = weights(a=[1, 2]), weights(a=[2, 2]), weights(a=[1, 8])
    torch.testing.assert_close(task_vectors.merged(common, [first, second], 0.3), weights(a=[1.3, 3.8]))
    torch.testing.assert_close(task_vectors.merged(common, [first, second], 1 / 2), weights(a=[1.5, 5]))
    torch.testing.assert_close(task_vectors.merged(common, [first], 1), first)


@pytest.mark.parametrize("make", [make_checkpoint, make_hybrid])
def test_a_model_merged_in_place_has_the_mean_of_the_teachers_weights(make, tmp_path):
    student, common, first, second = (make(tmp_path / str(seed), seed) for seed in range(4))
    policy = HFPolicy(student)
    where = {name: value.data_ptr() for name, value in policy.model.state_dict().items()}
    # The common start is a teacher, too, and one teacher teaches two domains: neither counts in the mean.
    task_vectors.merge_into(policy.model, common, [first, common, second, first], None)
    merged = policy.model.state_dict()
    assert {name: value.data_ptr() for name, value in merged.items()} == where
    expected = [load_checkpoint(checkpoint)[0].state_dict() for checkpoint in (first, second)]
    for name, value in merged.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (expected[0][name] + expected[1][name]) / 2, msg=name)


def test_a_merge_by_a_scale_is_the_start_plus_as_much_of_every_task_vector(tmp_path):
    common, first, second = (make_checkpoint(tmp_path / str(seed), seed) for seed in range(3))
    policy = HFPolicy(common)
    task_vectors.merge_into(policy.model, common, [first, second], 0.75)
    a, b, start = (load_checkpoint(checkpoint)[0].state_dict() for checkpoint in (first, second, common))
    for name, value in policy.model.state_dict().items():
        expected = start[name] + 0.75 * (a[name] - start[name]) + 0.75 * (b[name] - start[name])
        torch.testing.assert_close(value, expected, msg=name)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    policy = HFPolicy(make_checkpoint(tmp_path / "student", 0))
    other = make_hybrid(tmp_path / "other", 1)
    with pytest.raises(CheckpointError, match=r"other: its weights have other names or shapes than the student's; .*$"):
        task_vectors.merge_into(policy.model, other, [other], None)
