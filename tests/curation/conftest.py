import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cascade.layout import Layout
from cascade.policy.base import Sequence
from cascade.recipe import Recipe
from cascade.training.sft import PackedSequences

ROOT = Path(__file__).parents[2]
MARKERS = ["<pad>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the turn markers and the project's own chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=MARKERS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "The quick brown fox jumps over the lazy dog while seven wizards count their apples. " * 3
    tokenizer.train_from_iterator([text, "What is the sum of these numbers and why is the answer so?"], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<pad>")
    wrapped.chat_template = (ROOT / "cascade" / "pretraining" / "chat_template.jinja").read_text()
    return wrapped


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return small_tokenizer()


@pytest.fixture(scope="session")
def samples() -> Path:
    path = ROOT.parent / "shared" / "samples"
    if not path.exists():
        pytest.skip(f"{path} is not there: real sample rows are not part of the repository")
    return path


@pytest.fixture(scope="session")
def base(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def layout(tmp_path: Path, base: Path) -> Layout:
    """A project whose base model is a tokenizer alone: curation needs no weights."""
    shutil.copytree(base, tmp_path / "models" / "base")
    return Layout(tmp_path)


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    def make(sources: dict[str, dict], **curation: Any) -> Recipe:
        settings = {"max_tokens": 512, "sequence_length": 1024, **curation, "sources": sources}
        return Recipe.model_validate(
            {
                "name": "test",
                "family": "test",
                "curation": settings,
                **{section: {} for section in ("sft", "rl", "teachers", "distill", "repair", "gate")},
                "evaluation": {"rollouts": 1, "rollout": {"max_new_tokens": 8}},
            }
        )

    return make


def chat_row(question: str, answer: str, **fields: Any) -> dict:
    """A row with the columns of nvidia/Nemotron-Cascade-2-SFT-Data."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"domain": "chat", "source": "made", "messages": messages, "generator": "hand", **fields}


def math_row(question: str, answer: str) -> dict:
    """A prompt row in NeMo Gym's form."""
    return {
        "responses_create_params": {"input": [{"role": "user", "content": question}]},
        "expected_answer": answer,
        "environment": "math",
    }


def write_jsonl(path: Path, rows: Iterable[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_prompts(path: Path) -> list[dict]:
    """The rows of a prompt file, `row` decoded."""
    return [{**row, "row": json.loads(row["row"])} for row in pq.read_table(path).to_pylist()]


def read_sequences(directory: Path) -> list[Sequence]:
    """Packed sequences, as training reads them."""
    packed = PackedSequences(sorted(directory.glob("*.parquet")), directory.with_name("mapped.arrow"))
    return [packed[i] for i in range(len(packed))]
