"""The start of the distillation benchmark and its teachers, from the nano base model: `start.yaml`, node by node.

    python -m benchmarks.distillation.start

What --build has already is not made again. --start then holds all that the benchmark reads, 32 MB: prompts, benchmarks,
teachers.json, and the checkpoints rounded to bfloat16, so that they are small enough to be carried to another machine.
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
    "math": "structured_rl",
    "instruction_following": "if_rl",
    "tool_calling": "tool_rl",
    "structured_output": "structured_rl",
    "human_preference": "rlhf",
}
"""Domain → the best checkpoint in it. mcqa has none: no checkpoint has learned it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path(".cascade/distillation/build"))
    parser.add_argument("--start", type=Path, default=Path(".cascade/distillation/start"))
    options = parser.parse_args()
    build: Path = options.build
    build.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("start.yaml"), build / "params.yaml")
    if not (build / "data" / "report.json").exists():
        shutil.copytree("models/base", build / "models" / "base", dirs_exist_ok=True)
        _cascade(build, "curate")
    nodes = list(load(build / "params.yaml").training)
    for node in nodes:
        if not (build / "models" / node / "config.json").exists():
            _cascade(build, node)
    publish(build, nodes, options.start)


def publish(build: Path, nodes: list[str], start: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    for node in nodes:
        shutil.copytree(build / "models" / node, start / "models" / node, dirs_exist_ok=True)
        file = start / "models" / node / "model.safetensors"
        save_file({n: t.to(torch.bfloat16) for n, t in load_file(file).items()}, file, {"format": "pt"})
    for folder in ("rl", "benchmarks"):
        shutil.copytree(build / "data" / folder, start / "data" / folder, dirs_exist_ok=True)
    shutil.copyfile(build / "params.yaml", start / "params.yaml")
    write_json(start / "teachers.json", TEACHERS)


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
