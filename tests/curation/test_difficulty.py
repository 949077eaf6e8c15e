from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cascade.curation import build
from cascade.curation.difficulty import DifficultyFilter
from cascade.curation.filters import check_form
from cascade.curation.rows import parse
from cascade.layout import Layout
from cascade.recipe import Difficulty, Recipe, Rollout
from cascade.rollout.base import Sample, SampleRequest
from cascade.tracking import Journal

from .conftest import math_row, read_prompts

ROLLOUTS = 4


class ScriptedSampler:
    """Answers 4 to every prompt, in the first `right` of its rollouts as many as the question says."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._tokenizer = tokenizer
        self.requests: list[SampleRequest] = []

    def sample(self, requests: list[SampleRequest], *, on_finish, **_settings):
        self.requests += requests
        samples = []
        for index, request in enumerate(requests):
            right = int(self._tokenizer.decode(request.prompt).split("right ")[1][0])
            answer = 4 if index % ROLLOUTS < right else 5
            text = f"Let me see.\n</think>\n\\boxed{{{answer}}}<|im_end|>"
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            samples.append(Sample(ids, [0.0] * len(ids), True))
            on_finish(index, samples[-1])
        return samples


Prompt = tuple[str, str, dict]


def prompts_of(questions: list[str]) -> list[Prompt]:
    made = [parse(math_row(question, "4"), "rl", "s", "math", None) for question in questions]
    assert check_form(made) == [None] * len(made)
    return [(row.id, "math", row.gym) for row in made]


def rows() -> list[Prompt]:
    return prompts_of([f"2 + 2? right {n}" for n in range(5)])


def test_prompts_outside_the_range_are_dropped_and_rates_found(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    settings = Difficulty(checkpoint="base", rollouts=ROLLOUTS, minimum=0.2, maximum=0.8)
    prompts = rows()
    sampler = ScriptedSampler(tokenizer)
    rollout, known = Rollout(max_new_tokens=64), tmp_path / "known.jsonl"
    found = list(DifficultyFilter(settings, rollout, sampler, tokenizer, 0, 2, known).check(prompts))
    assert [error.code if error else None for error, _ in found] == ["too_hard", None, None, None, "too_easy"]
    assert [rate for _, rate in found] == [0, 0.25, 0.5, 0.75, 1]
    assert len({request.seed for request in sampler.requests}) == 5 * ROLLOUTS
    # Interrupted while a line was written: what was found is not sampled again.
    known.write_text("".join(known.read_text().splitlines(keepends=True)[:3]) + '["')
    sampler.requests.clear()
    again = list(DifficultyFilter(settings, rollout, sampler, tokenizer, 0, 2, known).check(prompts))
    assert [rate for _, rate in again] == [rate for _, rate in found]
    assert len(sampler.requests) == 2 * ROLLOUTS


def errors_of(settings: Difficulty, tokenizer: PreTrainedTokenizerFast, prompts: list[Prompt]) -> list[str | None]:
    rollout, sampler = Rollout(max_new_tokens=64), ScriptedSampler(tokenizer)
    with TemporaryDirectory() as folder:
        check = DifficultyFilter(settings, rollout, sampler, tokenizer, 0, 2, Path(folder) / "known.jsonl").check
        return [error.code if error else None for error, _ in check(prompts)]


def test_the_default_range_drops_nothing(tokenizer: PreTrainedTokenizerFast):
    assert errors_of(Difficulty(checkpoint="base", rollouts=ROLLOUTS), tokenizer, rows()) == [None] * 5


def test_the_checkpoint_alone_keeps_what_can_teach(
    tokenizer: PreTrainedTokenizerFast, make_recipe: Callable[..., Recipe]
):
    source = {"q": {"generator": "mcqa", "domain": "mcqa", "rl": 5}}
    settings = make_recipe(source, difficulty="base").curation.difficulty
    assert settings is not None
    assert settings.checkpoint == "base"
    assert errors_of(settings, tokenizer, rows()) == ["unsolved", None, None, None, "too_easy"]


def test_of_the_prompts_that_nobody_solves_a_share_is_kept_drawn_by_prompt(tokenizer: PreTrainedTokenizerFast):
    questions = [f"{n} + 1? right {n % 2}" for n in range(80)]
    prompts = prompts_of(questions)
    settings = Difficulty(checkpoint="base", rollouts=ROLLOUTS, keep_unsolved=0.25)
    errors = errors_of(settings, tokenizer, prompts)
    assert errors[1::2] == [None] * 40
    assert set(errors[::2]) == {None, "unsolved"}
    assert 4 <= errors[::2].count(None) <= 17
    assert errors_of(settings, tokenizer, prompts[::-1]) == errors[::-1]


def test_a_checkpoint_is_sampled_where_the_recipe_asks(
    layout: Layout, tokenizer: PreTrainedTokenizerFast, make_recipe: Callable[..., Recipe]
):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size, **ends)).save_pretrained(
        layout.root / "models/base"
    )
    difficulty = {"checkpoint": "base", "rollouts": 2}
    recipe = make_recipe({"q": {"generator": "mcqa", "domain": "mcqa", "rl": 5}}, difficulty=difficulty)
    report = build(recipe, layout, Journal(layout.root / "journal.jsonl"))
    assert report["rl"]["steps"]["difficulty"]["out"] == 5
    # Untrained weights answer nothing.
    assert [row["pass_rate"] for row in read_prompts(layout.prompts("mcqa"))] == [0.0] * 5
