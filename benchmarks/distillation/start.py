"""The start of the distillation benchmark and its teachers, from the nano base model: `start.yaml`, node by node.

    python -m benchmarks.distillation.start --start .cascade/distillation/start

Each domain's teacher is the checkpoint that `start.yaml` was written to make best in it; the last domain is the one
that the start itself was trained on. What the folder has already is not made again. It then holds all that the
benchmark reads: prompts, benchmarks, six checkpoints of 5 MB, teachers.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cascade.errors import CascadeError
from cascade.recipe import load
from cascade.utils.files import write_json

TEACHERS = {
    "math": "if_rl",
    "instruction_following": "if_rl",
    "structured_output": "structured_rl",
    "human_preference": "rlhf",
    "tool_calling": "start",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, default=Path(".cascade/distillation/start"))
    folder = parser.parse_args().start
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("start.yaml"), folder / "params.yaml")
    if not (folder / "data" / "report.json").exists():
        shutil.copytree("models/base", folder / "models" / "base", dirs_exist_ok=True)
        _cascade(folder, "curate")
    for node in load(folder / "params.yaml").training:
        if not (folder / "models" / node / "config.json").exists():
            _cascade(folder, node)
    write_json(folder / "teachers.json", TEACHERS)


def _cascade(folder: Path, node: str) -> None:
    print(node, flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "cascade", "node", node]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise CascadeError(f"{node} failed: {done.stderr.decode().strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
