#!/usr/bin/env bash
# transformers 5.18.0: two sequences in one row, as DataCollatorWithFlattening lays them, with `position_ids` and `seq_idx`, which say
# where each begins, through a NemotronH where Mamba's kernels are not installed, as on any CPU.
# Expected: each sequence has the log-probabilities that it has by itself, since the fallback is announced as "correct but much slower";
# or seq_idx is refused.
# Seen: Mamba layers take seq_idx and ignore it: the second sequence goes on from the first one's state, and is off by nats. Attention
# layers alone keep the two apart.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "torch==2.13.0" "transformers==5.18.0" numpy
cat > pack.py <<'PY'
import torch
import transformers
from transformers import DataCollatorWithFlattening, NemotronHConfig, NemotronHForCausalLM


def gaps(pattern):
    """Of either sequence, in the row and by itself: the largest difference of its log-probabilities."""
    torch.manual_seed(0)
    config = NemotronHConfig(
        vocab_size=128, hidden_size=64, num_hidden_layers=len(pattern), hybrid_override_pattern=pattern,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=64, mamba_num_heads=8,
        mamba_head_dim=16, ssm_state_size=16, n_groups=2, chunk_size=16, initializer_range=0.2,
    )
    model = NemotronHForCausalLM(config).eval()
    sequences = [torch.randint(3, 128, (11,)), torch.randint(3, 128, (9,))]
    collate = DataCollatorWithFlattening(return_tensors="pt", return_seq_idx=True)
    row = collate([{"input_ids": sequence.tolist()} for sequence in sequences])
    del row["labels"]
    with torch.no_grad():
        packed = model(**row, use_cache=False).logits[0].log_softmax(-1).split([11, 9])
        alone = [model(sequence[None], use_cache=False).logits[0].log_softmax(-1) for sequence in sequences]
    return [(x - y).abs().max().item() for x, y in zip(packed, alone)]


attention, hybrid = gaps("*-*-"), gaps("M*M-")
print("torch", torch.__version__, "transformers", transformers.__version__)
for name, (first, second) in {"attention alone": attention, "Mamba and attention": hybrid}.items():
    print(f"{name}: the first sequence is off by {first:.1e} nats, the second by {second:.1e}")
assert max(*attention, hybrid[0]) < 1e-3 and hybrid[1] > 1, "changed: Mamba layers heed seq_idx, or attention does not"
PY
venv/bin/python pack.py 2> log || { tail -n 5 log >&2; exit 1; }
grep -m 1 -o "mamba_chunk_scan_combined.*much slower" log
