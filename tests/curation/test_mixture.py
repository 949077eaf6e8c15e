"""What is packed, and how often: caps, epochs, weights."""

from collections import Counter
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from cascade.curation import build
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.tracking import Journal

from .conftest import chat_row, read_sequences, write_jsonl

ANIMALS = ["owl", "bear", "cat", "cow", "dog", "duck", "fox", "goat", "horse", "lion"]
TREES = ["ash", "birch", "cedar", "elm", "fir", "holly", "larch", "maple", "oak", "pine"]


@pytest.fixture
def sources(layout: Layout) -> dict[str, dict]:
    """Ten conversations of the same length each."""
    for name, words in (("animals", ANIMALS), ("trees", TREES)):
        rows = [chat_row(f"Tell me of the {word}, my friend.", f"{word} " * 20) for word in words]
        write_jsonl(layout.root / f"{name}.jsonl", rows)
    return {name: {"path": f"{name}.jsonl", "domain": name, "sft": -1} for name in ("animals", "trees")}


def packed(layout: Layout, recipe: Recipe, tokenizer) -> tuple[Counter[str], dict]:
    """How often each word's conversation is packed, and the report."""
    report = build(recipe, layout, Journal(layout.root / "journal.jsonl"))
    counts: Counter[str] = Counter()
    for sequence in read_sequences(layout.sft_data):
        text = tokenizer.decode(sequence.token_ids)
        counts.update({word: text.count(f"of the {word},") for word in (*ANIMALS, *TREES)})
    return +counts, report


def test_by_default_each_conversation_is_packed_once(
    layout: Layout, make_recipe: Callable[..., Recipe], tokenizer, sources
):
    counts, report = packed(layout, make_recipe(sources), tokenizer)
    assert counts == dict.fromkeys((*ANIMALS, *TREES), 1)
    assert "mixture" not in report["sft"]["steps"]


def test_epochs_of_a_domain(layout: Layout, make_recipe: Callable[..., Recipe], tokenizer, sources):
    recipe = make_recipe(sources, mixture={"unit": "rows", "epochs": {"animals": 2.3, "trees": 0.5}})
    counts, report = packed(layout, recipe, tokenizer)
    assert Counter(counts[word] for word in ANIMALS) == {2: 7, 3: 3}
    assert Counter(counts[word] for word in TREES) == {1: 5, 0: 5}
    assert report["sft"]["steps"]["mixture"]["rejected"] == {"not_drawn": 5}
    assert report["packing"]["conversations"] == 28
    assert report["sft"]["kept"] == 15


def test_caps_hold_before_epochs_and_a_larger_cap_keeps_the_rows_of_a_smaller(
    layout: Layout, make_recipe: Callable[..., Recipe], tokenizer, sources
):
    kept = []
    for cap in (3, 6):
        mixture = {"unit": "rows", "caps": {"trees": cap}, "epochs": {"trees": 2}}
        counts, _ = packed(layout, make_recipe(sources, mixture=mixture), tokenizer)
        assert Counter(counts[word] for word in TREES) == {2: cap, 0: 10 - cap}
        kept.append({word for word in TREES if counts[word]})
    assert kept[0] < kept[1]


def test_weights_give_the_largest_mixture_of_these_proportions(
    layout: Layout, make_recipe: Callable[..., Recipe], tokenizer, sources
):
    mixture = {"unit": "rows", "weights": {"animals": 0.25, "trees": 0.75}, "epochs": {"trees": 1.2}}
    counts, _ = packed(layout, make_recipe(sources, mixture=mixture), tokenizer)
    # 12 trees can be had (10 rows, 1.2 epochs): 4 animals beside them.
    assert sum(counts[word] for word in TREES) == 12
    assert sum(counts[word] for word in ANIMALS) == 4


def test_tokens_are_the_unit_by_default(layout: Layout, make_recipe: Callable[..., Recipe], tokenizer, sources):
    _, whole = packed(layout, make_recipe(sources), tokenizer)
    recipe = make_recipe(sources, mixture={"caps": {"trees": whole["packing"]["tokens"] // 4}})
    counts, _ = packed(layout, recipe, tokenizer)
    assert 3 <= sum(counts[word] for word in TREES) <= 6
    assert sum(counts[word] for word in ANIMALS) == 10


@pytest.mark.parametrize("mixture", [{"caps": {"rivers": 1}}, {"weights": {"rivers": 1}}, {"epochs": {"rivers": 1}}])
def test_a_mixture_names_sources_and_domains_that_there_are(make_recipe: Callable[..., Recipe], mixture: dict):
    source = {"path": "x.jsonl", "domain": "trees", "sft": -1}
    with pytest.raises(ValidationError, match=r"no (source|domain) rivers has rows for sft; known: trees"):
        make_recipe({"trees": source}, mixture=mixture)
