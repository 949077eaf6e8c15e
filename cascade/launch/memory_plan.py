"""The memory that a node needs on each GPU, estimated from the model's configuration before anything is loaded.

Bytes: bfloat16 2, float32 4. A trained parameter of engine nemo is 2 (weight) + 4 (gradient) + 12 (float32 weight, two
moments), split over all GPUs; of engine hf 4 + 4 + 8, whole on each. With `lora` the adapters are what is trained, each
weight is 4, and those that have an adapter are there twice: merged, and as they were. Parameters are counted exactly,
on a model without storage. Activations are those that the layers' backward passes read; the estimate leaves `USABLE` of
a GPU, the rest is for CUDA, NCCL and fragmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.policy.model_size import Shape, shape_of
from cascade.recipe import (
    Distillation,
    Node,
    OffPolicyNode,
    OnPolicyNode,
    Parallel,
    QADNode,
    QuantizeNode,
    Recipe,
    RLNode,
    SFTNode,
)
from cascade.recipe.library import makes_base

if TYPE_CHECKING:
    from cascade.policy.lora import Sizes

USABLE = 0.9
"""Share of a GPU's memory that the parts of a plan may fill."""
GIB = 2**30
AUTOCAST = 1.98
"""What engine hf keeps for each byte of activations: autocast leaves most of them in both types. On an H200, of a
NemotronH of 141M parameters with mamba_ssm's kernels (docs/gpu.md); 2.15 without them, on an H100."""


@dataclass(frozen=True)
class Plan:
    """Peak bytes on each GPU."""

    weights: float
    gradients: float
    """Engine nemo: in float32, and of the last backward pass in bfloat16, as far as these take more than activations
    and logits did before."""
    optimizer: float
    gathered: float
    """Of layers put together from their parts, for a moment or for a step, and their gradients on the way back;
    engine hf: of the bfloat16 copies that autocast computes with."""
    activations: float
    logits: float
    """What is held of probabilities for the loss; or of a layer of experts, where that is more."""
    sampler: float
    teachers: float

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


def plan_node(
    shape: Shape,
    node: Node,
    gpus: int,
    longest: int,
    teachers: int,
    memory: float | None = None,
    adapters: Sizes | None = None,
) -> Plan:
    """`longest`: tokens of the longest sequence. `teachers`: further models in memory, without gradient. `memory`: of
    each GPU, in bytes, where it is known. `adapters`: of a node with `lora`."""
    if isinstance(node, QuantizeNode):
        # Only scored: the full weights, the quantised ones, and the checkpoint itself.
        size = 4.0 * shape.parameters
        return Plan(2 * size, 0.0, 0.0, size / 2, 0.0, 0.0, 0.0, teachers * size)
    assert isinstance(node, OnPolicyNode | OffPolicyNode | SFTNode | QADNode)
    parallel, optimizer = node.parallel, node.optimizer
    nemo = node.engine == "nemo"
    split = gpus if nemo else 1
    parameters = shape.parameters / split
    tokens = max(optimizer.micro_batch_tokens, longest) / parallel.context
    trained = adapters.adapters if adapters else parameters
    activations = (
        tokens
        * shape.kept(parallel.checkpoint_activations, parallel.expert > 1 or gpus == 1 or not nemo, nemo)
        * (1 if nemo else AUTOCAST)
    )
    # With sequences split, the last hidden states are put together, and so are their gradients.
    logits = _logits(shape, tokens * parallel.context, shape.dispatched(parallel.expert) * tokens) + (
        2 * 2 * shape.width * tokens * parallel.context if parallel.context > 1 else 0
    )
    rounded = max(0.0, 2 * parameters - activations - logits) if nemo else 0.0
    return Plan(
        weights=parameters * (2 if nemo else 4)
        + (4 * (adapters.adapted + adapters.adapters) if adapters else 0)
        # The full weights beside the quantised ones, of every layer at most.
        + (4 * parameters if isinstance(node, QADNode) else 0),
        gradients=4 * (trained + (adapters.largest if adapters else 0)) + rounded,
        optimizer=trained * (12 if nemo else 8),
        gathered=_gathered(shape, parallel, gpus) if nemo else 2.0 * shape.parameters,
        activations=activations,
        logits=logits,
        sampler=_sampler(shape, node, gpus, longest, memory) if isinstance(node, OnPolicyNode | OffPolicyNode) else 0.0,
        teachers=teachers * parameters * (2 if nemo else 4),
    )


def plan(recipe: Recipe, name: str, layout: Layout) -> Plan:
    """Of a training node. Raises CascadeError where the base model's configuration is not known."""
    node, place = recipe.training[name], recipe.place(name)
    longest = (
        recipe.longest_rollout(node) if isinstance(node, OnPolicyNode | OffPolicyNode) else recipe.curation.max_tokens
    )
    shape, gpus = shape_of(base_config(recipe, layout)), max(1, place.machines * place.gpus)
    memory = place.gpu_gib * GIB if place.gpu_gib else None
    adapters = None
    if node.lora is not None:
        from cascade.policy.lora import sizes_of

        adapters = sizes_of(base_config(recipe, layout), node.lora)
    return plan_node(shape, node, gpus, longest, resident_models(recipe, name), memory, adapters)


def check(recipe: Recipe, name: str, layout: Layout) -> list[str]:
    """The plan of a node with `gpu_gib`, as a table. Raises CascadeError where it does not fit."""
    lines, refused = table(recipe, [name], layout)
    if refused:
        raise CascadeError(refused[0])
    return lines


@dataclass(frozen=True)
class Fit:
    """A node's plan beside the GPUs that the recipe gives it."""

    plan: Plan
    gpus: int
    usable: float | None
    """Bytes of each GPU; None where the recipe does not say."""
    refused: str | None
    """Why it cannot run there and what to change, in a line that starts with the node's name; None if it fits."""


def fit(recipe: Recipe, name: str, layout: Layout) -> Fit:
    """Of a training node. Raises CascadeError where the base model's configuration is not known."""
    place, node_plan = recipe.place(name), plan(recipe, name, layout)
    gpus = max(1, place.machines * place.gpus)
    usable = USABLE * place.gpu_gib * GIB if place.gpu_gib else None
    refused = None
    if usable is not None and node_plan.total > usable:
        most = max((field.name for field in fields(Plan)), key=lambda column: getattr(node_plan, column))
        refused = (
            f"{name}: needs {node_plan.total / GIB:.1f} GiB of each GPU, and of pools.{name}.gpu_gib "
            f"{place.gpu_gib:g} {usable / GIB:.1f} can be used; {most} take {getattr(node_plan, most) / GIB:.1f}: "
            f"{_remedy(most, recipe, name)}{_enough(recipe, name, layout)}"
        )
    return Fit(node_plan, gpus, usable, refused)


def table(recipe: Recipe, names: list[str], layout: Layout) -> tuple[list[str], list[str]]:
    """The plans of these training nodes in GiB for each GPU, and one line for each node that does not fit."""
    columns = [field.name for field in fields(Plan)]
    lines = [f"{'node':22} {'GPUs':>5} " + " ".join(f"{name:>11}" for name in (*columns, "total", "of"))]
    refused = []
    for name in names:
        found = fit(recipe, name, layout)
        values = [getattr(found.plan, column) / GIB for column in columns]
        lines.append(
            f"{name:22} {found.gpus:>5} "
            + " ".join(f"{value:>11.1f}" for value in (*values, found.plan.total / GIB))
            + (f" {found.usable / GIB:>11.1f}" if found.usable else f" {'?':>11}")
        )
        if found.refused:
            refused.append(found.refused)
    return lines, refused


def on_cards(recipe: Recipe, gpus: int, gpu_gib: float) -> tuple[Recipe, list[str]]:
    """The recipe with every training node on `gpus` GPUs of `gpu_gib` GiB. A degree of `parallel` that does not divide
    their number is lowered to the largest divisor of both; one line for each node where it is."""
    content = recipe.model_dump(mode="json", exclude_unset=True)
    content["pools"] = {name: {"gpus": gpus, "gpu_gib": gpu_gib} for name in recipe.training}
    lowered = []
    for name, node in recipe.training.items():
        given = node.parallel
        tensor = math.gcd(given.tensor, gpus)
        degrees = {
            "expert": math.gcd(given.expert, gpus),
            "tensor": tensor,
            "context": math.gcd(given.context, gpus // tensor),
        }
        changed = {degree: value for degree, value in degrees.items() if value != getattr(given, degree)}
        if changed:
            content[recipe.kind(name)][name]["parallel"] |= changed
            what = ", ".join(
                f"{degree} {value} instead of {getattr(given, degree)}" for degree, value in changed.items()
            )
            lowered.append(f"{name}: parallel.{what}: the node has {gpus} GPUs")
    return Recipe.model_validate(content), lowered


def _remedy(part: str, recipe: Recipe, name: str) -> str:
    """What makes this part of the plan smaller, of what the node's engine accepts and does not have yet."""
    node, place = recipe.training[name], recipe.place(name)
    if isinstance(node, QuantizeNode | QADNode):
        steps = ", or lower optimizer.micro_batch_tokens" if isinstance(node, QADNode) else ""
        return f"use a GPU with more memory{steps}"
    assert isinstance(node, OnPolicyNode | OffPolicyNode | SFTNode)
    nemo, gpus = node.engine == "nemo", max(1, place.machines * place.gpus)
    more = "use more GPUs" if nemo else "use engine nemo on several GPUs"
    recompute = [] if node.parallel.checkpoint_activations else ["set parallel.checkpoint_activations"]
    splits = nemo and node.parallel.tensor * node.parallel.context < gpus
    context = ["raise parallel.context"] if splits else []
    longest = recipe.longest_rollout(node) if isinstance(node, OnPolicyNode | OffPolicyNode) else 0
    longer = longest > node.optimizer.micro_batch_tokens
    shorter = [f"lower {'rollout.max_new_tokens' if longer else 'optimizer.micro_batch_tokens'}"]
    adapters = [] if nemo or node.lora else ["train adapters (lora)"]
    trained = ", or ".join([*adapters, more])
    kept = "set parallel.keep_gathered: false" if node.parallel.keeps_gathered(gpus) else "raise parallel.expert"
    return {
        "weights": more,
        "gradients": trained,
        "optimizer": trained,
        "gathered": kept if nemo else more,
        "activations": ", ".join([*recompute, *context, *shorter]),
        "logits": ", ".join([*context, *shorter, "or a smaller vocabulary"]),
        "sampler": "lower rollout.max_new_tokens, or sample with vllm, on GPUs of its own",
        "teachers": f"teacher_memory host{'' if nemo else ' or disk'}, {more}, or fewer candidates",
    }[part]


MOST_GPUS = 1024


def _enough(recipe: Recipe, name: str, layout: Layout) -> str:
    """The fewest settings with which it fits on these GPUs, none of which changes the batch; else how many GPUs of the
    same size would do, in powers of two, which are of no use to engine hf."""
    place, node = recipe.place(name), recipe.training[name]
    assert place.gpu_gib is not None
    usable, gpus = USABLE * place.gpu_gib * GIB, max(1, place.machines * place.gpus)

    def fits(changes: dict[str, object], count: int = gpus) -> bool:
        parallel = {key.removeprefix("parallel."): value for key, value in changes.items() if "." in key}
        update = {key: value for key, value in changes.items() if "." not in key}
        changed = node.model_copy(update={**update, "parallel": node.parallel.model_copy(update=parallel)})
        kind = recipe.kind(name)
        section = {**getattr(recipe, kind), name: changed}
        pools = {**recipe.pools, name: place.model_copy(update={"machines": 1, "gpus": count})}
        return plan(recipe.model_copy(update={kind: section, "pools": pools}), name, layout).total <= usable

    changes: dict[str, object] = {}
    for key, value in _settings(node, gpus):
        changes[key] = value
        if fits(changes):
            for each in list(changes):
                fewer = {other: changes[other] for other in changes if other != each}
                if fits(fewer):
                    changes = fewer
            return " (enough: " + ", ".join(f"{each}: {_written(changes[each])}" for each in changes) + ")"
    more = gpus
    while node.engine == "nemo" and (more := 2 * more) <= MOST_GPUS:
        if fits({}, more):
            return f" (enough: {more} GPUs)"
    return ""


def _settings(node: Node, gpus: int) -> list[tuple[str, object]]:
    """Settings that take less memory, in the order in which they are to be tried."""
    found: list[tuple[str, object]] = []
    if node.engine == "nemo" and node.parallel.keeps_gathered(gpus):
        found.append(("parallel.keep_gathered", False))
    if not node.parallel.checkpoint_activations:
        found.append(("parallel.checkpoint_activations", True))
    if isinstance(node, Distillation) and node.teacher_memory == "device":
        found.append(("teacher_memory", "host"))
    context = node.parallel.context
    while node.engine == "nemo" and gpus % (node.parallel.tensor * (context := 2 * context)) == 0:
        found.append(("parallel.context", context))
    return found


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def base_config(recipe: Recipe, layout: Layout) -> Path:
    """The base model's configuration; where the model is missing, the copy in recipes/base."""
    base_config = layout.root / recipe.base / "config.json"
    library_config = layout.root / "recipes" / "base" / f"{Path(recipe.base).name}.json"
    for path in (base_config, library_config):
        if path.is_file():
            return path
    raise CascadeError(
        f"{base_config}: no such file, nor {library_config}; the plan needs the base model: "
        f"`{makes_base(recipe, layout)}`"
    )


def resident_models(recipe: Recipe, name: str) -> int:
    """Models in memory besides the trained one: the largest number of teachers, or the initial policy of a KL term.
    Off policy, the teachers sample one after another."""
    node = recipe.training[name]
    if isinstance(node, RLNode):
        return int(node.kl > 0)
    if isinstance(node, OffPolicyNode | QuantizeNode | QADNode):
        return 1
    if not isinstance(node, Distillation):
        return 0
    teachers_node = recipe.teachers.get(getattr(node, "teachers", ""))
    candidates = teachers_node.candidates if teachers_node else [*node.against, node.init]  # type: ignore[attr-defined]
    allowed = [teachers_node.domains.get(domain, candidates) if teachers_node else candidates for domain in node.mix]
    most = min(len(node.mix), len({candidate for of_domain in allowed for candidate in of_domain}))
    return most if node.teacher_memory == "device" else min(most, 2)


def _gathered(shape: Shape, parallel: Parallel, gpus: int) -> float:
    """Two layers' weights, one's gradient in bfloat16 and, on its way to its owners, in float32; where they stay over a
    step, all layers' weights and gradients. Nothing on one GPU; experts of which each GPU has its own are not."""
    if gpus == 1:
        return 0.0
    experts = 0 if parallel.expert == gpus else 1 / parallel.expert
    layer = shape.layer + shape.experts * experts
    if parallel.keeps_gathered(gpus):
        return (shape.parameters - shape.all_experts + shape.all_experts * experts) * (2 + 4) + layer * (2 + 4)
    return layer * (2 * 2 + 2 + 4)


def _logits(shape: Shape, tokens: float, dispatched: float) -> float:
    """The output matrix whole, with its gradient; and what `token_log_probs` holds of probabilities at a time. The
    loss is computed when layers are done, so a layer's own passing needs take no more room until they exceed it."""
    from cascade.policy.logits import CHUNK, HELD

    vocabulary = shape.head // shape.width
    values = tokens * vocabulary
    saved = values if values <= HELD["cuda"] else 0
    chunk = min(values, max(64 * vocabulary, CHUNK["cuda"]))
    return shape.head * (2 + 2 + 4) + max(4 * saved + 3 * 4 * chunk, dispatched)


def _sampler(shape: Shape, node: OnPolicyNode | OffPolicyNode, gpus: int, longest: int, memory: float | None) -> float:
    """The torch engine's copy of the weights and its caches, and of engine nemo the whole model that they come from;
    vLLM's, where it can only be on the one GPU there is. Models with a forward pass of their own are sampled as
    many rows at a time as a part of the GPU's memory has caches for; counted here where that memory is known."""
    if node.rollout.engine == "vllm" and gpus > 1:
        return 0.0
    from cascade.rollout.torch_engine.cuda_graphs import rows_within
    from cascade.rollout.torch_engine.sampler import MAX_ROWS

    rows = min(MAX_ROWS, -(-node.prompts * node.rollouts // gpus))
    whole = 2.0 * shape.parameters if node.engine == "nemo" else 0.0
    if not shape.own_pass:  # From the trainer's weights, with caches in their type.
        return whole + rows * (longest * shape.cache * (1 if whole else 2) + shape.state)
    each = longest * shape.cache + shape.state
    rows = rows if memory is None else min(rows, rows_within(each, memory))
    return whole + 2.0 * shape.parameters + rows * each
