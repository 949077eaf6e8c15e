"""A package of the Environments Hub in small, beside a library that has what the adapter uses of `verifiers`."""

import os
import sys
from pathlib import Path

LIBRARY = """
class ClientConfig:
    def __init__(self, **fields):
        self.__dict__.update(fields)
"""

PACKAGE = """
import asyncio, json, logging, os, urllib.request


def right(): ...
def told(): ...


class Rubric:
    funcs, weights = [right, told], [1.0, 0.0]


class Environment:
    rubric = Rubric()

    def __init__(self, turns, moods):
        self.turns, self.moods = turns, moods

    def get_dataset(self):
        return [{"prompt": f"Guess {n}.", "answer": str(n)} for n in range(3)]

    async def run_rollout(self, row, client, model, sampling):
        mood = self.moods.get(row["answer"], "")
        if mood == "raises":
            raise KeyError("board")
        said, reply = list(row["prompt"]), ""
        for turn in range(self.turns):
            reply = await asyncio.to_thread(ask, client.api_base_url, model, said)
            if mood == "dies" and turn == 0:
                os._exit(3)
            said += [{"role": "assistant", "content": reply}, {"role": "user", "content": f"Not {reply}. Again."}]
            if reply == row["answer"]:
                break
        log = logging.getLogger("verifiers.rubrics")
        if mood == "rubric":
            log.error("Error calling reward function right: division by zero")
        if mood == "metric":
            log.error("Error calling reward function told: division by zero")
        reward = {"high": 7.0}.get(mood, float(reply == row["answer"]))
        return {"reward": reward, "metrics": {"turns": turn + 1, "none": None}, "error": None}


def ask(url, model, messages):
    body = json.dumps({"model": model, "messages": messages}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]


def load_environment(turns=1, moods={}):
    return Environment(turns, moods)
"""


def install(directory: Path) -> str:
    """The Python that has them."""
    (directory / "verifiers").mkdir(parents=True)
    (directory / "verifiers" / "__init__.py").write_text("")
    (directory / "verifiers" / "types.py").write_text(LIBRARY)
    (directory / "guessing.py").write_text(PACKAGE)
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={directory} exec {sys.executable} "$@"\n')
    os.chmod(python, 0o755)
    return str(python)
