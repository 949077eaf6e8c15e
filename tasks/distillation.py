"""What a distillation on demand needs before DVC's stages can run: the student in the place of the node's start, and
the choice of teachers in the place of a decision."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import RecipeError
from cascade.layout import Layout
from cascade.recipe import BASE, Recipe, load
from cascade.recipe.library import find
from cascade.utils.files import fingerprint, hash_directory, write_json
from tasks.checkpoints import checkpoint_named
from tasks.run_directory import ACTIVE


@dataclass(frozen=True)
class DistillationChoice:
    """`teachers`: domain → as it was named, its directory. `directory`: the name of the run's own directory."""

    node: str
    student: Path
    teachers: dict[str, tuple[str, Path]]
    directory: str


def distillation_of(
    project: str, student: str, teachers: tuple[str, ...], node: str, recipe: str, overrides: tuple[str, ...]
) -> DistillationChoice:
    """Find the checkpoints that were named. Raises RecipeError for a node that is no distillation or a domain that it
    does not train on, CheckpointError for a checkpoint that is not there."""
    home = Layout(Path(project).resolve())
    settings = load(find(None if recipe == ACTIVE else recipe, home))
    if node not in settings.distill or settings.distill[node].init == BASE:
        choices = ", ".join(name for name, section in settings.distill.items() if section.init != BASE) or "none"
        raise RecipeError(
            f"node {node!r}: not a distillation of recipe {settings.name} after another node; have {choices}"
        )
    nodes = load(home.params)
    names: dict[str, str] = dict.fromkeys(settings.distill[node].mix, student)
    for teacher in teachers:
        domain, equals, name = teacher.partition("=")
        if domain not in names or not equals:
            raise RecipeError(f"teacher {teacher!r}: write DOMAIN=CHECKPOINT; domains of {node}: {', '.join(names)}")
        names[domain] = name
    teachers_by_domain = {domain: (name, checkpoint_named(name, nodes, home)) for domain, name in names.items()}
    start = checkpoint_named(student, nodes, home)
    contents = {domain: hash_directory(path) for domain, (_, path) in teachers_by_domain.items()}
    identity = [node, recipe, list(overrides), hash_directory(start), contents]
    return DistillationChoice(node, start, teachers_by_domain, f"distil-{fingerprint({'chosen': identity})[:8]}")


def arrange(choice: DistillationChoice, recipe: Recipe, layout: Layout) -> None:
    """Write the student and the choice of teachers to where the node's stages read them."""
    section = recipe.distill[choice.node]
    start = layout.checkpoint(section.init)
    start.parent.mkdir(exist_ok=True)
    # Replaced each time, because the same content may have moved.
    if start.is_symlink():
        start.unlink()
    elif start.exists():  # the project's own, which the directory was created with
        shutil.rmtree(start)
    start.symlink_to(choice.student)
    decision = {
        domain: {"node": name, "checkpoint": path.as_posix(), "hash": hash_directory(path)}
        for domain, (name, path) in choice.teachers.items()
    }
    write_json(layout.decision(section.teachers), {"teachers": decision})
