"""Nodes whose rollouts are episodes: trained, distilled, evaluated, and resumed to the byte."""

import json
import shutil
import sys

import pytest
import torch

from cascade.environments import Episode, EpisodeEnvironment, Verdict
from cascade.evaluation.checkpoint_runner import CheckpointRunner
from cascade.layout import Layout
from cascade.policy.hf import HFPolicy
from cascade.recipe import Optimizer
from cascade.rollout.transcript import Transcript
from cascade.training import on_policy
from cascade.training.batch import Batch
from cascade.training.on_policy import run_on_policy
from cascade.training.prompts import load_prompts
from cascade.utils.files import hash_directory, read_json
from tests.training.miniature import (
    OPTIMIZER,
    TEMPLATE,
    FindTheWord,
    choose_teachers,
    make_checkpoint,
    make_recipe,
    make_tokenizer,
    prompt_rows,
    write_rows,
)
from tests.training.test_resume import Killed, interrupt

ROLLOUT = {"max_new_tokens": 4, "thinking": False, "max_turns": 3, "max_context": 40}


class Search(Episode):
    """Answers until a response has the row's word; reward 1 where it came in time, halved by each turn before."""

    def __init__(self, word):
        self.word, self.found, self.turns = word, False, 0

    def answer(self, response):
        self.found = self.word in response.content.split()
        self.turns += 1
        return None if self.found else [{"role": "tool", "content": f"w{self.turns}"}]

    def verdict(self):
        return Verdict(0.5 ** (self.turns - 1) if self.found else 0.0)

    def close(self):
        pass


class SearchTheWord(FindTheWord, EpisodeEnvironment):
    def start(self, row):
        return Search(row["word"])


@pytest.fixture
def episodes(tmp_path, monkeypatch) -> Layout:
    monkeypatch.setattr(sys.modules["find_the_word"], "ENVIRONMENT", SearchTheWord())
    layout = Layout(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("{{ m.content }} ", "{{ m.content }} </s> ")
    make_checkpoint(layout.root / "models" / "base", 0, tokenizer)
    for seed, node in enumerate(("sft", "rl", "other"), 1):
        make_checkpoint(layout.checkpoint(node), seed, tokenizer)
    for domain in ("one", "two"):
        write_rows(layout.prompts(domain), prompt_rows(domain, 20, word="w3"))
    choose_teachers(layout, one="rl", two="other")
    return layout


@pytest.mark.parametrize("node", ["rl", "mopd"])
def test_a_killed_node_of_episodes_ends_with_the_same_bytes(episodes: Layout, node, tmp_path, monkeypatch):
    recipe = make_recipe(rl={"rollout": ROLLOUT, "rollouts": 8}, mopd={"rollout": ROLLOUT})
    copy = Layout(tmp_path / "copy")
    shutil.copytree(episodes.root, copy.root, ignore=shutil.ignore_patterns("copy"))
    run_on_policy(recipe, node, episodes)
    with monkeypatch.context() as patch:
        interrupt(patch, "save", 2, before=True)
        with pytest.raises(Killed):
            run_on_policy(recipe, node, copy)
    run_on_policy(recipe, node, copy)
    assert hash_directory(copy.checkpoint(node)) == hash_directory(episodes.checkpoint(node))
    assert hash_directory(copy.checkpoint(node)) != read_json(copy.training(node) / "manifest.json")["inputs"]["parent"]
    values = read_json(copy.training(node) / "metrics.json")
    assert 1 < values["rollout/turns"] <= 3
    assert values["train/log_prob_gap"] < 1e-5
    assert 0 <= values["time/verification_wait_share"] < 1
    samples = [json.loads(line) for line in (copy.training(node) / "samples.jsonl").read_text().splitlines()]
    longest = next(sample for sample in samples if sample["kind"] == "longest")
    assert longest["turns"] > 1
    assert "</s> <assistant> w1 </s>" in longest["response"]


def test_log_probabilities_and_masks_of_a_batch_are_the_trainers(episodes: Layout, monkeypatch):
    batches: list[Batch] = []
    real = Batch.of

    def watched(groups, *, rewarded):
        batches.append(real(groups, rewarded=rewarded))
        return batches[-1]

    monkeypatch.setattr(on_policy.Batch, "of", watched)
    run_on_policy(make_recipe(mopd={"rollout": ROLLOUT, "steps": 1}), "mopd", episodes)
    (batch,) = batches
    transcripts: list[Transcript] = [rollout.transcript for rollout in batch.rollouts]
    assert max(len(transcript.turns) for transcript in transcripts) > 1
    assert batch.tokens == sum(sum(sequence.trained) for sequence in batch.sequences)
    assert torch.bincount(batch.owner).tolist() == [transcript.length for transcript in transcripts]
    policy = HFPolicy(episodes.checkpoint("sft"), Optimizer(**OPTIMIZER))
    torch.testing.assert_close(batch.sampler_log_probs, policy.score(batch.sequences).log_probs, atol=1e-5, rtol=0)


def test_a_benchmark_of_episodes_judges_every_one_and_shows_the_transcript(episodes: Layout):
    evaluation = {"rollouts": 4, "rollout": ROLLOUT}
    recipe = make_recipe().model_copy(update={"evaluation": make_recipe().evaluation.model_validate(evaluation)})
    benchmark = CheckpointRunner(recipe, "hf", episodes.checkpoint("other"), threads=1)
    lines = benchmark.run(load_prompts(episodes.prompts("one"), "one"))
    benchmark.close()
    assert len(lines) == 20 * 4
    assert {line["reward"] for line in lines} >= {0.0, 1.0}
    assert {line["finished"] for line in lines} == {True, False}
    assert all(line["reward"] == 0 for line in lines if not line["finished"])
    assert any(line["response"].count("<assistant>") == 2 for line in lines)
