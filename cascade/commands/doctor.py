"""`cascade doctor`: checks of the installation, with remedies."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import click

from cascade import sandbox
from cascade.errors import CascadeError
from cascade.launch.ui_servers import running_prefect
from cascade.layout import Layout

NEEDED = ("torch", "transformers", "datasets", "pyarrow", "prefect", "mlflow", "dvc", "math-verify", "reasoning-gym")


@dataclass(frozen=True)
class Finding:
    """Result of one check. `remedy` is empty where nothing is missing; only a missing `needed` item is an error."""

    what: str
    found: str
    remedy: str = ""
    needed: bool = False


def examine(layout: Layout) -> bool:
    """Print every finding; False where something needed is missing."""
    good = True
    for title, findings in (
        ("Machine", machine()),
        ("Packages", packages()),
        ("Engines", engines()),
        ("Project", project(layout)),
    ):
        click.secho(title, bold=True)
        for finding in findings:
            missing = bool(finding.remedy)
            good = good and not (missing and finding.needed)
            mark = click.style("✗", fg="red") if missing and finding.needed else "–" if missing else "✓"
            remedy = f"  → {finding.remedy}" if missing else ""
            click.echo(f"  {mark} {finding.what:24} {finding.found}{remedy}")
    return good


def machine() -> Iterator[Finding]:
    import torch

    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("Python", version, "" if fits else "use Python 3.11 to 3.13", needed=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("CPU", f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB memory")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(f"GPU {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        cuda_version = torch.version.cuda
        yield Finding(
            "GPU", f"none that torch can use (torch built for {f'CUDA {cuda_version}' if cuda_version else 'CPU'})"
        )
    lacks = sandbox.missing()
    remedy = f"domains that run code need it: {sandbox.REMEDY}" if lacks else ""
    yield Finding("sandbox", "; ".join(lacks) or "programs can be confined", remedy)
    for command, remedy in (("git", "install git: DVC needs it"), ("make", "install make")):
        path = shutil.which(command)
        yield Finding(command, path or "missing", "" if path else remedy, needed=command == "git")


def packages() -> Iterator[Finding]:
    for name in NEEDED:
        version = version_of(name)
        yield Finding(name, version or "missing", "" if version else "make setup", needed=True)
    spec = find_spec("transformers")  # It stands for all: they are installed, and compiled, together.
    if sys.dont_write_bytecode and spec and spec.origin and not Path(cache_from_source(spec.origin)).exists():
        yield Finding(
            "bytecode",
            "none, and none is kept (PYTHONDONTWRITEBYTECODE): every process compiles what it imports",
            f"python -m compileall -q {Path(spec.origin).parents[1]}",
        )


def engines() -> Iterator[Finding]:
    """Engines of nodes and rollouts, and optional fast kernels."""
    from cascade import policy, rollout

    extras = {"nemo": ("nemo-automodel", "pip install -e '.[nemo]'"), "vllm": ("vllm", "pip install -e '.[vllm]'")}
    for use, registry in (("training", policy.ENGINES), ("sampling", rollout.ENGINES)):
        for name, (module, _) in registry.items():
            package, remedy = extras.get(name, ("torch", ""))
            version = version_of(package) or version_of(f"{package}-cpu")
            if find_spec(module) is None:
                yield Finding(f"{use}: {name}", "absent", "not part of this version of cascade")
            else:
                yield Finding(f"{use}: {name}", "ready" if version else "missing", "" if version else remedy)
    peft = version_of("peft")
    yield Finding("adapters: peft", peft or "missing", "" if peft else "pip install -e '.[lora]', for nodes with lora")
    for name in ("mamba-ssm", "causal-conv1d"):
        version = version_of(name)
        remedy = (
            "" if version else f"on a GPU: pip install --no-build-isolation {name}; without, Mamba layers are slower"
        )
        yield Finding(f"kernels: {name}", version or "missing", remedy)


def project(layout: Layout) -> Iterator[Finding]:
    from cascade.recipe import load
    from cascade.recipe.library import makes_base

    inside = any((parent / ".git").exists() for parent in (layout.root, *layout.root.resolve().parents))
    yield Finding("git repository", "yes" if inside else "no", "" if inside else "git init", needed=True)
    try:
        recipe = load(layout.params)
    except CascadeError as error:
        yield Finding("params.yaml", str(error), "cascade recipe use nano", needed=True)
    else:
        yield Finding("params.yaml", f"{recipe.name}, {len(recipe.ordered())} nodes")
        base = layout.root / recipe.base
        has_checkpoint = (base / "config.json").is_file()
        remedy = "" if has_checkpoint else makes_base(recipe, layout)
        yield Finding(recipe.base, "a checkpoint" if has_checkpoint else "missing", remedy, needed=True)
    server = os.environ.get("PREFECT_API_URL") or running_prefect(layout)
    yield Finding("Prefect server", server or "none running; runs start a temporary one (cascade ui starts one)")
    store = Path(layout.root / "mlflow" / "mlflow.db")
    tracking = os.environ.get("MLFLOW_TRACKING_URI") or ("mlflow/mlflow.db" if store.exists() else "no run yet")
    yield Finding("MLflow store", tracking)


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
