"""Nodes that two processes run on a GPU each: they end, and a kill or where teachers wait changes nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import NemotronHConfig, NemotronHForCausalLM

from cascade.layout import Layout
from cascade.policy.checkpoint import save_checkpoint
from cascade.utils.files import read_json
from tests.distributed.launch import launch
from tests.training.miniature import (
    VOCABULARY,
    choose_teachers,
    make_tokenizer,
    packed_rows,
    prompt_rows,
    write_rows,
)

pytestmark = [
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
    pytest.mark.timeout(480),  # The first on a machine compiles kernels.
]


def make_hybrid(directory: Path, seed: int) -> None:
    """As large as tensor cores and mamba_ssm's kernels want it, stored in bfloat16."""
    torch.manual_seed(seed)
    config = NemotronHConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        hybrid_override_pattern="ME*E",
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        mamba_num_heads=8,
        mamba_head_dim=32,
        ssm_state_size=32,
        n_groups=1,
        chunk_size=64,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        moe_shared_expert_intermediate_size=64,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.08,
        dtype="bfloat16",
    )
    save_checkpoint(NemotronHForCausalLM(config).to(torch.bfloat16), make_tokenizer(), directory)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("two") / "project")
    for seed, node in enumerate(("base", "sft", "rl", "other")):
        make_hybrid(layout.root / "models" / node, seed)
    for domain in ("one", "two"):
        write_rows(layout.prompts(domain), prompt_rows(domain, 20))
    write_rows(layout.sft_data / "part-0.parquet", packed_rows(7))
    choose_teachers(layout, one="rl", two="other")
    return layout


ENGINES = [("hf", 1), ("nemo", 1), ("nemo", 2)]


@pytest.mark.parametrize(("engine", "expert"), ENGINES)
def test_every_kind_of_node_ends_and_resumes_to_the_same_bytes(
    engine: str, expert: int, project: Layout, tmp_path: Path
) -> None:
    if engine == "nemo":
        pytest.importorskip("nemo_automodel")
    settings = f":engine={engine}:expert={expert}"
    jobs = {"whole": "", "killed": ":die=2", "host": ":memory=host"}
    if engine == "hf":
        jobs["disk"] = ":memory=disk"
    copies = {name: Layout(tmp_path / name) for name in jobs}
    for copy in copies.values():
        shutil.copytree(project.root, copy.root)
    whole, killed = copies["whole"].root, copies["killed"].root
    nodes = [f"{whole}:rl{settings}", f"{killed}:rl{settings}:die=2", f"{whole}:sft{settings}"]
    # The teachers are what was there: rl of the copies that trained it has another checkpoint now.
    distilled = {name: copy for name, copy in copies.items() if name not in ("whole", "killed")}
    for name in ("whole", "killed"):
        distilled[name] = Layout(tmp_path / f"{name}-mopd")
        shutil.copytree(project.root, distilled[name].root)
    nodes += [f"{layout.root}:mopd{settings}{jobs[name]}" for name, layout in distilled.items()]
    launch("node.py", *nodes, gpus=True, limit=450, CASCADE_PATIENCE="200")

    def made(layout: Layout, node: str) -> str:
        return read_json(layout.training(node) / "manifest.json")["checkpoint"]

    assert made(copies["whole"], "rl") == made(copies["killed"], "rl")
    assert made(copies["whole"], "sft")
    assert len({made(layout, "mopd") for layout in distilled.values()}) == 1
    entries = map(json.loads, distilled["whole"].journal("mopd").read_text().splitlines())
    gaps = [entry["values"]["train/log_prob_gap"] for entry in entries if entry["kind"] == "metrics"]
    assert len(gaps) == 4
    assert max(gaps) < 0.05
