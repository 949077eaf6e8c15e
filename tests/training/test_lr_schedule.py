import pytest

from cascade.recipe import Optimizer
from cascade.training.lr_schedule import learning_rate
from cascade.training.shuffle import ShuffledEpochs


def test_warm_up_is_linear_from_its_first_rate_to_the_peak():
    optimizer = Optimizer(learning_rate=2e-6, warmup_steps=30, warmup_from=2e-7)
    assert learning_rate(optimizer, 0, 50) == pytest.approx(2e-7)
    assert learning_rate(optimizer, 15, 50) == pytest.approx(1.1e-6)
    assert [learning_rate(optimizer, step, 50) for step in (30, 31, 49)] == [2e-6] * 3


def test_cosine_falls_from_the_peak_to_the_minimum_at_the_last_step():
    optimizer = Optimizer(learning_rate=5e-5, min_learning_rate=5e-6, warmup_steps=10, warmup_from=0, schedule="cosine")
    assert learning_rate(optimizer, 0, 111) == 0
    assert learning_rate(optimizer, 10, 111) == pytest.approx(5e-5)
    assert learning_rate(optimizer, 60, 111) == pytest.approx(2.75e-5)
    assert learning_rate(optimizer, 110, 111) == pytest.approx(5e-6)


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    optimizer = Optimizer(learning_rate=1.0, warmup_steps=10, warmup_from=0, schedule="cosine")
    assert [learning_rate(optimizer, step, 3) for step in range(3)] == [0.0, 0.1, 0.2]
    assert learning_rate(Optimizer(learning_rate=1.0, schedule="cosine"), 0, 1) == 1.0


def test_no_step_is_wasted_on_a_rate_of_zero():
    optimizer = Optimizer(learning_rate=4.0, warmup_steps=1, schedule="cosine")
    # Half a cosine over the three steps from the peak to the first one after the run.
    assert [learning_rate(optimizer, step, 4) for step in range(4)] == pytest.approx([2.0, 4.0, 3.0, 1.0])
    slow = Optimizer(learning_rate=4.0, warmup_steps=3)
    assert [learning_rate(slow, step, 5) for step in range(5)] == pytest.approx([1.0, 2.0, 3.0, 4.0, 4.0])


def test_every_epoch_is_another_permutation_and_positions_need_no_history():
    order = ShuffledEpochs(50, 0, "node")
    epochs = [[order[position] for position in range(start, start + 50)] for start in (0, 50)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 2
    assert epochs[0] != epochs[1]
    assert ShuffledEpochs(50, 0, "node")[73] == epochs[1][23]
    assert [ShuffledEpochs(50, 1, "node")[position] for position in range(50)] != epochs[0]
