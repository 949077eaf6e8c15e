#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.18.0: LoRA's target_modules="all-linear" on a NemotronH.
# Expected: adapters on the linear layers that may have them.
# Seen: ValueError: `all-linear` selects Mamba's out_proj, which peft itself then refuses for this kind of model. Naming the
# other layers works.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" numpy "transformers==5.18.0" "peft==0.21.2"
venv/bin/python - <<'PY'
import logging
import warnings

import peft
import transformers
from peft import LoraConfig, get_peft_model
from transformers import NemotronHConfig, NemotronHForCausalLM

logging.disable()
warnings.simplefilter("ignore")


def adapted(targets):
    config = NemotronHConfig(
        vocab_size=64, hidden_size=32, layers_block_type=["mamba", "attention", "moe"], num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=8, n_groups=1, chunk_size=8,
        n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, moe_shared_expert_intermediate_size=16,
    )
    settings = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")
    try:
        model = get_peft_model(NemotronHForCausalLM(config), settings)
    except ValueError as error:
        return f"ValueError: {error}"
    return f"{sum(hasattr(module, 'lora_A') for module in model.modules())} layers have adapters"


print("peft", peft.__version__, "transformers", transformers.__version__)
for targets in (["in_proj", "q_proj", "k_proj", "v_proj", "o_proj"], "all-linear"):
    seen = adapted(targets)
    print(f"{targets}: {seen}")
assert seen.startswith("ValueError"), "changed: all-linear leaves out what is refused"
PY
