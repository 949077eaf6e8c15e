"""A NemotronH with random weights whose layers are worth splitting: 128 experts, 6 of them for each token, as in
Nemotron-3-Nano, and the tokenizer of models/base.

    python -m benchmarks.gpu.wide_model --out DIR [--layers 14] [--width 2048] [--inner 768]

The default has 2.7 billion parameters, so that it trains on one GPU of 80 GB too.
"""

import argparse
from pathlib import Path

import torch
from transformers import NemotronHConfig, NemotronHForCausalLM

from cascade.policy.checkpoint import load_tokenizer, save_checkpoint

BASE = Path("models/base")
PATTERN = "MEM*EMEMEM*EME"
"""Of the first 14 layers; more repeat it from the third on."""


def config(layers: int = 14, width: int = 2048, inner: int = 768, experts: int = 128) -> NemotronHConfig:
    pattern = PATTERN + PATTERN[2:] * (layers // len(PATTERN) + 1)
    return NemotronHConfig(
        vocab_size=2048,
        hidden_size=width,
        hybrid_override_pattern=pattern[:layers],
        num_attention_heads=width // 128,
        num_key_value_heads=2,
        head_dim=128,
        mamba_num_heads=2 * width // 64,
        mamba_head_dim=64,
        ssm_state_size=128,
        n_groups=8,
        chunk_size=128,
        n_routed_experts=experts,
        num_experts_per_tok=6,
        moe_intermediate_size=inner,
        moe_shared_expert_intermediate_size=2 * inner,
        routed_scaling_factor=2.5,
        initializer_range=0.02,
        eos_token_id=5,
        bos_token_id=1,
        pad_token_id=0,
        dtype="bfloat16",
    )


def build(out: Path, made: NemotronHConfig) -> int:
    """Write the checkpoint; how many parameters it has."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = NemotronHForCausalLM(made).to(torch.bfloat16)
    finally:
        torch.set_default_dtype(torch.float32)
    save_checkpoint(model.cpu(), load_tokenizer(BASE, made.vocab_size), out)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True)
    for name, value in (("layers", 14), ("width", 2048), ("inner", 768), ("experts", 128)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    options = arguments.parse_args()
    count = build(options.out, config(options.layers, options.width, options.inner, options.experts))
    print(f"{options.out}: {count / 1e9:.2f} billion parameters")


if __name__ == "__main__":
    main()
