import weakref
from types import SimpleNamespace

import pytest
import torch

from cascade.errors import CascadeError, CheckpointError
from cascade.layout import Layout
from cascade.policy.base import Sequence
from cascade.training import teacher_scoring
from cascade.training.batch import Batch
from cascade.training.on_policy import run_on_policy
from cascade.utils.files import read_json
from tests.training.miniature import VOCABULARY, choose_teachers, make_checkpoint, make_recipe, make_tokenizer


def refused(project: Layout, message: str, error: type[CascadeError] = CheckpointError) -> None:
    with pytest.raises(error, match=message) as caught:
        run_on_policy(make_recipe(), "mopd", project)
    assert "\n" not in str(caught.value)


def test_a_domain_without_teacher_is_an_error_at_the_start(project: Layout):
    choose_teachers(project, one="rl")
    refused(project, r"choose.json: no teacher for domain 'two' of distill.mopd.mix; it has one for one", CascadeError)


def test_a_missing_decision_is_named(project: Layout):
    project.decision("choose").unlink()
    refused(project, r"choose.json: no such file", CascadeError)


def test_a_teacher_that_is_gone_or_changed_since_it_was_chosen_is_refused(project: Layout):
    make_checkpoint(project.checkpoint("other"), seed=9)
    refused(
        project, r"models/other: not the checkpoint that .*choose.json chose for 'two'; rerun `cascade node choose`"
    )
    (project.checkpoint("other") / "config.json").unlink()
    refused(project, r"models/other: no checkpoint there, but .*choose.json names it as teacher of 'two'")


def test_another_vocabulary_is_refused(project: Layout):
    swapped = [*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2]]
    make_checkpoint(project.checkpoint("other"), 3, make_tokenizer(swapped))
    choose_teachers(project, one="rl", two="other")
    refused(project, r"models/other: its vocabulary differs from that of the student .*models/sft;")


def test_other_special_tokens_are_refused(project: Layout):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<user>"
    make_checkpoint(project.checkpoint("other"), 3, tokenizer)
    choose_teachers(project, one="rl", two="other")
    refused(project, r"models/other: its special tokens differ")


def test_another_chat_template_is_refused(project: Layout):
    tokenizer = make_tokenizer()
    tokenizer.chat_template += " "
    make_checkpoint(project.checkpoint("other"), 3, tokenizer)
    choose_teachers(project, one="rl", two="other")
    refused(project, r"models/other: its chat template differs")


def test_teachers_of_equal_content_are_loaded_once_and_scored_once_a_step(project: Layout, monkeypatch):
    make_checkpoint(project.checkpoint("other"), seed=2)  # what models/rl is
    choose_teachers(project, one="rl", two="other")
    loaded = []
    real = teacher_scoring.make_policy

    def counting(engine, checkpoint, optimizer, **settings):
        policy = real(engine, checkpoint, optimizer, **settings)
        score = policy.score
        policy.calls = []
        policy.score = lambda sequences: policy.calls.append(len(sequences)) or score(sequences)
        loaded.append(policy)
        return policy

    monkeypatch.setattr(teacher_scoring, "make_policy", counting)
    run_on_policy(make_recipe(mopd={"steps": 2}), "mopd", project)
    (policy,) = loaded
    assert policy.calls == [16, 16]


def test_each_token_is_scored_by_its_own_domains_teacher(project: Layout, monkeypatch):
    seen = []
    real = teacher_scoring.Teachers.score

    def recording(self, batch):
        scores = real(self, batch)
        seen.append((self, batch, scores))
        return scores

    monkeypatch.setattr(teacher_scoring.Teachers, "score", recording)
    run_on_policy(make_recipe(mopd={"steps": 1}), "mopd", project)
    ((made, batch, scores),) = seen
    one, two = (made._kept[made._hash[domain]].score(batch.sequences).log_probs for domain in ("one", "two"))
    of_two = [batch.domains[rollout] == "two" for rollout in batch.owner.tolist()]
    expected = [b if second else a for a, b, second in zip(one.tolist(), two.tolist(), of_two, strict=True)]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert one.tolist() != pytest.approx(two.tolist(), abs=0.1)


def test_where_teachers_wait_changes_nothing_in_what_is_made(project: Layout):
    found = {}
    for memory in ("device", "host", "disk"):
        run_on_policy(make_recipe(mopd={"steps": 2, "teacher_memory": memory}), "mopd", project)
        manifest = read_json(project.training("mopd") / "manifest.json")
        found[memory] = [manifest["checkpoint"], manifest["inputs"]]
    assert found["device"] == found["host"] == found["disk"]


def test_from_disk_a_teacher_is_loaded_once_a_step_and_never_more_than_two_are_there(project: Layout, monkeypatch):
    make_checkpoint(project.checkpoint("third"), seed=8)
    loaded: list[weakref.ref] = []
    most = 0
    real = teacher_scoring.make_policy

    def counting(engine, checkpoint, optimizer, **settings):
        nonlocal most
        policy = real(engine, checkpoint, optimizer, **settings)
        loaded.append(weakref.ref(policy))
        most = max(most, sum(ref() is not None for ref in loaded))
        return policy

    monkeypatch.setattr(teacher_scoring, "make_policy", counting)
    of_domain = {
        domain: teacher_scoring.Teacher(node, project.checkpoint(node), node)
        for domain, node in (("one", "rl"), ("two", "other"), ("three", "third"))
    }
    found = teacher_scoring.Teachers(of_domain, make_recipe(mopd={"teacher_memory": "disk"}).distill["mopd"])
    assert loaded == []
    batch = batch_of(["three", "one", "two", "one", "three", "two"])
    for step in (1, 2):
        scores = found.score(batch)
        assert len(loaded) == 3 * step
    assert most == 2
    policies = {domain: real("hf", teacher.checkpoint, None) for domain, teacher in of_domain.items()}
    expected = [
        x
        for domain, sequence in zip(batch.domains, batch.sequences, strict=True)
        for x in policies[domain].score([sequence]).log_probs.tolist()
    ]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def batch_of(domains: list[str]) -> Batch:
    """Two trained tokens a rollout."""
    return Batch(
        rollouts=[SimpleNamespace(prompt=SimpleNamespace(domain=domain)) for domain in domains],
        groups=torch.arange(len(domains)),
        sequences=[Sequence([6 + i, 7, 8, 9 + i], [False, False, True, True]) for i in range(len(domains))],
        sampler_log_probs=torch.zeros(2 * len(domains)),
        owner=torch.arange(len(domains)).repeat_interleave(2),
    )


def test_a_repair_gives_half_of_its_prompts_to_the_regressed_domains(tmp_path):
    def of(node, focus=0.5, mix=None):
        repair = make_recipe(mend={"focus": focus, "mix": mix or {"one": 0.75, "two": 0.25}}).node("mend")
        return teacher_scoring.shares(repair, {d: teacher_scoring.Teacher(n, tmp_path, "") for d, n in node.items()})

    assert of({"one": "mopd", "two": "rl"}) == {"one": 0.5, "two": 0.5}
    assert of({"one": "rl", "two": "mopd"}, focus=0.8) == pytest.approx({"one": 0.8, "two": 0.2})
    for unchanged in ({"one": "rl", "two": "rl"}, {"one": "mopd", "two": "mopd"}):
        assert of(unchanged) == {"one": 0.75, "two": 0.25}
    assert of({"one": "mopd", "two": "rl"}, focus=0) == {"one": 0.75, "two": 0.25}
    mopd = make_recipe().node("mopd")
    assert teacher_scoring.shares(mopd, {}) == mopd.mix
