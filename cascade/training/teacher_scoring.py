"""The teachers of a distillation: which one for each domain, compatibility with the student, log-probabilities.

Each prompt has exactly one teacher, that of its domain. Checkpoints with equal content are one teacher.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cascade.errors import CascadeError, CheckpointError
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe import Distillation, OffPolicyNode, Recipe, RepairNode
from cascade.tracking.dvc_cache import restore
from cascade.training.batch import Batch
from cascade.utils import distributed
from cascade.utils.files import hash_directory, read_json


@dataclass(frozen=True)
class Teacher:
    node: str
    checkpoint: Path
    hash: str


def shares(node: Distillation, teachers: dict[str, Teacher]) -> dict[str, float]:
    """Domain → share of the prompts: the node's `mix`; a repair gives the share `focus` of all to the regressed
    domains, those whose teacher is not its own `init`."""
    if not isinstance(node, RepairNode) or node.focus == 0:
        return node.mix
    regressed = {domain for domain in node.mix if teachers[domain].node != node.init}
    regressed_share = sum(node.mix[domain] for domain in regressed)
    other_share = sum(node.mix.values()) - regressed_share
    if regressed_share == 0 or other_share == 0:
        return node.mix
    return {
        domain: share * (node.focus / regressed_share if domain in regressed else (1 - node.focus) / other_share)
        for domain, share in node.mix.items()
    }


def chosen_teachers(recipe: Recipe, name: str, layout: Layout) -> dict[str, Teacher]:
    """Domain → teacher, for every domain of a distillation's or repair's mix, from the decision that names them.

    Raises CascadeError when a domain has none, CheckpointError when a checkpoint is not what was chosen.
    """
    node, decision_node = recipe.node(name), recipe.teachers_chosen_by(name)
    assert isinstance(node, Distillation | OffPolicyNode)
    assert decision_node is not None
    decision = layout.decision(decision_node)
    entries = read_json(decision)["teachers"]
    unmapped = [domain for domain in node.mix if domain not in entries]
    if unmapped:
        raise CascadeError(
            f"{decision}: no teacher for domain {unmapped[0]!r} of {recipe.kind(name)}.{name}.mix; "
            f"it has one for {', '.join(sorted(entries))}"
        )
    teachers: dict[str, Teacher] = {}
    for domain in node.mix:
        checkpoint = layout.root / entries[domain]["checkpoint"]
        if "dvc" in entries[domain]:  # Of an earlier run: restored from DVC's cache where it is missing.
            distributed.broadcast_from_main(partial(restore, layout, entries[domain]["hash"], entries[domain]["dvc"]))
        if not (checkpoint / "config.json").exists():
            raise CheckpointError(
                f"{checkpoint}: no checkpoint there, but {decision} names it as teacher of {domain!r}"
            )
        content = distributed.broadcast_from_main(partial(hash_directory, checkpoint))
        if content != entries[domain]["hash"]:
            raise CheckpointError(
                f"{checkpoint}: not the checkpoint that {decision} chose for {domain!r}; "
                f"rerun `cascade node {decision_node}`"
            )
        teachers[domain] = Teacher(entries[domain]["node"], checkpoint, content)
    return teachers


def teacher_inputs(teachers: dict[str, Teacher], common_start: Path | None) -> dict[str, Any]:
    """The teachers among a node's inputs, and the start whose task vectors it merges, by their hashes."""
    inputs: dict[str, Any] = {}
    if teachers:
        inputs["teachers"] = {domain: teacher.hash for domain, teacher in teachers.items()}
    if common_start is not None:
        inputs["common start"] = distributed.broadcast_from_main(partial(hash_directory, common_start))
    return inputs


def check_compatible(student: Path, teacher: Path) -> None:
    """Check that teacher and student have the same vocabulary, special tokens and chat template: only then do their
    log-probabilities compare.

    Raises CheckpointError naming both checkpoints and what differs.
    """
    student_tokenizer, teacher_tokenizer = (
        AutoTokenizer.from_pretrained(student),
        AutoTokenizer.from_pretrained(teacher),
    )
    for part, value in (
        ("vocabulary", lambda t: t.get_vocab()),
        ("special tokens", lambda t: t.special_tokens_map),
        ("chat template", _template_hash),
    ):
        if value(student_tokenizer) != value(teacher_tokenizer):
            raise CheckpointError(
                f"{teacher}: its {part} differs from that of the student {student}; "
                "distil only between checkpoints of one tokenizer"
            )


class Teachers:
    """Every distinct teacher, placed by the node's `teacher_memory`: all on the device, or loaded one at a time from
    the host or from disk.

    In the latter case a thread prefetches the next teacher while one scores: at most two are on the device.
    """

    def __init__(self, teachers: dict[str, Teacher], node: Distillation):
        self._hash = {domain: teacher.hash for domain, teacher in teachers.items()}
        self._checkpoints = {teacher.hash: teacher.checkpoint for teacher in teachers.values()}
        self._node = node
        self._kept: dict[str, Policy] = {}
        if node.teacher_memory != "disk":
            for teacher in self._checkpoints:
                self._kept[teacher] = self._load(teacher)
                self._offload(self._kept[teacher])

    def score(self, batch: Batch) -> Tensor:
        """[N] log π_teacher of the batch's tokens, each by the teacher of its prompt's domain.

        All of a teacher's rollouts are scored together, so that it is loaded at most once.
        """
        scores = torch.empty(batch.tokens)
        teacher_of_rollout = [self._hash[domain] for domain in batch.domains]
        needed = [teacher for teacher in self._checkpoints if teacher in teacher_of_rollout]
        with ThreadPoolExecutor(1, "next-teacher", initializer=distributed.use_device) as thread:
            next_policy = thread.submit(self._fetch, needed[0])
            for teacher, following in zip(needed, [*needed[1:], None], strict=True):
                policy = next_policy.result()
                if following is not None:
                    next_policy = thread.submit(self._fetch, following)
                indices = [i for i, rollout_teacher in enumerate(teacher_of_rollout) if rollout_teacher == teacher]
                tokens = torch.isin(batch.owner, torch.tensor(indices))
                scores[tokens] = policy.score([batch.sequences[i] for i in indices]).log_probs
                self._offload(policy)
        return scores

    def _fetch(self, teacher: str) -> Policy:
        if self._node.teacher_memory == "disk":
            return self._load(teacher)
        policy = self._kept[teacher]
        if self._node.teacher_memory == "host":
            policy.to_device()
        return policy

    def _offload(self, policy: Policy) -> None:
        if self._node.teacher_memory == "host":
            policy.to_host()

    def _load(self, teacher: str) -> Policy:
        return make_policy(self._node.engine, self._checkpoints[teacher], None, parallel=self._node.parallel)


def _template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
