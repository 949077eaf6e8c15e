"""The same steps with datatrove's own blocks, in an environment of datatrove: one JSON line of CPU seconds and counts.

    read JSONL, chat template → MinHash (signatures, buckets, clusters) → filter → tokenize

Usage: peer_datatrove.py FOLDER TOKENIZER_JSON TEMPLATE; rows are FOLDER/rows/*.jsonl. With FOLDER/pairs.jsonl instead
of rows, prints which of these texts were dropped.
"""

import json
import shutil
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from jinja2.sandbox import ImmutableSandboxedEnvironment

CONFIG = MinhashConfig(n_grams=3, num_buckets=8, hashes_per_bucket=11, hash_config=HashConfig(precision=64))
"""As Cascade's: shingles of three words, bands of as many values, for a threshold of 0.9."""


def main() -> None:
    folder, tokenizer, template = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text()
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    rendered = environment.from_string(template)

    def as_document(self, data, path, line):
        text = data["text"] if "text" in data else rendered.render(messages=_split(data["messages"]), tools=None)
        return {"text": text, "id": f"{path}:{line}"}

    pairs = (folder / "pairs.jsonl").is_file()
    pattern = "pairs.jsonl" if pairs else "rows/*.jsonl"
    work = folder / "datatrove"
    shutil.rmtree(work, ignore_errors=True)

    def reader():
        return JsonlReader(str(folder), glob_pattern=pattern, adapter=as_document)

    last = DocumentTokenizer(str(work / "tokens"), tokenizer, local_working_dir=str(work / "local"))
    stages = [
        ([reader(), MinhashDedupSignature(str(work / "signatures"), config=CONFIG)], 1),
        ([MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=CONFIG)], CONFIG.num_buckets),
        ([MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=CONFIG)], 1),
        (
            [
                reader(),
                MinhashDedupFilter(str(work / "remove"), exclusion_writer=JsonlWriter(str(work / "dropped"))),
                *([] if pairs else [last]),
            ],
            1,
        ),
    ]
    cpu, wall = time.process_time(), time.monotonic()
    for number, (blocks, tasks) in enumerate(stages):
        LocalPipelineExecutor(blocks, tasks=tasks, workers=1, logging_dir=str(work / f"logs-{number}")).run()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    result = {"cpu": cpu, "wall": wall}
    if pairs:
        dropped = JsonlReader(str(work / "dropped"))
        result["dropped"] = sorted(int(document.id.rsplit(":", 1)[1]) for document in dropped.run())
    print(json.dumps(result))


def _split(messages: list[dict]) -> list[dict]:
    """Reasoning set apart, as the template expects it."""
    result = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant" and content.startswith("<think>"):
            reasoning, _, content = content.removeprefix("<think>").partition("</think>")
            message = {**message, "reasoning_content": reasoning.strip(), "content": content.strip()}
        result.append(message)
    return result


if __name__ == "__main__":
    main()
