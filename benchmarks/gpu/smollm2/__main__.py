"""Command line of the package; see its docstring."""

import argparse
import signal
import tarfile
import time
from pathlib import Path

BEGAN = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.smollm2")
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("prepare", help="download and pack what a machine without a network needs")
    one.add_argument("--out", type=Path, required=True, help="a folder, new or from an earlier call")
    one.add_argument(
        "--gsm8k", type=Path, required=True, help="a copy of openai/grade-school-math, or of its data folder"
    )
    one.add_argument("--mbpp", type=Path, required=True, help="mbpp.jsonl of google-research/google-research")
    one.add_argument("--self-instruct", type=Path, required=True, help="a copy of yizhongw/self-instruct")
    two = commands.add_parser("run", help="do what is left, within the limit")
    two.add_argument("--recipe", type=Path, default=Path("recipes/smollm2.yaml"))
    two.add_argument("--from", dest="source", type=Path, help="folder of model.gguf.0 … and data.tar.gz")
    two.add_argument("--work", type=Path, default=Path(".cascade/smollm2"), help="the project; holds all state")
    two.add_argument("--out", type=Path, default=Path("results/gpu/smollm2.json"))
    two.add_argument("--keep", type=Path, help="also write the small files behind the table into this .tar.gz")
    two.add_argument("--limit", type=float, default=float("inf"), help="seconds, from the start of this process")
    two.add_argument("--jobs", type=int, default=3, help="steps side by side")
    two.add_argument("--chat-template", default="hermes")
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        from benchmarks.gpu.smollm2.prepare import prepare

        prepare(arguments.out, arguments.gsm8k, arguments.mbpp, arguments.self_instruct)
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: exit(128 + number))  # Steps are then stopped, too.
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    import torch
    import transformers

    from benchmarks.gpu.smollm2 import run as steps
    from cascade import sandbox
    from cascade.utils.files import write_json

    without = {}
    if lacks := sandbox.missing():
        without["code"] = f"programs cannot be confined here: {'; '.join(lacks)}"
        print(f"without code: {without['code']}", flush=True)
    recipe, layout = steps.open_project(arguments.recipe, arguments.work, without)
    gguf = None if arguments.source is None else unpack(arguments.source, layout.root)
    todo = steps.steps(recipe, layout, gguf, arguments.chat_template)
    facts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "jobs": arguments.jobs,
        "without": without,
    }

    def progress() -> None:
        left = [step.name for step in todo if not step.done]
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, steps.table(recipe, layout, facts, left))
        if arguments.keep:
            steps.keep(layout, arguments.keep)

    left = steps.run(todo, layout, arguments.jobs, BEGAN + arguments.limit, progress)
    names = ", ".join(step.name for step in left)
    print(f"left: {names}; call again" if left else "nothing is left", flush=True)


def unpack(source: Path, root: Path) -> Path:
    """The data into the project, and the model's parts joined; where they are not there yet."""
    gguf = root / "model.gguf"
    if not (root / "data" / "smollm2").is_dir():
        with tarfile.open(source / "data.tar.gz") as archive:
            archive.extractall(root, filter="data")
    parts = sorted(source.glob("model.gguf.*"), key=lambda path: int(path.suffix[1:]))
    if not gguf.exists():
        temporary = gguf.with_suffix(".part")
        with open(temporary, "wb") as whole:
            for part in parts:
                whole.write(part.read_bytes())
        temporary.replace(gguf)
    return gguf


if __name__ == "__main__":
    main()
