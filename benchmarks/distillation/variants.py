"""The variants of the distillation benchmark: for each, the nodes that it trains from the start, and the settings by
which they differ from the paper's distillation."""

from dataclasses import dataclass, field
from typing import Any

START = "start"
"""The checkpoint that has lost something."""

STEPS = 40
CURVE = (10, 20, 30)
"""Steps after which one rollout a prompt is evaluated; after STEPS there are four."""

LONGER = 52
"""Steps of RL, so that it can be read at equal seconds, too: its steps take less time than a distillation's."""

MOPD = {
    "start": "init",
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
HELD_OUT = {"every": 10, "prompts": 48}


@dataclass(frozen=True)
class Variant:
    """`sections`: kind → node settings, trained in this order, each from the one before, the first from the start."""

    what: str
    nodes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    merge: float | None = None
    """Nothing is trained: the teachers' task vectors are added to their common start, times this."""
    by_domain: bool = False
    """One run for each domain, each with its part of the steps, evaluated on that domain alone."""


def mopd(what: str, **settings: Any) -> Variant:
    optimizer = MOPD["optimizer"] | settings.pop("optimizer", {})
    return Variant(what, [("distill", MOPD | settings | {"optimizer": optimizer})])


VARIANTS = {
    "start": Variant("the start, untrained"),
    "merge": Variant("mean of the teachers: their common start plus the mean of their task vectors", merge=0.0),
    "merge_0.5": Variant("the same, with half of each task vector", merge=0.5),
    "merge_1": Variant("the same, with the whole of each task vector", merge=1.0),
    "rl": Variant("GRPO on all domains", [("rl", RL)]),
    "rl_routed": Variant(
        "GRPO, a run and a model for each domain, with its part of the steps", [("rl", RL)], by_domain=True
    ),
    "off_policy": Variant("SFT on the teachers' verified answers, two epochs", [("off_policy", OFF_POLICY)]),
    "mopd": mopd("as in the paper"),
    "token": mopd("mean over tokens", aggregation="token"),
    "spread": mopd("domains weighted by spread", domain_weights="spread"),
    "share": mopd("mean over tokens, domains weighted by share", aggregation="token", domain_weights="share"),
    "clip": mopd("advantages clipped at 2", advantage_clip=2.0),
    "headroom": mopd("prompts by headroom", prompts_by="headroom", held_out=HELD_OUT),
    "rate": mopd("learning rate times 3", optimizer={"learning_rate": 3.6e-4}),
    "single": mopd("96 prompts × 1 instead of 24 × 4", prompts=96, rollouts=1),
    "sgd": mopd("momentum-free SGD", optimizer={"algorithm": "sgd", "learning_rate": 0.3, "weight_decay": 0.0}),
    "merge_start": mopd("from the mean of the teachers", start="merge"),
    "corrections": mopd("with corrections", held_out=HELD_OUT, corrections={}),
    "merge_corrections": mopd(
        "from the mean of the teachers, with corrections", start="merge", held_out=HELD_OUT, corrections={}
    ),
    "warm_up": Variant(
        "a third of the tokens off-policy, then as in the paper",
        [
            ("off_policy", OFF_POLICY | {"prompts": 13 * 24}),
            ("distill", MOPD | {"steps": 27}),
        ],
    ),
    "merge_headroom": mopd(
        "from the mean of the teachers, prompts by headroom", start="merge", prompts_by="headroom", held_out=HELD_OUT
    ),
    "merge_rate": mopd(
        "from the mean of the teachers, learning rate times 3", start="merge", optimizer={"learning_rate": 3.6e-4}
    ),
    "merge_single_rate": mopd(
        "from the mean of the teachers, 96 × 1, learning rate times 3",
        start="merge",
        prompts=96,
        rollouts=1,
        optimizer={"learning_rate": 3.6e-4},
    ),
}
