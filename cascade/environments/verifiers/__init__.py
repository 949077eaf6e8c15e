"""Environments of the Environments Hub: packages for the library `verifiers`, by name, of one turn or many.

The package and the library are installed in a Python of their own, since their pins are not ours; there `bridge.py`
runs the environment, which asks its model in the way of OpenAI's chat completions. Here each question is a turn of an
episode: what the environment says after the policy's reply are the messages of the next one, and its rubric's reward is
the episode's. Known are packages with `load_environment` (verifiers up to 0.3) and tasksets (0.4) whose tasks need no
program, container or MCP server.

A row names the environment and one of its tasks: `verifiers` holds `name`, `python`, `arguments` (those of
`load_environment`, or of the taskset's configuration) and `index`. Curation writes it, from the source's `verifiers`.

What leaves no reward is a failure: `rubric_error` (a function that makes up the reward raised; the older library itself
counts that as 0), `environment_error` (the episode did), `environment_gone` (its process ended, or it said nothing for
ten minutes), `other_prompt` (its first question is not the row's prompt). A reward outside [0, 1] is a
`reward_out_of_range`, as everywhere. An episode that a limit cuts off has reward 0.
"""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from cascade.chat import Message, Response, Row, prompt_of
from cascade.environments.base import Episode, EpisodeEnvironment, Verdict
from cascade.environments.verifiers.process import Bridge, Event, Gone, bridge
from cascade.errors import CascadeError, RowError


class Verifiers(EpisodeEnvironment):
    name = "verifiers"

    def check_row(self, row: Row) -> None:
        """Raises RowError: `no_environment`, `no_prompt`."""
        named = row.get("verifiers")
        if not isinstance(named, dict) or not named.get("name") or not isinstance(named.get("index"), int):
            raise RowError("no_environment", "verifiers: the row has no `verifiers` with `name` and `index`")
        prompt_of(row)

    def start(self, row: Row) -> Episode:
        return HubEpisode(row)

    def verify(self, row: Row, response: Response) -> Verdict:
        """Judge a response as the only turn of an episode; a failure (`no_episode`) where the environment goes on."""
        episode = self.start(row)
        try:
            if episode.answer(response) is not None:
                return Verdict(None, failure="no_episode", reason="the environment goes on after one response")
            return episode.verdict()
        finally:
            episode.close()

    def generate(self, count: int, seed: int, level: int) -> Iterator[Row]:
        """Raises CascadeError: which environment's tasks is the source's to say."""
        raise CascadeError("verifiers has no tasks of its own; name an environment as `verifiers` of the source")


def tasks(
    name: str, python: str | None, arguments: dict[str, Any], count: int | None = None
) -> Iterator[Row | RowError]:
    """The rows of an environment's tasks, each with the first question of an episode as its prompt.

    Raises CascadeError where the environment cannot be loaded. A task that cannot be begun is a RowError
    (`environment_error`).
    """
    python = python or sys.executable
    source = bridge(name, python, json.dumps(arguments, sort_keys=True))
    for task in islice(source.tasks(), count):
        index = task["index"]
        episode = source.start(index)
        try:
            first = source.event(episode)
        except Gone as error:
            raise CascadeError(str(error)) from None
        finally:
            source.drop(episode)
        if "done" in first:
            yield RowError("environment_error", f"verifiers {name}, task {index}: {first.get('error', 'asks nothing')}")
            continue
        params: dict[str, Any] = {"input": [{"role": m["role"], "content": _text(m)} for m in first["messages"]]}
        if first["tools"]:
            params["tools"] = [{"type": "function", **tool["function"]} for tool in first["tools"]]
        yield {
            "id": f"{name}-{index}",
            "environment": "verifiers",
            "verifiers": {"name": name, "python": python, "arguments": arguments, "index": index},
            "responses_create_params": params,
        }


class HubEpisode(Episode):
    def __init__(self, row: Row):
        named = row["verifiers"]
        arguments = json.dumps(named.get("arguments") or {}, sort_keys=True)
        self._bridge: Bridge = bridge(named["name"], named.get("python") or sys.executable, arguments)
        self._failure: Verdict | None = None
        self._done: Event | None = None
        self._known = 0
        """Messages of the conversation that the policy has read or written."""
        self._id = self._bridge.start(named["index"])
        first = self._next()
        if first is not None and _texts(first["messages"]) != _texts(prompt_of(row)[0]):
            self._failure = Verdict(
                None, "other_prompt", reason="the environment's first question is not the row's prompt"
            )
        self._known = len(first["messages"]) if first is not None else 0

    def answer(self, response: Response) -> list[Message] | None:
        if self._failure or self._done:
            return None
        self._bridge.reply(self._id, _reply(response))
        question = self._next()
        if question is None:
            return None
        # After what was known comes the policy's own message.
        said = question["messages"][self._known + 1 :]
        self._known = len(question["messages"])
        return [{"role": message["role"], "content": _text(message)} for message in said]

    def verdict(self) -> Verdict:
        if self._failure:
            return self._failure
        if self._done is None:
            return Verdict(0.0, reason="cut off before the environment came to an end")
        if "error" in self._done:
            code = "rubric_error" if self._done.get("rubric") else "environment_error"
            return Verdict(None, code, reason=self._done["error"])
        return Verdict(float(self._done["reward"]), extracted=self._done["metrics"], reason="the environment's rubric")

    def close(self) -> None:
        self._bridge.drop(self._id)

    def _next(self) -> Event | None:
        """The next question; None where the episode is over."""
        try:
            event = self._bridge.event(self._id)
        except Gone as error:
            self._failure = Verdict(None, "environment_gone", reason=str(error))
            return None
        if "done" in event:
            self._done = event
            return None
        return event


def _reply(response: Response) -> dict[str, Any]:
    reply: dict[str, Any] = {"content": response.content}
    if response.reasoning:
        reply["reasoning_content"] = response.reasoning
    if response.tool_calls:
        reply["tool_calls"] = [
            {
                "id": f"call-{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for number, call in enumerate(response.tool_calls)
        ]
    return reply


def _texts(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message["role"], _text(message).strip()) for message in messages]


def _text(message: Message) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


ENVIRONMENT = Verifiers()
