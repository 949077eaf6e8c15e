"""Harbor tasks: an instruction, a world of files to work in with a shell, a test script that writes the reward.

The directory of a task holds `task.toml`, `instruction.md`, `environment/`, `tests/test.sh`. Where its environment
needs no container the task is run in our sandbox: no image but a stock one of Python, Debian or Ubuntu, of which the
task gets this machine's programs instead, and nothing in its Dockerfile beyond WORKDIR, ENV and COPY. All else is
refused (`needs_container`): `harbor` runs those, and `gym_url` or a `verifiers` taskset can bring them here.

The policy has one tool, `bash`; each call is a process of its own in the working directory, and files stay. A response
that calls nothing ends the episode, and `tests/test.sh` runs on what is there, with `/tests` and an empty
`/logs/verifier`. The reward is the number in `/logs/verifier/reward.txt`, or `reward` in `reward.json` (its only value,
where there is one alone). Nothing of a task has a network here, and a package that a script would install is not there:
where it writes no reward that is a failure (`no_reward`), as are one that is no number (`bad_reward`) and files that
have grown too large to be carried on (`too_large`). As in Harbor's shared mode the tests run where the policy worked.
"""

import json
import math
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade.chat import Message, Response, Row, ToolCall, prompt_of
from cascade.environments.base import Episode, EpisodeEnvironment, Verdict
from cascade.environments.harbor import world
from cascade.errors import CascadeError, RowError

CONFIG = "task.toml"
MAX_CALLS = 16
"""Calls of one response that are carried out."""
MAX_RESULT = 4_000
"""Characters of a call's result that the policy reads: the first and the last half of more."""
TOOL = {
    "type": "function",
    "name": "bash",
    "description": "Run a command in the shell; files stay, processes do not.",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}

_STOCK = re.compile(r"(?:docker\.io/)?(?:library/)?(?:python|debian|ubuntu)(?::[\w.\-]+)?")
_HARMLESS = ("WORKDIR", "ENV", "COPY", "LABEL")


class Harbor(EpisodeEnvironment):
    name = "harbor"

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_task` and what `task` finds."""
        if not isinstance(row.get("harbor"), str):
            raise RowError("no_task", "harbor: the row has no `harbor`, a task's directory")
        task(Path(row["harbor"]))
        prompt_of(row)

    def start(self, row: Row) -> Episode:
        return HarborEpisode(Path(row["harbor"]))

    def verify(self, row: Row, response: Response) -> Verdict:
        """Carry out the calls of a whole transcript, then judge; one without a call leaves the task as it was."""
        episode = HarborEpisode(Path(row["harbor"]))
        for start in range(0, len(response.tool_calls), MAX_CALLS):
            episode.answer(Response("", tool_calls=response.tool_calls[start : start + MAX_CALLS]))
        return episode.verdict()

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Raises CascadeError: the tasks are directories."""
        raise CascadeError("harbor has no tasks of its own; name their directory as `harbor` of the source")


def task(directory: Path) -> Row:
    """The row of a task. Raises RowError: `no_task`, `bad_task`, `needs_container`."""
    settings = _settings(directory)
    _check_container(directory, settings)
    instruction = (directory / "instruction.md").read_text(encoding="utf-8").strip()
    if not instruction:
        raise RowError("no_task", f"harbor {directory.name}: instruction.md is empty")
    asked = {"input": [{"role": "user", "content": instruction}], "tools": [TOOL]}
    return {
        "id": directory.name,
        "environment": "harbor",
        "harbor": os.path.abspath(directory),
        "responses_create_params": asked,
    }


class HarborEpisode(Episode):
    def __init__(self, directory: Path):
        settings = _settings(directory)
        self._tests = directory / "tests"
        self._seconds = float(settings.get("verifier", {}).get("timeout_sec", world.TEST_SECONDS))
        self._workdir, variables, copied = _dockerfile(directory)
        workdir = settings.get("environment", {}).get("workdir") or self._workdir
        self._world = world.World(workdir, variables, copied)

    def answer(self, response: Response) -> list[Message] | None:
        results = [self._call(call) for call in response.tool_calls[:MAX_CALLS]]
        if len(response.tool_calls) > MAX_CALLS:
            results.append(f"Error: only the first {MAX_CALLS} calls were carried out")
        if response.malformed:
            results.append(f"Error: {response.malformed}")
        return [{"role": "tool", "content": result} for result in results] or None

    def verdict(self) -> Verdict:
        if self._world.broken:
            return Verdict(None, "too_large", reason=self._world.broken)
        texts, said = self._world.test(self._tests, self._seconds)
        try:
            reward = _reward(texts)
        except ValueError as error:
            return Verdict(None, "bad_reward", reason=f"harbor: {error}")
        if reward is None:
            return Verdict(None, "no_reward", reason=f"harbor: tests/test.sh wrote no reward ({said})")
        return Verdict(reward, reason=f"tests/test.sh gave {reward:g}")

    def close(self) -> None:
        pass

    def _call(self, call: ToolCall) -> str:
        command = call.text("command")
        if call.name != TOOL["name"] or command is None:
            return "Error: the only tool is bash, with a command"
        result = self._world.run(command)
        half = MAX_RESULT // 2
        return (
            result if len(result) <= MAX_RESULT else f"{result[:half]}\n(… {len(result)} characters)\n{result[-half:]}"
        )


def _settings(directory: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RowError("no_task", f"harbor {directory}: {CONFIG} cannot be read ({error})") from None
    for name in ("instruction.md", "tests/test.sh"):
        if not (directory / name).is_file():
            raise RowError("no_task", f"harbor {directory.name}: there is no {name}")
    return settings


def _check_container(directory: Path, settings: dict[str, Any]) -> None:
    def refuse(what: str) -> None:
        raise RowError("needs_container", f"harbor {directory.name}: {what}, which needs a container")

    environment, verifier = settings.get("environment", {}), settings.get("verifier", {})
    if settings.get("steps"):
        raise RowError("bad_task", f"harbor {directory.name}: it has several steps, which are not run here")
    image = environment.get("docker_image")
    if image and not _STOCK.fullmatch(image):
        refuse(f"its image is {image}")
    if environment.get("os", "linux") != "linux" or environment.get("gpus") or environment.get("mcp_servers"):
        refuse("it asks for another system, GPUs or MCP servers")
    if verifier.get("environment") or verifier.get("environment_mode") == "separate":
        refuse("its tests ask for a machine of their own")
    for path in (directory / "environment").glob("*"):
        if "compose" in path.name:
            refuse(f"it has {path.name}")
    for words in _instructions(directory):
        if words[0] == "FROM" and not _STOCK.fullmatch(words[1]):
            refuse(f"its image is {words[1]}")
        if words[0] != "FROM" and (words[0] not in _HARMLESS or any(word.startswith("--") for word in words)):
            refuse(f"its Dockerfile has {' '.join(words)[:60]!r}")


def _instructions(directory: Path) -> list[list[str]]:
    path = directory / "environment" / "Dockerfile"
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    try:
        lines = [shlex.split(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    except ValueError as error:
        raise RowError("bad_task", f"harbor {directory.name}: its Dockerfile cannot be read ({error})") from None
    return [[words[0].upper(), *words[1:]] for words in lines]


def _dockerfile(directory: Path) -> tuple[str, dict[str, str], dict[str, bytes]]:
    """The working directory, variables, and files by their place. Raises RowError (`bad_task`)."""
    workdir, variables, files = "/app", dict[str, str](), dict[str, bytes]()
    build = directory / "environment"
    for words in _instructions(directory):
        if words[0] == "WORKDIR":
            workdir = os.path.normpath(os.path.join(workdir, words[1]))
        elif words[0] == "ENV":
            pairs = words[1:] if "=" in words[1] else [f"{words[1]}={' '.join(words[2:])}"]
            variables |= {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
        elif words[0] == "COPY":
            *sources, target = words[1:]
            place = os.path.join(workdir, target)
            for source in sources:
                files |= _copied(build, source, place, many=len(sources) > 1)
    return workdir, variables, files


def _copied(build: Path, source: str, place: str, many: bool) -> dict[str, bytes]:
    path = (build / source.lstrip("/")).resolve()
    if not path.is_relative_to(build.resolve()) or not path.exists():
        raise RowError("bad_task", f"harbor: its Dockerfile copies {source}, which is not there")
    if path.is_dir():
        inside = [item for item in sorted(path.rglob("*")) if item.is_file() and item.name != "Dockerfile"]
        return {os.path.normpath(os.path.join(place, item.relative_to(path))): item.read_bytes() for item in inside}
    name = os.path.join(place, path.name) if many or place.endswith(("/", "/.")) else place
    return {os.path.normpath(name): path.read_bytes()}


def _reward(texts: dict[str, str]) -> float | None:
    """Raises ValueError."""
    if "reward.json" in texts:
        values = json.loads(texts["reward.json"])
        if not isinstance(values, dict) or not values:
            raise ValueError("reward.json is not an object of numbers")
        if "reward" not in values and len(values) > 1:
            raise ValueError(f"reward.json has no `reward` among {', '.join(sorted(values))}")
        value = values.get("reward", next(iter(values.values())))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"reward.json has {value!r}, no number")
    elif "reward.txt" in texts:
        value = float(texts["reward.txt"].strip())
    else:
        return None
    if not math.isfinite(value):
        raise ValueError(f"the reward is {value}")
    return float(value)


ENVIRONMENT = Harbor()
