"""The benchmark of an RL step: where its time goes."""

import argparse
import re
from pathlib import Path

import torch

from benchmarks import rl_step


def test_a_profile_names_the_operations_of_sampling_and_of_training(tmp_path: Path, capsys) -> None:
    rl_step.make_model(tmp_path / "model")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rl_step.profile(tmp_path / "model", 4, argparse.Namespace(warmup=1, micro_batch_tokens=8192))
    finally:
        torch.set_num_threads(threads)
    sampling, training = capsys.readouterr().out.split("training, 4 new tokens")
    for part in (sampling, training):
        shares = [float(share) for share in re.findall(r"([\d.]+) % ", part)]
        assert len(shares) == rl_step.OPERATIONS
        assert shares == sorted(shares, reverse=True)
        assert 50 < sum(shares) <= 100
        assert re.search(r"aten::mm .* GFLOP", part)
    assert "backward" in training
