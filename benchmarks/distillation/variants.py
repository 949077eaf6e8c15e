"""The variants of the distillation benchmark: the nodes that each trains from the start, and the settings by which they
differ from the paper's distillation. In the order in which they are run."""

from dataclasses import dataclass, field
from typing import Any

START = "start"
"""The checkpoint that has lost something."""

STEPS = 40
CURVE = (10, 20)
"""Steps after which one rollout a prompt is evaluated; after STEPS there are four."""

LONGER = 52
"""Steps of RL, so that it can be read at equal seconds, too: its steps take less time than a distillation's."""

MOPD = {
    "steps": STEPS,
    "prompts": 24,
    "rollouts": 4,
    "rollout": {"max_new_tokens": 160},
    "optimizer": {"learning_rate": 1.2e-4, "warmup_steps": 5, "schedule": "cosine"},
}
RL = {
    "steps": LONGER,
    "prompts": 12,
    "rollouts": 8,
    "max_refills": 0,
    "rollout": {"max_new_tokens": 160},
    "optimizer": {"learning_rate": 1.2e-4},
}
OFF_POLICY = {
    "prompts": STEPS * 24,
    "rollouts": 4,
    "rollout": {"max_new_tokens": 160},
    "epochs": 2.0,
    "batch": 64,
    "optimizer": {"learning_rate": 3.0e-4, "min_learning_rate": 3.0e-5, "warmup_steps": 5, "schedule": "cosine"},
}
MERGED = {"start": "merge", "merge_scale": 0.5}
FAST = {"learning_rate": 3.6e-4}


@dataclass(frozen=True)
class Variant:
    """`nodes`: kind and settings of each node, trained in this order, the first from the start, each from the one
    before."""

    what: str
    nodes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    merge: float | None = None
    """Nothing is trained: the teachers' common start plus this much of each task vector; 0: their mean."""
    by_domain: bool = False
    """One run for each domain, each with its part of the steps, evaluated on that domain alone."""


def mopd(what: str, optimizer: dict[str, Any] | None = None, **settings: Any) -> Variant:
    return Variant(what, [("distill", MOPD | settings | {"optimizer": MOPD["optimizer"] | (optimizer or {})})])


VARIANTS = {
    "start": Variant("the start, untrained"),
    "merge": Variant("the mean of the teachers", merge=0.0),
    "merge_0.5": Variant("the teachers' common start plus half of each task vector", merge=0.5),
    "merge_1": Variant("the teachers' common start plus the whole of each task vector", merge=1.0),
    "mopd": mopd("MOPD as in the paper"),
    "rl": Variant("GRPO on all domains", [("rl", RL)]),
    "off_policy": Variant("SFT on the teachers' verified answers, two epochs", [("off_policy", OFF_POLICY)]),
    "merge_start": mopd("MOPD from the mean of the teachers", start="merge"),
    "rate": mopd("MOPD, learning rate times 3", FAST),
    "merge_1_start": mopd("MOPD from the common start plus each task vector", start="merge", merge_scale=1.0),
    "merge_1_start_rate": mopd(
        "MOPD from the common start plus each task vector, learning rate times 3", FAST, start="merge", merge_scale=1.0
    ),
    "single": mopd("MOPD, 96 prompts × 1 instead of 24 × 4", prompts=96, rollouts=1),
    "rl_routed": Variant(
        "GRPO, a run and a model for each domain, with its part of the steps", [("rl", RL)], by_domain=True
    ),
    "warm_up": Variant(
        "a third of the tokens off-policy, then MOPD",
        [("off_policy", OFF_POLICY | {"prompts": 13 * 24}), ("distill", MOPD | {"steps": 27})],
    ),
    "off_policy_mopd": Variant(
        "two thirds of the tokens off-policy, then MOPD",
        [("off_policy", OFF_POLICY | {"prompts": 27 * 24}), ("distill", MOPD | {"steps": 13})],
    ),
    "merge_warm_up": Variant(
        "from half of each task vector: a third of the tokens off-policy, then MOPD",
        [("off_policy", OFF_POLICY | MERGED | {"prompts": 13 * 24}), ("distill", MOPD | {"steps": 27})],
    ),
    "merge_off_policy": Variant("from half of each task vector: off-policy", [("off_policy", OFF_POLICY | MERGED)]),
}
