"""Nodes of the miniature project in every process of a group: node.py PROJECT:NODE[:key=value …] …

`die=STEP`: killed after it, then started again. `engine`, `memory` (of teachers), `expert`, `lora` (its rank): of the
node's section.
Engine nemo is NeMo Automodel's where there are GPUs, else the tests' own splitting over gloo.
"""

import sys
import types
from pathlib import Path

import torch

from cascade import policy
from cascade.environments import registry
from cascade.layout import Layout
from cascade.training.node_run import NodeRun
from cascade.training.on_policy import run_on_policy
from cascade.training.sft import run_sft
from cascade.utils import distributed
from tests.training.miniature import FindTheWord, make_recipe

if not torch.cuda.is_available():
    policy.ENGINES["nemo"] = ("tests.distributed.worker", "ShardedOnCPU")


class Killed(BaseException):
    pass


def die_after(step: int) -> None:
    save = NodeRun.save

    def dying(self, policy, done, progress):
        save(self, policy, done, progress)
        if done == step:
            raise Killed

    NodeRun.save = dying


def main(layout: Layout, name: str, settings: dict[str, str]) -> None:
    module = types.ModuleType("find_the_word")
    module.ENVIRONMENT = FindTheWord()
    sys.modules["find_the_word"] = module
    registry.MODULES["find_the_word"] = "find_the_word"
    changes: dict = {"engine": settings.get("engine", "hf")}
    if "memory" in settings:
        changes["teacher_memory"] = settings["memory"]
    if "lora" in settings:
        changes["lora"] = {"rank": int(settings["lora"])}
    if "expert" in settings:
        changes["parallel"] = {"expert": int(settings["expert"])}
    recipe = make_recipe(**{name: changes})
    (run_sft if name == "sft" else run_on_policy)(recipe, name, layout)


if __name__ == "__main__":
    with distributed.process_group():
        for job in sys.argv[1:]:
            root, name, *given = job.split(":")
            settings = dict(setting.split("=") for setting in given)
            project, save = Layout(Path(root)), NodeRun.save
            if "die" in settings:
                die_after(int(settings["die"]))
                try:
                    main(project, name, settings)
                except Killed:
                    NodeRun.save = save
            main(project, name, settings)
