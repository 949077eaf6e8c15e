"""`cascade recipe new`: a recipe for a model and files of rows, with sizes that fit the rows and the GPU."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase

from cascade import chat, environments
from cascade.commands.import_model.capabilities import capabilities
from cascade.curation import sources
from cascade.curation.rows import Candidate, parse
from cascade.environments import registry
from cascade.errors import CascadeError, RowError
from cascade.launch import memory_plan
from cascade.layout import Layout
from cascade.policy.checkpoint import check_files, load_tokenizer
from cascade.policy.model_size import shape_of
from cascade.recipe import Recipe, Source, load
from cascade.utils.files import write_atomic

READ = 2000
"""Rows of a file that are read to learn their form and length; all are counted."""
BENCHMARK = 200
"""Prompts of a domain's benchmark at most, a tenth of the rows at most."""
STEPS = 50
"""Steps of fine-tuning, at least, where there are as many sequences."""
MICRO_BATCHES = (65536, 32768, 16384, 8192, 4096, 2048)
COVERED = 0.98
"""Share of the rows that the limits in tokens let in."""
REJECTED = "curation rejects them: import the model again, with --chat-template qwen3 or nemotron"


@dataclass
class File:
    """What a file of rows holds."""

    path: str
    rows: int = 0
    environment: str | None = None
    """For rows that do not name theirs."""
    domain: str = ""
    demonstrations: int = 0
    prompts: int = 0
    thought: int = 0
    """Demonstrations with reasoning."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of conversations and prompts."""
    shown_tokens: int = 0
    """Of all conversations that were read."""
    answers: list[int] = field(default_factory=list)
    """Tokens of demonstrations."""
    problems: Counter[str] = field(default_factory=Counter)


def new_recipe(
    model: Path, data: Sequence[str], layout: Layout, out: Path | None, gpus: int, gpu_gib: float
) -> Iterator[str]:
    """Write a recipe for `model` and `data` (FILE or FILE:ENVIRONMENT); yields what was decided, a line each.

    Raises CascadeError where a file has no row that can be used, or no setting fits the GPUs.
    """
    check_files(model)
    shape = shape_of(model / "config.json")
    tokenizer = load_tokenizer(model, shape.head // shape.width)
    expresses = {c.name: c.problem for c in capabilities(tokenizer)}
    if expresses["messages"]:
        raise CascadeError(
            f"{model}: its chat template cannot be trained ({expresses['messages']}); give it another: "
            "cascade import --chat-template"
        )
    files = [_read(given, layout, tokenizer) for given in data]
    for file in files:
        yield f"{file.path}: {_in_words(file)}"
        yield from (f"  {lost}" for lost in _lost(file, expresses))
    name = model.resolve().name if model.resolve().name != "base" else model.resolve().parent.name
    out = out or layout.root / "recipes" / f"{_name(name)}.yaml"
    if out.exists():
        raise CascadeError(f"{out}: exists already; choose another --out, or remove it first")
    content = _content(_name(out.stem), _relative(model, layout), files, expresses, shape.parameters)
    content, words = _fitting(content, layout, gpus, gpu_gib)
    yield words
    write_atomic(out, _commented(content, words))
    load(out)
    yield f"written to {_relative(out, layout)}: {_graph(content)}"


def _read(given: str, layout: Layout, tokenizer: PreTrainedTokenizerBase) -> File:
    path, _, environment = given.partition(":") if not Path(given).is_file() else (given, "", "")
    if environment and environment not in environments.names():
        raise CascadeError(f"{given}: unknown environment {environment!r}; known: {', '.join(environments.names())}")
    if not Path(path).is_file():
        raise CascadeError(f"{path}: no such file of rows (.jsonl or .parquet)")
    found = File(_relative(Path(path), layout), environment=environment or None)
    source = Source(path=str(Path(path).resolve()), domain="rows")
    domains: Counter[str] = Counter()
    rows = sources.stored(source, "data", layout.root)
    for raw in islice(rows, READ):
        found.rows += 1
        try:
            if isinstance(raw, RowError):
                raise raw
            if not environment and "question" in raw and "responses_create_params" not in raw:
                found.environment = "math"  # GSM8K's form
            _learn(found, raw, tokenizer, domains)
        except RowError as error:
            found.problems[f"{error.code}: {error}"] += 1
    found.rows += sum(1 for _ in rows)
    if not found.demonstrations and not found.prompts:
        reason = found.problems.most_common(1)[0][0] if found.problems else "it is empty"
        raise CascadeError(
            f"{path}: no row of it can be used ({reason}); rows that name no environment: FILE:ENVIRONMENT"
        )
    found.domain = domains.most_common(1)[0][0] if domains else "chat"
    return found


def _learn(found: File, raw: dict[str, Any], tokenizer: PreTrainedTokenizerBase, domains: Counter[str]) -> None:
    """Count a row by what it can be used for. Raises RowError where it is for nothing."""
    problem: RowError | None = None
    used = False
    for use in ("sft", "rl"):
        try:
            row = parse(raw, use, "data", "rows", found.environment)  # type: ignore[arg-type]
            if row.gym is not None:
                environment = registry.environment_of(row.gym)
                environment.check_row(row.gym)
                domains[environment.name] += 1
            _count(found, row, tokenizer)
            used = True
        except RowError as error:
            problem = error
    if not used and problem is not None:
        raise problem


def _count(found: File, row: Candidate, tokenizer: PreTrainedTokenizerBase) -> None:
    if row.use == "rl":
        found.prompts += 1
        found.lengths.append(len(chat.encode_prompt(tokenizer, row.messages, row.tools)))
        return
    found.demonstrations += 1
    found.thought += any(message.get("reasoning_content") for message in row.messages)
    examples = [chat.encode_conversation(tokenizer, turn, row.tools) for turn in chat.split_turns(row.messages)]
    found.lengths += [len(example.token_ids) for example in examples]
    found.shown_tokens += sum(len(example.token_ids) for example in examples)
    found.answers += [sum(example.trained) for example in examples]


def _in_words(file: File) -> str:
    read = min(file.rows, READ)
    parts = [f"{file.rows:,} rows of {file.domain}"]
    if file.prompts:
        parts.append(f"{file.prompts / read:.0%} can be verified")
    if file.demonstrations:
        parts.append(f"{file.demonstrations / read:.0%} have a demonstration")
    parts += [f"{count} rejected ({problem})" for problem, count in file.problems.most_common(1)]
    return ", ".join(parts)


def _lost(file: File, expresses: dict[str, str | None]) -> Iterator[str]:
    """What the model's template cannot express of this file's rows."""
    if file.thought and expresses["thinking"]:
        share = file.thought / file.demonstrations
        yield f"{share:.0%} of its demonstrations have reasoning, which the template loses; {REJECTED}"
    if file.domain in ("tool_calling", "swe_agentic") and (expresses["tools"] or expresses["tool calls"]):
        yield f"its rows have tools, which the template loses; {REJECTED}"


def _content(
    name: str, base: str, files: list[File], expresses: dict[str, str | None], parameters: int
) -> dict[str, Any]:
    """The recipe as YAML's types, without where its nodes run."""
    longest = _step(_quantile([n for file in files for n in file.lengths], COVERED), 256)
    answers = [n for file in files for n in file.answers]
    new = min(4096, _step(int(1.5 * _quantile(answers, COVERED)), 64)) if answers else 512
    # Thinking costs tokens; rows whose demonstrations do not think would not teach to end it.
    thought = sum(file.thought for file in files)
    thinking = expresses["thinking"] is None and (thought > 0 or not answers)
    rollout = {"max_new_tokens": new, "thinking": thinking}
    small = parameters < 500e6
    domains = list(dict.fromkeys(file.domain for file in files if file.prompts))
    shown = any(file.demonstrations for file in files)
    # Tokens of all demonstrations: few rows are packed into short sequences and small batches, so that there are steps.
    tokens = sum(file.rows * file.shown_tokens // min(file.rows, READ) for file in files)
    sequence = max(longest, 2048) if tokens > 2048 * STEPS else longest
    threads = min(8, len(os.sched_getaffinity(0)))
    content: dict[str, Any] = {"name": name, "family": name, "seed": 0, "threads": threads, "base": base, "judges": {}}
    content["curation"] = {
        "max_tokens": longest,
        "sequence_length": sequence,
        "sources": {f"{_name(Path(file.path).stem)}": _source(file) for file in files},
    }
    if shown:
        rate = 1e-4 if small else 1e-5
        content["sft"] = {
            "sft": {
                "init": "base",
                "round": 1,
                "epochs": 1.0,
                "batch": min(16, max(1, tokens // (sequence * STEPS))),
                "optimizer": {"learning_rate": rate, "warmup_steps": 5, "schedule": "cosine"},
            }
        }
    start = "sft" if shown else "base"
    names = {domain: f"{domain.replace('_', '-')}-rl".replace("-", "_") for domain in domains}
    content["rl"] = {}
    for domain in domains:
        content["rl"][names[domain]] = {
            "init": start,
            "round": 1,
            "mix": {domain: 1.0},
            "steps": 100,
            "prompts": 16,
            "rollouts": 8,
            "rollout": dict(rollout),
            "optimizer": {"learning_rate": 1e-5 if small else 1e-6},
        }
    trained = (["sft"] if shown else []) + list(names.values())
    if len(domains) > 1:
        content["teachers"] = {"select_teachers": {"round": 1, "candidates": trained}}
        content["distill"] = {
            "mopd": {
                "init": start,
                "round": 2,
                "teachers": "select_teachers",
                "mix": "even",
                "steps": 60,
                "prompts": 32,
                "rollouts": 4,
                "rollout": dict(rollout),
                "optimizer": {"learning_rate": 2e-5 if small else 2e-6, "schedule": "cosine"},
            }
        }
    if domains:
        content["evaluation"] = {"rollouts": 4, "rollout": dict(rollout)}
        last = "mopd" if len(domains) > 1 else trained[-1]
        if len(trained) > 1 or last == "mopd":
            gate = {"round": 2 if last == "mopd" else 1, "candidate": last, "registered_name": f"cascade-{name}"}
            content["gate"] = {"release": gate}
    else:
        raise CascadeError(
            "no file has rows that can be verified, so there is nothing to evaluate or to reward; "
            "add rows of NeMo Gym's form, or questions with `answer` ending in `#### N`"
        )
    return content


def _source(file: File) -> dict[str, Any]:
    source: dict[str, Any] = {"path": file.path, "domain": file.domain}
    if file.environment:
        source["environment"] = file.environment
    if file.demonstrations:
        source["sft"] = -1
    if file.prompts:
        source |= {"rl": -1, "benchmark": max(1, min(BENCHMARK, file.rows // 10))}
    return source


def _fitting(content: dict[str, Any], layout: Layout, gpus: int, gpu_gib: float) -> tuple[dict[str, Any], str]:
    """The recipe with the largest micro-batches that fit the GPUs, and what was chosen in words."""
    trained = [(kind, name) for kind in ("sft", "rl", "distill") for name in content.get(kind, {})]
    problem = ""
    # Adapters last: they learn less than all weights do.
    engines = ("hf", "nemo") if gpus > 1 else ("hf",)
    ways = [(engine, recompute, False) for engine in engines for recompute in (False, True)] + [("hf", True, True)]
    for engine, recompute, adapters in ways if gpus else ways[:1]:
        for kind, name in trained:
            node = content[kind][name]
            node.pop("engine", None)
            if engine != "hf":
                node["engine"] = engine
            if recompute:
                node["parallel"] = {"checkpoint_activations": True}
            else:
                node.pop("parallel", None)
            if adapters:
                node["lora"] = {"rank": 16, "alpha": 32}
                node["optimizer"]["learning_rate"] *= 10
        for tokens in MICRO_BATCHES if gpus else (8192,):
            for kind, name in trained:
                content[kind][name]["optimizer"]["micro_batch_tokens"] = tokens
            if not gpus:
                Recipe.model_validate(content)
                return content, "no GPU: sizes are for CPU, for tiny models"
            place: dict[str, Any] = {"gpu_gib": gpu_gib}
            place |= {"launcher": "torchrun", "gpus": gpus} if gpus > 1 else {"gpus": 1}
            content["pools"] = {name: dict(place) for _, name in trained}
            recipe = Recipe.model_validate(content)
            _, refused = memory_plan.table(recipe, [name for _, name in trained], layout)
            if not refused:
                plans = [memory_plan.plan(recipe, name, layout).total / memory_plan.GIB for _, name in trained]
                again = ", activations computed again" if recompute else ""
                alone = ", adapters alone trained (lora)" if adapters else ""
                return content, (
                    f"{gpus} GPU{'s' if gpus > 1 else ''} of {gpu_gib:g} GiB: engine {engine}, micro-batches of "
                    f"{tokens:,} tokens{again}{alone}; at most {max(plans):.1f} GiB planned"
                )
            if not adapters or gpus == 1:  # Of several GPUs, how many would be enough is the better advice.
                problem = refused[0]
    raise CascadeError(f"no setting fits {gpus} GPUs of {gpu_gib:g} GiB: {problem}")


_COMMENTS = {
    "name": "Written by `cascade recipe new`: a start, every value is yours to change. docs/your-model.md",
    "threads": "CPU threads: verifiers use as many.",
    "pools": "Where nodes run; with gpu_gib a node that would not fit is refused before it starts.",
    "curation": "Rows longer than max_tokens are rejected. sft, rl, benchmark: rows for each use, -1 all of the rest.\n"
    "A benchmark's prompts are held out of the others, and rows that resemble them are dropped.",
    "sft": "Fine-tuning on demonstrations, first.",
    "rl": "Reinforcement learning: a node for each domain. A step is `prompts` × `rollouts` answers.\n"
    "Where most groups have no variance (all right or all wrong), choose easier or harder rows: curation.difficulty.",
    "teachers": "The best checkpoint of each domain is its teacher.",
    "distill": "One model learns from all teachers.",
    "evaluation": "Of every checkpoint on every benchmark.",
    "gate": "The last checkpoint passes unless it has regressed against an earlier one in some domain.",
}


def _commented(content: dict[str, Any], words: str) -> str:
    parts = []
    for key, value in content.items():
        comment = _COMMENTS.get(key, "") + (f"\n{words}" if key == "pools" else "")
        lines = [f"# {line}" for line in comment.splitlines() if line]
        # A section's innermost mappings stand on one line each.
        flow = None if isinstance(value, dict) else False
        text = yaml.dump({key: value}, Dumper=_Plain, sort_keys=False, width=110, default_flow_style=flow)
        parts.append("\n".join([*lines, text]) if lines else text)
    return "".join(("\n" if n and part.startswith("#") else "") + part for n, part in enumerate(parts))


class _Plain(yaml.SafeDumper):
    """Numbers as people write them, and no references between blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value) if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Plain.add_representer(float, _number)


def _graph(content: dict[str, Any]) -> str:
    kinds = ("sft", "rl", "teachers", "distill", "gate")
    return ", ".join(name for kind in kinds for name in content.get(kind, {}))


def _relative(path: Path, layout: Layout) -> str:
    path, root = path.absolute(), layout.root.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _name(text: str) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in text.lower()).strip("_-")
    return name if name[:1].isalpha() else f"model_{name}" if name else "model"


def _quantile(values: Iterable[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]


def _step(value: int, size: int) -> int:
    return max(size, -(-value // size) * size)
