"""A tiny base model trained from nothing: it learns, and others can load it."""

import copy
import math

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from cascade.errors import RecipeError
from cascade.policy.checkpoint import load_checkpoint
from cascade.pretraining.mixture import TRAINED, Corpus
from cascade.pretraining.pretrain import (
    BaseRecipe,
    learning_rate,
    load_base_recipe,
    make_blocks,
    make_model,
    next_token_loss,
)
from cascade.utils.files import read_json
from tests.pretraining.conftest import RECIPE


def test_the_loss_falls_below_that_of_a_guess(made):
    facts = read_json(made.checkpoint / "pretraining.json")
    first, last = facts["loss"]
    assert (first["step"], last["step"]) == (100, 110)
    assert last["loss"] < first["loss"] < math.log(400)
    assert facts["documents"] == 100
    assert facts["trained_tokens"] == last["tokens"] > facts["corpus_tokens"]
    assert "step 110/110" in made.said[-1]


def test_the_checkpoint_loads_in_transformers_and_here(made):
    model = AutoModelForCausalLM.from_pretrained(made.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(made.checkpoint)
    assert type(model).__name__ == "NemotronHForCausalLM"
    assert sum(p.numel() for p in model.parameters()) == read_json(made.checkpoint / "pretraining.json")["parameters"]
    assert len(tokenizer) == model.config.vocab_size <= 400
    assert tokenizer.chat_template
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7]])).logits
    assert logits.isfinite().all()
    ours, _ = load_checkpoint(made.checkpoint)
    assert all(torch.equal(a.float(), b) for a, b in zip(model.parameters(), ours.parameters(), strict=True))


def test_the_config_names_the_layers_for_every_engine(made):
    config = read_json(made.checkpoint / "config.json")
    assert config["hybrid_override_pattern"] == "ME*"
    assert config["num_hidden_layers"] == len(config["layers_block_type"]) == 3
    assert config["torch_dtype" if "torch_dtype" in config else "dtype"] == "bfloat16"
    assert config["time_step_min"] == 0


def test_balancing_moves_the_routers_bias(made):
    model, _ = load_checkpoint(made.checkpoint)
    assert model.model.layers[1].mixer.gate.e_score_correction_bias.abs().max() > 0


def test_equal_recipes_start_from_equal_weights(tokenizer):
    recipe = BaseRecipe.model_validate(RECIPE)
    one, other = make_model(recipe, tokenizer), make_model(recipe, tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_blocks_hold_the_chosen_documents_by_length():
    bounds = np.array([0, 3, 4, 9, 11])
    ids = np.arange(1, 12).astype(np.uint16)
    ids[3] |= TRAINED
    blocks, packed = make_blocks(Corpus(ids, bounds), np.array([2, 0, 1]), 0, torch.device("cpu"), count=2)
    rows = [row[:size].tolist() for block in blocks for row, size in zip(block.tokens, block.lengths, strict=True)]
    assert rows == [[4], [1, 2, 3], [5, 6, 7, 8, 9]]
    marked = [int(i) for block in packed for i in block.flatten() if i >> 15]
    assert marked == [4 | int(TRAINED)]


def test_answers_count_fully_and_what_is_read_by_its_weight(tokenizer):
    model = make_model(BaseRecipe.model_validate(RECIPE), tokenizer)
    torch.manual_seed(0)
    hidden = torch.randn(4, 16)
    packed = [torch.tensor([[7, 8, 9 | 1 << 15, 0]])]
    losses = -model.lm_head(hidden[:2]).float().log_softmax(-1)[[0, 1], [8, 9]]
    loss, answers = next_token_loss(model, hidden, packed, prompt_weight=0.2)
    assert loss.item() == pytest.approx((0.2 * losses[0] + losses[1]).item() / 1.2, rel=1e-5)
    assert answers.item() == pytest.approx(losses[1].item(), rel=1e-5)


def test_learning_rate_warms_up_and_falls_to_the_minimum():
    training = BaseRecipe.model_validate(RECIPE).training
    rates = [learning_rate(step, training) for step in range(110)]
    assert rates[0] == pytest.approx(0.002)
    assert rates[4:6] == pytest.approx([0.01, 0.01])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    halfway = 5 + 105 // 2
    assert learning_rate(halfway, training) == pytest.approx(0.0055, rel=0.02)
    assert learning_rate(110, training) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"hasy": 0.1}, "hasy: Extra inputs are not permitted"),
        ({"hasty": 1.5}, "hasty: Input should be less than or equal to 1"),
        ({"vocabulary": 1 << 15}, "vocabulary: Input should be less than 32768"),
        ({"training": {**RECIPE["training"], "steps": 0}}, "training.steps: Input should be greater than 0"),
        ({"mixture": {"math": {1: -5}}}, "mixture.math.1: Input should be greater than 0"),
        ({"mixture": {"maths": {1: 5}}}, "mixture: unknown source 'maths'; known: "),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line_that_names_its_key(tmp_path, change, line):
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(RECIPE), **change}))
    with pytest.raises(RecipeError) as caught:
        load_base_recipe(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "cannot be read"), (b"a: [", "cannot be read"), (b"\xff\xfe", "cannot be read"), (b"", "the file: ")],
)
def test_a_file_that_is_no_recipe_is_one_line(tmp_path, content, line):
    path = tmp_path / "base.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_base_recipe(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert "\n" not in str(caught.value)
