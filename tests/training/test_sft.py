import pytest
import torch

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Sequence
from cascade.tracking import Journal
from cascade.training.sft import PackedSequences, mean_negative_log_prob, run_sft, step_count
from tests.training.miniature import make_recipe, packed_rows, write_rows


def losses(layout: Layout) -> list[float]:
    return [e["values"]["train/loss"] for e in Journal(layout.journal("sft")).entries() if e["kind"] == "metrics"]


def test_the_loss_falls_and_counts_trained_tokens_alone(project: Layout):
    write_rows(project.sft_data / "part-0.parquet", packed_rows(3))
    start = make_policy("hf", project.root / "models" / "base", None)
    sequences = [Sequence(r["input_ids"], r["trained"], tuple(r["documents"])) for r in packed_rows(3)]
    run_sft(make_recipe(sft={"epochs": 20.0}), "sft", project)
    found = losses(project)
    assert len(found) == 20
    assert found[0] == pytest.approx(-start.score(sequences).log_probs.mean().item(), abs=1e-5)
    assert found[-1] < 0.5 * found[0]


def test_micro_batches_of_the_objective_add_up_to_the_mean():
    log_probs = torch.tensor([-1.0, -2.0, -3.0, -4.0])
    objective = mean_negative_log_prob(4)
    parts = [objective(log_probs[index], index) for index in (torch.tensor([0, 2]), torch.tensor([1, 3]))]
    assert sum(parts).item() == pytest.approx(2.5)


def test_fractions_of_an_epoch_become_steps(project: Layout):
    node = make_recipe(sft={"epochs": 1.5}).sft["sft"]
    assert [step_count(node, sequences) for sequences in (1, 2, 4, 100)] == [1, 1, 2, 50]


def test_rows_of_several_files_are_read_as_one(tmp_path):
    rows = packed_rows(5)
    write_rows(tmp_path / "a.parquet", rows[:2])
    write_rows(tmp_path / "b.parquet", rows[2:])
    data = PackedSequences([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "work" / "mapped.arrow")
    assert len(data) == 5
    assert [data[i].token_ids for i in range(5)] == [row["input_ids"] for row in rows]
    assert data[3] == Sequence(rows[3]["input_ids"], rows[3]["trained"], (6, 6))


def test_data_that_is_not_packed_sequences_is_named(project: Layout, tmp_path):
    write_rows(tmp_path / "bad.parquet", [{"input_ids": [1]}])
    with pytest.raises(CascadeError, match=r"bad.parquet: no column 'trained'; packed sequences have"):
        PackedSequences([tmp_path / "bad.parquet"], tmp_path / "mapped.arrow")
    for file in project.sft_data.iterdir():
        file.unlink()
    with pytest.raises(CascadeError, match=r"data/sft: no Parquet files; `cascade node curate` writes them"):
        run_sft(make_recipe(), "sft", project)
