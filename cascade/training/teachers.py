"""The teachers of a distillation: which one for which domain, whether they fit the student, their scores.

Each prompt has exactly one teacher, that of its domain. Checkpoints with equal content are one teacher.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cascade import world
from cascade.errors import CascadeError, CheckpointError
from cascade.files import hash_directory, read_json
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.recipe import Distillation, Recipe
from cascade.training.batch import Batch


@dataclass(frozen=True)
class Teacher:
    node: str
    checkpoint: Path
    hash: str


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
        if not (checkpoint / "config.json").exists():
            raise CheckpointError(
                f"{checkpoint}: no checkpoint there, but {decision} names it as teacher of {domain!r}"
            )
        content = world.once(partial(hash_directory, checkpoint))
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
    """Every distinct teacher, loaded once."""

    def __init__(self, of_domain: dict[str, Teacher], node: Distillation):
        self._hash = {domain: teacher.hash for domain, teacher in of_domain.items()}
        self._policies = {
            teacher.hash: make_policy(node.engine, teacher.checkpoint, None, parallel=node.parallel)
            for teacher in {teacher.hash: teacher for teacher in of_domain.values()}.values()
        }

    def score(self, batch: Batch) -> Tensor:
        """[N] log π_teacher of the batch's tokens, each by the teacher of its prompt's domain."""
        scores = torch.empty(batch.tokens)
        of_rollout = [self._hash[domain] for domain in batch.domains]
        for teacher, policy in self._policies.items():
            mine = [i for i, found in enumerate(of_rollout) if found == teacher]
            if mine:
                tokens = torch.isin(batch.owner, torch.tensor(mine))
                scores[tokens] = policy.score([batch.sequences[i] for i in mine]).log_probs
        return scores


def _template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
