"""The base model's card says what was measured."""

import shutil

import pytest

from cascade import chat, environments
from cascade.pretraining import card
from cascade.rollout.base import Sample
from cascade.utils.files import read_json
from cascade.utils.seeds import derive_seed


class EveryOther:
    """Solves every second rollout of a prompt when thinking; never without."""

    def __init__(self, policy):
        self._tokenizer = policy.tokenizer
        self.seeds: list[int] = []

    def sample(self, requests, *, on_finish, **_settings):
        self.seeds += [request.seed for request in requests]
        samples = []
        for i, request in enumerate(requests):
            prompt = self._tokenizer.decode(request.prompt)
            right = self.answers[prompt.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]]
            thinking = prompt.endswith("<think>\n")
            solves = thinking and i % 2 == 0
            text = ("hm\n</think>\n" if thinking else "") + (right if solves else "\\boxed{0.5}") + "<|im_end|>"
            ids = chat.encode(self._tokenizer, text)
            samples.append(Sample(ids, [0.0] * len(ids), True))
            on_finish(i, samples[-1])
        return samples


@pytest.fixture
def sampler(monkeypatch):
    made: list[EveryOther] = []
    math = environments.get("math")
    rows = [row for level in (1, 2) for row in math.generate(3, derive_seed("card"), level)]
    answers = {chat.prompt_of(row)[0][0]["content"]: row["demonstration"]["content"] for row in rows}

    def make(policy):
        made.append(EveryOther(policy))
        made[0].answers = answers
        return made[0]

    monkeypatch.setattr(card, "TorchSampler", make)
    return made


def test_scores_are_counted_per_environment_and_level(made, sampler):
    scores = card.measure(made.checkpoint, {"math": [1, 2]}, prompts=3, rollouts=4, max_new_tokens=32)
    assert list(scores) == ["math level 1", "math level 2"]
    for found in scores.values():
        assert (found["pass@1"], found["pass@4"], found["pass@1 without thinking"]) == (0.5, 1.0, 0.0)
        assert found["tokens"] > 5
    # Thinking and not thinking are compared on the same draws.
    assert len(sampler[0].seeds) == 2 * len(set(sampler[0].seeds)) == 48


def test_the_card_is_written_from_the_measurement(made, tmp_path):
    checkpoint = tmp_path / "base"
    shutil.copytree(made.checkpoint, checkpoint)
    scores = card.write_card(made.recipe, checkpoint, prompts=2, rollouts=2)
    facts = read_json(checkpoint / "pretraining.json")
    assert facts["scores"] == scores
    assert set(scores) == {"math level 1", "math level 2"}
    text = (checkpoint / "README.md").read_text()
    assert f"{facts['parameters'] / 1e6:.2f} million parameters" in text
    assert f"{facts['documents']:,} documents" in text
    assert f"| {facts['loss'][0]['loss']:.3f} | {facts['loss'][-1]['loss']:.3f} |" in text
    assert "30% of the tasks are answered hastily" in text
    row = scores["math level 2"]
    assert "| math level 2 | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |" in text
    assert card.write_card(made.recipe, checkpoint, prompts=2, rollouts=2) == scores
