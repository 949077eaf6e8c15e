"""A project in miniature: a tiny Llama, a domain whose verifier looks for a word, prompts and packed sequences."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PreTrainedTokenizerFast,
)

from cascade.environments import Environment, Verdict, base
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.utils.files import hash_directory, write_json

WORDS = [f"w{i}" for i in range(12)]
VOCABULARY = ["<pad>", "</s>", "<user>", "<assistant>", "one", "two", *WORDS]
TEMPLATE = (
    "{% for m in messages %}{{ '<user> ' if m.role == 'user' else '<assistant> ' }}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class FindTheWord(Environment):
    """Reward 1 where the response has the row's word. `fail` in a row makes its verdict a failure."""

    name = "find_the_word"

    def check_row(self, row):
        if "word" not in row:
            raise base.RowError("no_word", "the row has no word")

    def verify(self, row, response):
        if row.get("fail") == "raise":
            raise RuntimeError("the verifier broke")
        if row.get("fail"):
            return Verdict(None, failure=row["fail"])
        return Verdict(float(row["word"] in response.content.split()))

    def generate(self, count, seed, level):
        raise AssertionError("no test here generates tasks")


class DriftingSampler(TorchSampler):
    """The torch sampler; `offset` is added to the log-probabilities that it claims."""

    offset = 0.0

    def sample(self, requests, *, on_finish=None, **settings):
        def claimed(index, sample):
            return on_finish(index, replace(sample, log_probs=[x + self.offset for x in sample.log_probs]))

        return super().sample(requests, on_finish=on_finish and claimed, **settings)


def make_tokenizer(vocabulary: list[str] = VOCABULARY) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_checkpoint(directory: Path, seed: int, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    (tokenizer or make_tokenizer()).save_pretrained(directory)
    return directory


def make_hybrid(directory: Path, seed: int) -> Path:
    """A NemotronH: Mamba-2, attention, routed experts."""
    torch.manual_seed(seed)
    config = NemotronHConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        hybrid_override_pattern="ME*E",
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        mamba_num_heads=4,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=1,
        chunk_size=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        moe_shared_expert_intermediate_size=16,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.2,
    )
    NemotronHForCausalLM(config).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def prompt_rows(domain: str, count: int, **fields) -> list[dict]:
    return [
        {
            "id": f"{domain}-{i}",
            "environment": "find_the_word",
            "row": json.dumps(
                {
                    "responses_create_params": {"input": f"{domain} {WORDS[i % 12]}"},
                    "word": WORDS[(i + 1) % 12],
                    **fields,
                }
            ),
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def packed_rows(count: int, seed: int = 0) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, len(VOCABULARY), (count, 12), generator=generator).tolist()
    trained = ([False] * 3 + [True] * 3) * 2
    return [{"input_ids": row, "trained": trained, "documents": [6, 6]} for row in ids]


OPTIMIZER = {"learning_rate": 0.02, "weight_decay": 0.1, "micro_batch_tokens": 64}
ON_POLICY = {
    "init": "sft",
    "round": 1,
    "mix": {"one": 0.5, "two": 0.5},
    "steps": 4,
    "prompts": 4,
    "rollouts": 4,
    "rollout": {"max_new_tokens": 5, "thinking": False},
    "optimizer": OPTIMIZER,
    "checkpoint_every": 1,
}


def make_recipe(threads: int = 1, **changes: dict) -> Recipe:
    """The miniature's recipe; `rl={"steps": 2}` changes keys of node rl, and so on."""
    nodes = {
        "sft": {"init": "base", "round": 1, "epochs": 2.0, "batch": 3, "optimizer": OPTIMIZER, "checkpoint_every": 1},
        "rl": {**ON_POLICY, "overlong": "keep"},
        "mopd": {**ON_POLICY, "round": 2, "teachers": "choose"},
        "mend": {**ON_POLICY, "init": "mopd", "round": 3, "reads_round": 2, "against": ["sft", "rl"], "budget": 0},
    }
    for name, change in changes.items():
        nodes[name] |= change
    source = {"path": "rows.jsonl", "environment": "find_the_word", "sft": 1, "rl": 1, "benchmark": 1}
    evaluation = {"rollouts": 1, "rollout": {"max_new_tokens": 5}}
    return Recipe.model_validate(
        {
            "name": "miniature",
            "family": "miniature",
            "threads": threads,
            "curation": {
                "sources": {domain: {**source, "domain": domain} for domain in ("one", "two")},
                "max_tokens": 12,
                "sequence_length": 12,
            },
            "sft": {"sft": nodes["sft"]},
            "rl": {"rl": nodes["rl"]},
            "teachers": {"choose": {"round": 1, "candidates": ["sft", "rl"]}},
            "distill": {"mopd": nodes["mopd"]},
            "repair": {"mend": nodes["mend"]},
            "evaluation": evaluation,
            "gate": {},
        }
    )


def choose_teachers(layout: Layout, **of_domain: str) -> None:
    teachers = {
        domain: {"node": node, "checkpoint": f"models/{node}", "hash": hash_directory(layout.checkpoint(node))}
        for domain, node in of_domain.items()
    }
    write_json(layout.decision("choose"), {"teachers": teachers})
