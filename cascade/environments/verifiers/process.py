"""The process in which an environment of the Environments Hub lives, and what it says of each episode."""

import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError

STARTING_SECONDS = 600.0
"""Loading an environment may bring a data set along."""
TURN_SECONDS = 600.0
"""From a reply to the next question, or to the reward."""
TASKS_AT_ONCE = 64

Event = dict[str, Any]

_BRIDGE = Path(__file__).with_name("bridge.py")


class Gone(Exception):
    """The process ended, or said nothing in time."""


class Bridge:
    """Any number of threads may use it, each its own episodes."""

    def __init__(self, name: str, python: str, arguments: str):
        """Raises CascadeError where the environment cannot be loaded."""
        self._name = name
        self._listing = threading.Lock()
        self._writing = threading.Lock()
        self._episodes: dict[str, queue.Queue[Event]] = {}
        self._others: queue.Queue[Event] = queue.Queue()
        self._ids = itertools.count()
        try:
            self._process = subprocess.Popen(
                [python, "-P", _BRIDGE, name, arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # It is other people's code: no key of ours is meant for it. Its own packages it finds by itself.
                env={key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ},
            )
        except OSError as error:
            raise CascadeError(f"verifiers {name}: {python} cannot be started ({error.strerror})") from None
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._other("ready", STARTING_SECONDS)
        except Gone as error:
            raise CascadeError(f"{error}; install the environment and `verifiers` into {python}") from None

    def tasks(self) -> Iterator[dict[str, Any]]:
        """{index, messages, tools} of each, without an end where the environment has none. Raises CascadeError."""
        for start in itertools.count(0, TASKS_AT_ONCE):
            with self._listing:
                self._send({"tasks": [start, TASKS_AT_ONCE]})
                try:
                    found = self._other("tasks", STARTING_SECONDS)["tasks"]
                except Gone as error:
                    raise CascadeError(str(error)) from None
            yield from found
            if len(found) < TASKS_AT_ONCE:
                return

    def start(self, index: int) -> str:
        """Begin an episode of a task; its id."""
        episode = f"e{next(self._ids)}"
        self._episodes[episode] = queue.Queue()
        self._send({"start": episode, "index": index})
        return episode

    def reply(self, episode: str, message: dict[str, Any]) -> None:
        self._send({"answer": episode, "message": message})

    def event(self, episode: str) -> Event:
        """The episode's next question (`messages`), or its end (`done`). Raises Gone."""
        try:
            event = self._episodes[episode].get(timeout=TURN_SECONDS)
        except queue.Empty:
            raise Gone(f"verifiers {self._name}: nothing within {TURN_SECONDS:g} s") from None
        if "gone" in event:
            raise Gone(f"verifiers {self._name}: its process ended")
        return event

    def drop(self, episode: str) -> None:
        if self._episodes.pop(episode, None) is not None:
            self._send({"drop": episode})

    def _send(self, request: Event) -> None:
        assert self._process.stdin is not None
        # Where the process has ended, the reader tells everyone who waits.
        with self._writing, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            waiting = self._episodes.get(event.get("ask") or event.get("done") or "")
            (waiting or self._others).put(event)
        for waiting in [*self._episodes.values(), self._others]:
            waiting.put({"gone": True})

    def _other(self, kind: str, seconds: float) -> Event:
        while True:
            try:
                event = self._others.get(timeout=seconds)
            except queue.Empty:
                raise Gone(f"verifiers {self._name}: nothing within {seconds:g} s") from None
            if "error" in event and "done" not in event:
                raise Gone(f"verifiers {self._name}: {event['error']}")
            if "gone" in event:
                raise Gone(f"verifiers {self._name}: its process ended")
            if kind in event:
                return event


@cache
def bridge(name: str, python: str, arguments: str) -> Bridge:
    return Bridge(name, python, arguments)


# A forked child must not talk through its parent's pipes.
os.register_at_fork(after_in_child=bridge.cache_clear)
