import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cascade import chat
from cascade.curation import build, filters, packing, pieces, sources, store
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal
from cascade.utils.files import hash_directory

from .conftest import chat_row, read_prompts, read_sequences, write_jsonl

GENERATED = {
    "questions": {
        "generator": "mcqa",
        "domain": "mcqa",
        "levels": {1: 0.5, 2: 0.5},
        "sft": 30,
        "rl": 20,
        "benchmark": 10,
    },
    "sums": {"generator": "math", "domain": "math", "sft": 20, "rl": 20, "benchmark": 10},
}
WORDS = ["owl", "river", "castle", "bread", "winter", "piano", "lemon", "carpet", "thunder", "letter", "sugar", "key"]


def made_question(n: int) -> dict:
    subject = " ".join(random.Random(n).choices(WORDS, k=9))
    steps = f"{n} + {n + 3} = <<{n}+{n + 3}={2 * n + 3}>>{2 * n + 3}"
    return {"question": f"{subject}: what is {n} and {n + 3}?", "answer": f"{steps}\n#### {2 * n + 3}"}


QUESTIONS = [made_question(n) for n in range(20)]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


@pytest.fixture
def question_file(layout: Layout) -> Path:
    return write_jsonl(layout.root / "in" / "questions.jsonl", QUESTIONS)


def questions(**uses: int) -> dict:
    return {"questions": {"path": "in/*.jsonl", "domain": "math", "environment": "math", **uses}}


def asked(path: Path) -> set[str]:
    return {row["row"]["responses_create_params"]["input"][0]["content"] for row in read_prompts(path)}


def rejects(layout: Layout) -> list[dict]:
    return pq.read_table(layout.root / "data" / "rejects").to_pylist()


def test_generated_sources_fill_every_use(layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe]):
    report = build(make_recipe(GENERATED), layout, journal)
    for domain in ("mcqa", "math"):
        benchmark, prompts = read_prompts(layout.benchmark(domain)), read_prompts(layout.prompts(domain))
        assert (len(benchmark), len(prompts)) == (10, 20)
        assert not {row["id"] for row in benchmark} & {row["id"] for row in prompts}
        assert all("demonstration" not in row["row"] and row["environment"] == domain for row in benchmark + prompts)
    assert Counter(row["level"] for row in read_prompts(layout.prompts("mcqa"))) == {1: 10, 2: 10}
    assert report["sft"]["kept"] == report["packing"]["conversations"] == 50
    assert sum(len(s.documents) for s in read_sequences(layout.sft_data)) == 50


def test_packed_conversations_are_the_demonstrations(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], tokenizer, question_file: Path
):
    build(make_recipe(questions(sft=-1)), layout, journal)
    texts = []
    for sequence in read_sequences(layout.sft_data):
        at = 0
        for length in sequence.documents:
            part = slice(at, at + length)
            ids = [i for i, t in zip(sequence.token_ids[part], sequence.trained[part], strict=True) if t]
            texts.append(chat.parse_response(tokenizer.decode(ids).removesuffix("<|im_end|>"), thinking=True))
            at += length
    assert sorted(text.content for text in texts) == sorted(f"\\boxed{{{2 * n + 3}}}" for n in range(20))
    assert sorted(text.reasoning or "" for text in texts) == sorted(f"{n} + {n + 3} = {2 * n + 3}" for n in range(20))


def test_rows_that_the_template_loses_are_counted_by_reason(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], question_file: Path
):
    """A question's steps are reasoning: trained on without them, a model would learn the boxed numbers alone."""
    template = layout.root / "models" / "base" / "chat_template.jinja"
    template.write_text(template.read_text().replace("message.reasoning_content and", "false and"))
    (question_file.parent / "plain.jsonl").write_text(
        json.dumps({"question": "Two and two make?", "answer": "#### 4"}) + "\n"
    )
    report = build(make_recipe(questions(sft=-1)), layout, journal)
    assert report["sft"]["kept"] == 1
    assert report["sft"]["steps"]["length"]["rejected"] == {"template_loses_reasoning": 20}
    assert report["sft"]["sources"]["questions"]["rejected"] == {"template_loses_reasoning": 20}
    assert all("the reasoning of message 1; give the base model" in row["message"] for row in rejects(layout))
    (question_file.parent / "plain.jsonl").unlink()
    with pytest.raises(CascadeError, match=r"no row is left for sft \(template_loses_reasoning 20\)"):
        build(make_recipe(questions(sft=-1)), layout, journal)


def test_a_stored_source_holds_its_benchmark_out(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], question_file: Path
):
    report = build(make_recipe(questions(benchmark=5, rl=-1), near_duplicate=1.0), layout, journal)
    held, trained = asked(layout.benchmark("math")), asked(layout.prompts("math"))
    assert len(held) == 5
    assert not held & trained
    assert report["rl"]["steps"]["held out"]["rejected"] == {"held_out": 5}
    # The same prompts are held out whatever the order of the file.
    write_jsonl(question_file, reversed(QUESTIONS))
    build(make_recipe(questions(benchmark=5, rl=-1), near_duplicate=1.0), layout, journal)
    assert asked(layout.benchmark("math")) == held


def test_train_rows_that_copy_a_benchmark_are_dropped_and_benchmark_rows_never(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe]
):
    write_jsonl(layout.root / "test.jsonl", QUESTIONS)
    own = [{"question": f"What is {n} times {n}, and who asks?", "answer": f"#### {n * n}"} for n in range(9)]
    write_jsonl(layout.root / "train.jsonl", [*own, *QUESTIONS[:4]])
    common = {"domain": "math", "environment": "math"}
    sources = {"train": {"path": "train.jsonl", **common, "sft": -1, "rl": -1}}
    report = build(make_recipe({**sources, "test": {"path": "test.jsonl", **common, "benchmark": -1}}), layout, journal)
    assert report["benchmark"]["kept"] == 20
    for use in ("rl", "sft"):
        assert (report[use]["drawn"], report[use]["kept"]) == (13, 9)
        assert sum(report[use]["steps"]["benchmarks"]["rejected"].values()) == 4


def test_every_reject_is_counted_and_kept(layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe]):
    lines = [
        json.dumps(chat_row("What is a fish?", "An animal that lives in water.")),
        json.dumps(chat_row("what is a  fish?", "An animal that lives in water.")),
        json.dumps(chat_row("Say nothing.", "")),
        json.dumps(chat_row("Say too much.", "word " * 3000)),
        json.dumps(chat_row("Broken?", "\ud83d")),
        json.dumps({"text": "neither"}),
        "{not json",
    ]
    (layout.root / "rows.jsonl").write_text("\n".join(lines))
    report = build(make_recipe({"rows": {"path": "rows.jsonl", "domain": "chat", "sft": -1}}), layout, journal)
    expected = {"exact_duplicate", "empty", "too_long", "broken_text", "unknown_form", "not_json"}
    kept = rejects(layout)
    assert {row["reason"] for row in kept} == expected
    assert report["sft"]["domains"]["chat"] == {"drawn": 7, "kept": 1, "rejected": dict.fromkeys(sorted(expected), 1)}
    steps = list(report["sft"]["steps"].values())
    assert [a["out"] for a in steps[:-1]] == [b["in"] for b in steps[1:]]
    assert steps[-1]["out"] == report["sft"]["kept"] == 1
    [duplicate] = [row for row in kept if row["reason"] == "exact_duplicate"]
    assert json.loads(duplicate["row"])["messages"][0]["content"] == "what is a  fish?"
    assert (duplicate["source"], duplicate["domain"], duplicate["step"]) == ("rows", "chat", "duplicates")


def test_the_same_recipe_gives_the_same_bytes(layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe]):
    build(make_recipe(GENERATED), layout, journal)
    first = hash_directory(layout.root / "data")
    build(make_recipe(GENERATED), layout, journal)
    assert hash_directory(layout.root / "data") == first


def test_report_and_journal(layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe]):
    report = build(make_recipe(GENERATED), layout, journal)
    assert json.loads((layout.root / "data" / "report.json").read_text()) == report
    text = (layout.root / "data" / "report.md").read_text()
    assert "## sft: 50 of" in text
    [metrics] = [entry["values"] for entry in journal.entries() if entry["kind"] == "metrics"]
    assert metrics["curate/rl/kept/mcqa"] == 20
    assert 0 < metrics["curate/packing/fill_rate"] <= 1
    assert all(isinstance(value, (int, float)) for value in metrics.values())


def test_a_failed_build_leaves_the_old_data(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    build(make_recipe(GENERATED), layout, journal)
    before = hash_directory(layout.root / "data")

    def fail(rows, threads):
        raise KeyboardInterrupt

    monkeypatch.setattr(filters, "check_answers", fail)
    with pytest.raises(KeyboardInterrupt):
        build(make_recipe(GENERATED, max_tokens=400), layout, journal)
    assert hash_directory(layout.root / "data") == before


def test_what_cannot_be_built_says_why(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], question_file: Path
):
    def message(sources: dict, **curation: int) -> str:
        with pytest.raises(CascadeError) as caught:
            build(make_recipe(sources, **curation), layout, journal)
        return str(caught.value)

    none_left = message(questions(rl=-1), max_tokens=16)
    assert "curation.sources.questions: no row is left for rl (too_long 20)" in none_left
    (layout.root / "models" / "base" / "tokenizer_config.json").unlink()
    assert "no tokenizer there" in message(questions(rl=1))


def test_memory_does_not_grow_with_the_data(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    for module, name, size in [
        (packing, "WINDOW_TOKENS", 1 << 13),
        (packing, "WINDOW_SEQUENCES", 8),
        (pieces, "BATCH_ROWS", 64),
        (store, "GROUP_ROWS", 16),
    ]:
        monkeypatch.setattr(module, name, size)

    def peak(rows: int) -> int:
        made = (chat_row(f"What is {n} and {n * n} in words?", f"Some number, {n % 97} at most.") for n in range(rows))
        write_jsonl(layout.root / "rows.jsonl", made)
        recipe = make_recipe({"rows": {"path": "rows.jsonl", "domain": "chat", "sft": -1}})
        tracemalloc.start()
        report = build(recipe, layout, journal)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report["sft"]["kept"] == rows
        return result

    peak(100)
    assert peak(1000) < peak(250) + (1 << 20)


# Further held-out prompts


def test_generated_held_out_prompts_change_no_other_file_and_are_in_none(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe]
):
    build(make_recipe(GENERATED), layout, journal)
    others = ("sft", "rl", "benchmarks")
    before = {name: hash_directory(layout.root / "data" / name) for name in others}
    assert list((layout.root / "data" / "held_out").iterdir()) == []
    report = build(make_recipe({n: {**s, "held_out": 25} for n, s in GENERATED.items()}), layout, journal)
    assert {name: hash_directory(layout.root / "data" / name) for name in others} == before
    assert report["held_out"]["kept"] == 50
    for domain in ("mcqa", "math"):
        known = asked(layout.benchmark(domain)) | asked(layout.prompts(domain))
        held_out = asked(layout.held_out(domain))
        assert len(held_out) == 25
        assert not held_out & known


def test_a_generated_prompt_that_was_trained_on_is_not_held_out(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    real = sources.generated

    def same_for_both(source, name, use, *rest):
        return real(source, name, "rl" if use == "held_out" else use, *rest)

    monkeypatch.setattr(sources, "generated", same_for_both)
    report = build(make_recipe({"sums": {**GENERATED["sums"], "held_out": 10}}), layout, journal)
    assert report["held_out"]["kept"] == 10
    assert not asked(layout.held_out("math")) & asked(layout.prompts("math"))
    rejected = [row for row in rejects(layout) if row["use"] == "held_out"]
    assert {row["reason"] for row in rejected} >= {"in_training"}
    assert len([row for row in rejected if row["step"] == "training"]) >= 20


def test_held_out_rows_of_a_file_are_reserved_with_its_benchmark(
    layout: Layout, journal: Journal, make_recipe: Callable[..., Recipe], question_file: Path
):
    build(make_recipe(questions(rl=-1, benchmark=5)), layout, journal)
    alone = asked(layout.benchmark("math"))
    report = build(make_recipe(questions(rl=-1, benchmark=5, held_out=4)), layout, journal)
    assert asked(layout.benchmark("math")) == alone
    parts = [asked(path) for path in (layout.benchmark("math"), layout.held_out("math"), layout.prompts("math"))]
    assert [len(part) for part in parts] == [5, 4, 11]
    assert len(set.union(*parts)) == 20
    assert (report["held_out"]["kept"], report["benchmark"]["kept"]) == (4, 5)


def test_held_out_prompts_need_a_benchmark_of_some_size(make_recipe: Callable[..., Recipe]):
    with pytest.raises(ValueError, match="held_out: adds to a benchmark of a given size"):
        make_recipe(questions(rl=1, benchmark=-1, held_out=4))
