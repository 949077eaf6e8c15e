"""The graph of a small recipe on two GPUs by either engine, each node as the flow starts it (launcher torchrun); one
node killed and resumed. Two domains that need no other package; which node teaches what is decided here, as evaluating
is not what is shown. Called by two_gpus, part `graph`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cascade.layout import Layout
from cascade.utils.files import hash_directory, read_json, write_json

BASE = Path("models/base")
LIMIT = 240
"""Seconds of a node."""
NODES = ("sft", "if_rl", "kl_rl", "mopd")
TEACHERS = {"instruction_following": "sft", "mcqa": "kl_rl"}
KILLED = "if_rl"


def recipe(engine: dict[str, Any], gpus: int = 2) -> dict[str, Any]:
    def source(name: str, levels: dict[int, float]) -> dict[str, Any]:
        counts = {"sft": 400, "rl": 300, "benchmark": 8}
        return {"generator": name, "domain": name, "levels": levels, "brief": 0.6, **counts}

    rate = {"optimizer": {"learning_rate": 1e-4}}
    sampled = {
        "prompts": 16,
        "rollouts": 8,
        "rollout": {"max_new_tokens": 160},
        "checkpoint_every": 1,
        **rate,
        **engine,
    }
    # It is shown that nodes end, not that they learn.
    rl = {"init": "sft", "round": 1, "max_refills": 1, "min_teaching": 0, **sampled}
    both = dict.fromkeys(TEACHERS, 0.5)
    pool = {"launcher": "torchrun", "gpus": gpus, "gpu_gib": 79}
    return {
        "name": "two-gpus",
        "family": "two-gpus",
        "seed": 0,
        "threads": 8,
        "base": str(BASE),
        "curation": {
            "max_tokens": 512,
            "sequence_length": 512,
            "sources": {
                "instruction_following": source("instruction_following", {2: 0.5, 3: 0.5}),
                "mcqa": source("mcqa", {1: 0.5, 2: 0.5}),
            },
        },
        "sft": {"sft": {"init": "base", "round": 1, "epochs": 1.0, "batch": 16, **rate, **engine}},
        "rl": {
            "if_rl": {**rl, "mix": {"instruction_following": 1.0}, "steps": 5},
            "kl_rl": {**rl, "mix": {"mcqa": 1.0}, "steps": 3, "kl": 0.03},
        },
        "teachers": {"select_teachers": {"round": 1, "candidates": ["sft", "if_rl", "kl_rl"]}},
        "distill": {
            "mopd": {"init": "if_rl", "round": 2, "teachers": "select_teachers", "mix": both, "steps": 3, **sampled}
        },
        "repair": {},
        "judges": {},
        "evaluation": {"rollouts": 1, "rollout": {"max_new_tokens": 160}},
        "gate": {},
        "pools": dict.fromkeys(NODES, pool),
    }


def run(work: Path, engines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By engine and node: exit status, seconds, the checkpoint's hash; and whether the killed node came to the same."""
    data = work / "graph"
    if not (data / "data").exists():
        project(data, {}, None)
        curated = node(data, "curate")
        if curated["exit"]:
            return {"curate": curated}
    return {
        name: graph(work / f"graph-{number}", settings, data) for number, (name, settings) in enumerate(engines.items())
    }


def project(root: Path, engine: dict[str, Any], data: Path | None) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(BASE, root / BASE)
    if data is not None:
        shutil.copytree(data / "data", root / "data")
    # As JSON, which YAML reads too: yaml.dump writes one object's second place as an alias, which recipes cannot have.
    (root / "params.yaml").write_text(json.dumps(recipe(engine), indent=1))


def graph(root: Path, engine: dict[str, Any], data: Path) -> dict[str, Any]:
    project(root, engine, data)
    found: dict[str, Any] = {}
    for name in NODES:
        if name == "mopd":
            layout = Layout(root)
            teachers = {
                domain: {"node": of, "checkpoint": f"models/{of}", "hash": hash_directory(layout.checkpoint(of))}
                for domain, of in TEACHERS.items()
            }
            write_json(layout.decision("select_teachers"), {"teachers": teachers})
        found[name] = node(root, name)
        if found[name]["exit"]:
            return found
    again = root.with_name(f"{root.name}-killed")
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(root, again)
    for made in (again / "models" / KILLED, again / ".cascade", again / "results" / "training" / KILLED):
        shutil.rmtree(made, ignore_errors=True)
    killed = node(again, KILLED, kill=True)
    resumed = node(again, KILLED)
    found["killed"] = {"first": killed, "resumed": resumed}
    found["killed"]["same checkpoint"] = resumed["checkpoint"] == found[KILLED]["checkpoint"]
    return found


def descendants(pid: int) -> list[int]:
    """Of a process that runs, by /proc."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rsplit(")", 1)[1].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def node(root: Path, name: str, kill: bool = False) -> dict[str, Any]:
    """`kill`: all of its processes, as soon as a state is saved."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    environment |= {"OMP_NUM_THREADS": "4", "CASCADE_PATIENCE": "100"}
    log = root / f"{name}.log"
    began = time.perf_counter()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cascade", "node", name],
            cwd=root,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    state = Layout(root).work(name) / "state.safetensors"
    while process.poll() is None:
        if time.perf_counter() - began > LIMIT or (kill and state.exists()):
            break
        time.sleep(0.05)
    status = process.poll()
    if status is None:
        for child in (process.pid, *descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.wait()
        status = "killed" if kill else f"no end after {LIMIT} s"
    manifest = Layout(root).training(name) / "manifest.json"
    made = read_json(manifest) if manifest.exists() else {}
    lines = log.read_text(errors="replace").splitlines()
    found = {"exit": status, "seconds": round(time.perf_counter() - began, 1), "checkpoint": made.get("checkpoint")}
    found["plan printed"] = sum("optimizer" in line and "gathered" in line for line in lines)
    if status not in (0, "killed"):
        found["said"] = [line for line in lines if "rror" in line][-4:] or lines[-4:]
    if any("resuming" in line for line in lines):
        found["resumed"] = [line for line in lines if "resuming" in line][-1]
    print(root.name, name, found, flush=True)
    return found
