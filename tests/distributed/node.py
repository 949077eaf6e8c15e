"""A node of the miniature project in every process of a group: node.py PROJECT:NODE[:STEP to die after] …"""

import sys
import types
from pathlib import Path

from cascade.environments import registry
from cascade.layout import Layout
from cascade.training.node_run import NodeRun
from cascade.training.on_policy import run_on_policy
from cascade.training.sft import run_sft
from cascade.utils import distributed
from tests.training.miniature import FindTheWord, make_recipe


class Killed(BaseException):
    pass


def die_after(step: int) -> None:
    save = NodeRun.save

    def dying(self, policy, done, progress):
        save(self, policy, done, progress)
        if done == step:
            raise Killed

    NodeRun.save = dying


def main(layout: Layout, name: str) -> None:
    module = types.ModuleType("find_the_word")
    module.ENVIRONMENT = FindTheWord()
    sys.modules["find_the_word"] = module
    registry.MODULES["find_the_word"] = "find_the_word"
    (run_sft if name == "sft" else run_on_policy)(make_recipe(), name, layout)


if __name__ == "__main__":
    with distributed.process_group():
        for job in sys.argv[1:]:
            root, name, *step = job.split(":")
            project, save = Layout(Path(root)), NodeRun.save
            if step:
                die_after(int(step[0]))
                try:
                    main(project, name)
                except Killed:
                    NodeRun.save = save
            main(project, name)
