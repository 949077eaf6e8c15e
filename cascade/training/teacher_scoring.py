"""The teachers of a distillation: which one for which domain, whether they fit the student, their scores.

Each prompt has exactly one teacher, that of its domain. Checkpoints with equal content are one teacher.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cascade.errors import CascadeError, CheckpointError
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.policy.base import Policy
from cascade.recipe import Distillation, Recipe, RepairNode
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
    """Domain → share of the prompts: the node's `mix`, in which a repair gives `focus` of all to the regressed domains,
    those that have another teacher than its own start."""
    if not isinstance(node, RepairNode) or node.focus == 0:
        return node.mix
    regressed = {domain for domain in node.mix if teachers[domain].node != node.init}
    part = sum(node.mix[domain] for domain in regressed)
    rest = sum(node.mix.values()) - part
    if part == 0 or rest == 0:
        return node.mix
    return {
        domain: share * (node.focus / part if domain in regressed else (1 - node.focus) / rest)
        for domain, share in node.mix.items()
    }


def chosen_teachers(recipe: Recipe, name: str, layout: Layout) -> dict[str, Teacher]:
    """Domain → teacher, for every domain of the mix of a distillation or repair, from the decision that names them.

    Raises CascadeError when a domain has none, CheckpointError when a checkpoint is not what was chosen.
    """
    node, decided = recipe.node(name), recipe.teachers_chosen_by(name)
    assert isinstance(node, Distillation)
    assert decided is not None
    decision = layout.decision(decided)
    chosen = read_json(decision)["teachers"]
    unmapped = [domain for domain in node.mix if domain not in chosen]
    if unmapped:
        raise CascadeError(
            f"{decision}: no teacher for domain {unmapped[0]!r} of {recipe.kind(name)}.{name}.mix; "
            f"it has one for {', '.join(sorted(chosen))}"
        )
    found: dict[str, Teacher] = {}
    for domain in node.mix:
        checkpoint = layout.root / chosen[domain]["checkpoint"]
        if "dvc" in chosen[domain]:  # Of an earlier run: where this machine does not have it yet, it comes from DVC's.
            distributed.broadcast_from_main(partial(restore, layout, chosen[domain]["hash"], chosen[domain]["dvc"]))
        if not (checkpoint / "config.json").exists():
            raise CheckpointError(
                f"{checkpoint}: no checkpoint there, but {decision} names it as teacher of {domain!r}"
            )
        content = distributed.broadcast_from_main(partial(hash_directory, checkpoint))
        if content != chosen[domain]["hash"]:
            raise CheckpointError(
                f"{checkpoint}: not the checkpoint that {decision} chose for {domain!r}; rerun `cascade node {decided}`"
            )
        found[domain] = Teacher(chosen[domain]["node"], checkpoint, content)
    return found


def check_compatible(student: Path, teacher: Path) -> None:
    """A teacher's log-probabilities mean something only on the same tokens, rendered and ended the same way.

    Raises CheckpointError naming both checkpoints and what differs.
    """
    one, other = AutoTokenizer.from_pretrained(student), AutoTokenizer.from_pretrained(teacher)
    for what, of in (
        ("vocabulary", lambda t: t.get_vocab()),
        ("special tokens", lambda t: t.special_tokens_map),
        ("chat template", _template_hash),
    ):
        if of(one) != of(other):
            raise CheckpointError(
                f"{teacher}: its {what} differs from that of the student {student}; "
                "distil only between checkpoints of one tokenizer"
            )


class Teachers:
    """Every distinct teacher, where the node's `teacher_memory` says: all on the device, or one at a time from the host
    or from disk.

    One at a time, the next teacher is brought in a thread while one scores: never more than two on the device.
    """

    def __init__(self, of_domain: dict[str, Teacher], node: Distillation):
        self._hash = {domain: teacher.hash for domain, teacher in of_domain.items()}
        self._checkpoints = {teacher.hash: teacher.checkpoint for teacher in of_domain.values()}
        self._node = node
        self._kept: dict[str, Policy] = {}
        if node.teacher_memory != "disk":
            for teacher in self._checkpoints:
                self._kept[teacher] = self._load(teacher)
                self._put_away(self._kept[teacher])

    def score(self, batch: Batch) -> Tensor:
        """[N] log π_teacher of the batch's tokens, each by the teacher of its prompt's domain.

        All of a teacher's rollouts are scored together, so that it is brought at most once.
        """
        scores = torch.empty(batch.tokens)
        of_rollout = [self._hash[domain] for domain in batch.domains]
        needed = [teacher for teacher in self._checkpoints if teacher in of_rollout]
        with ThreadPoolExecutor(1, "next-teacher", initializer=distributed.use_device) as thread:
            coming = thread.submit(self._bring, needed[0])
            for teacher, following in zip(needed, [*needed[1:], None], strict=True):
                policy = coming.result()
                if following is not None:
                    coming = thread.submit(self._bring, following)
                mine = [i for i, found in enumerate(of_rollout) if found == teacher]
                tokens = torch.isin(batch.owner, torch.tensor(mine))
                scores[tokens] = policy.score([batch.sequences[i] for i in mine]).log_probs
                self._put_away(policy)
        return scores

    def _bring(self, teacher: str) -> Policy:
        if self._node.teacher_memory == "disk":
            return self._load(teacher)
        policy = self._kept[teacher]
        if self._node.teacher_memory == "host":
            policy.to_device()
        return policy

    def _put_away(self, policy: Policy) -> None:
        if self._node.teacher_memory == "host":
            policy.to_host()

    def _load(self, teacher: str) -> Policy:
        return make_policy(self._node.engine, self._checkpoints[teacher], None, parallel=self._node.parallel)


def _template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
