#!/usr/bin/env bash
# nvidia-modelopt 0.47.0 with transformers 5.18.0: exporting a NemotronH that was quantised to FP8.
# Expected: the exported configuration names the layers that were left alone ("lm_head", ...), so that a server skips them.
# Seen: each name ends in ".\u0000backbone.pt_name_sentinel", which is no layer's.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" numpy "transformers==5.18.0" "accelerate==1.15.0" "nvidia-modelopt==0.47.0" requests
venv/bin/python - <<'PY'
import json
import logging
import warnings

import modelopt
import modelopt.torch.quantization as mtq
import torch
import transformers
from modelopt.torch.export import export_hf_checkpoint
from transformers import NemotronHConfig, NemotronHForCausalLM

logging.disable()
warnings.simplefilter("ignore")

config = NemotronHConfig(
    vocab_size=64, hidden_size=32, layers_block_type=["mamba", "attention", "moe"], num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=8, n_groups=1, chunk_size=8,
    n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, moe_shared_expert_intermediate_size=16,
    architectures=["NemotronHForCausalLM"],
)
model = NemotronHForCausalLM(config).eval()
mtq.quantize(model, mtq.FP8_DEFAULT_CFG, lambda module: module(torch.arange(8)[None]))
export_hf_checkpoint(model, export_dir="exported")
with open("exported/hf_quant_config.json") as file:
    names = json.load(file)["quantization"]["exclude_modules"]
print("nvidia-modelopt", modelopt.__version__, "transformers", transformers.__version__)
print("left alone:", json.dumps(names))
assert names and all(name.endswith(".\0backbone.pt_name_sentinel") for name in names), "changed: layers have their names"
PY
