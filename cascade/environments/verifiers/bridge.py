# mypy: ignore-errors
"""Runs beside an environment of the Environments Hub, in the Python where it and `verifiers` are installed.

Nothing of Cascade is imported here. A request a line on standard input, an event a line on standard output; the
environment's model is this process itself, an OpenAI-compatible endpoint that hands every question on:

    {"tasks": [start, count]}                  → {"tasks": [{"index", "messages", "tools"}, …]}, and "error" instead
    {"start": id, "index": i}                  → {"ask": id, "messages", "tools"} for each question to the model, then
                                                 {"done": id, "reward", "metrics"} or {"done": id, "error", "rubric"}
    {"answer": id, "message"}                  the model's reply to the last question
    {"drop": id}                               nobody waits for this episode any more

Both generations of the library are known: packages with `load_environment` (verifiers up to 0.3) and tasksets (0.4).
"""

import asyncio
import contextvars
import importlib
import itertools
import json
import logging
import os
import queue
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
_LOCK = threading.Lock()
MODEL = "policy"
KEY = "CASCADE_POLICY_KEY"
os.environ[KEY] = "unused"


def say(event):
    with _LOCK:
        _OUT.write(json.dumps(event, default=str) + "\n")
        _OUT.flush()


class Dropped(Exception):
    pass


class Model:
    """The questions of each episode, at http://127.0.0.1:port/ID/v1."""

    def __init__(self):
        self.waiting = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, episode):
        return f"http://127.0.0.1:{self.server.server_port}/{episode}/v1"

    def ask(self, episode, body):
        tools = [tool for tool in body.get("tools") or [] if "function" in tool]
        say({"ask": episode, "messages": body["messages"], "tools": tools})
        reply = self.waiting[episode].get()
        if reply is None:
            raise Dropped
        return reply

    def handler(model):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    reply = model.ask(self.path.split("/")[1], body)
                except (Dropped, KeyError):
                    self.send_error(410)
                    return
                finished = "tool_calls" if reply.get("tool_calls") else "stop"
                usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
                choice = {"index": 0, "finish_reason": finished, "message": {"role": "assistant", **reply}}
                answer = {"id": "0", "object": "chat.completion", "created": 0, "model": MODEL}
                content = json.dumps({**answer, "choices": [choice], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        return Handler


class RubricError(Exception):
    """A function that makes up the reward raised."""


_RUBRIC_SAID = contextvars.ContextVar("what the rubric of this episode logged as an error")


class _RubricErrors(logging.Handler):
    """The older library logs an exception of a reward function, and counts 0 for it."""

    def emit(self, record):
        said = record.getMessage()
        if (
            said.startswith("Error calling")
            and "reward function" in said
            and (found := _RUBRIC_SAID.get(None)) is not None
        ):
            found.append(said)


class Legacy:
    """A package with `load_environment`."""

    def __init__(self, module, arguments):
        self.env = module.load_environment(**arguments)
        self.rows = self.env.get_dataset()
        weighed = zip(*self._functions(self.env.rubric), strict=True)
        self.counted = {getattr(function, "__name__", "") for function, weight in weighed if weight}
        listener = _RubricErrors()
        for name in ("verifiers", *(name for name in logging.root.manager.loggerDict if name.startswith("verifiers"))):
            logging.getLogger(name).addHandler(listener)

    def _functions(self, rubric):
        """The functions and weights of a rubric and of those that it is made of."""
        parts = [self._functions(part) for part in getattr(rubric, "rubrics", ())]
        functions = [*getattr(rubric, "funcs", ()), *(f for part in parts for f in part[0])]
        return functions, [*getattr(rubric, "weights", ()), *(w for part in parts for w in part[1])]

    def tasks(self, start, count):
        for index in range(start, min(start + count, len(self.rows))):
            row = self.rows[index]
            prompt = row["prompt"]
            said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            yield {"index": index, "messages": said, "tools": _functions(getattr(self.env, "oai_tools", None))}

    async def play(self, index, url):
        from verifiers.types import ClientConfig

        config = ClientConfig(api_base_url=url, api_key_var=KEY, max_retries=0)
        row = dict(self.rows[index])
        row.setdefault("example_id", index)
        if isinstance(row["prompt"], str):
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        failures = []
        _RUBRIC_SAID.set(failures)
        output = await self.env.run_rollout(row, config, MODEL, {})
        if output.get("error"):
            raise RuntimeError(str(output["error"])[:500])
        for said in failures:
            # A function of weight 0 is a metric.
            if any(f"reward function {name}:" in said for name in self.counted):
                raise RubricError(said)
        metrics = {name: value for name, value in (output.get("metrics") or {}).items() if value is not None}
        return output["reward"], metrics


class Taskset:
    """A taskset of verifiers 0.4, played by the policy in a chat without a program of its own."""

    def __init__(self, name, arguments):
        import verifiers.v1 as vf
        from verifiers.v1.harnesses.null import NullHarness

        NullHarness.setup = _nothing
        NullHarness.launch = _chat
        asked = {"taskset": {"id": name, **arguments}}
        kind = vf.env_config_type(name)
        roles = [role for role, field in kind.model_fields.items() if isinstance(field.default, vf.AgentConfig)]
        for role in roles:
            asked[role] = {"harness": {"id": "null"}, "runtime": {"type": "subprocess"}}
        self.vf = vf
        self.env = vf.load_environment(vf.resolve_env_config(asked))
        self.found = {}
        self.source = iter(self.env.taskset)

    def _task(self, index):
        while index not in self.found:
            task = next(self.source)
            self.found[task.data.idx] = task
        return self.found[index]

    def tasks(self, start, count):
        for index in range(start, start + count):
            try:
                data = self._task(index).data
            except StopIteration:
                return
            yield {"index": index, "messages": _messages(data), "tools": []}

    async def play(self, index, url):
        from verifiers.v1.clients import EvalClientConfig, ModelContext

        context = ModelContext(model=MODEL, client=EvalClientConfig(base_url=url, api_key_var=KEY))
        episode = await self.env.run_episode(self._task(index), context)
        errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
        if errors or not episode.ok:
            said = "; ".join(f"{e.type}: {e.message}" for e in errors)[:500] or "the episode did not finish"
            raise RubricError(said) if any("scoring" in e.message for e in errors) else RuntimeError(said)
        trace = episode.traces[0]
        return trace.reward, {name: value for name, value in trace.metrics.items() if value is not None}

    async def serve(self):
        self.serving = self.env.serving()
        await self.serving.__aenter__()


def _messages(data):
    prompt = data.prompt
    said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _plain(prompt or [])
    return [{"role": "system", "content": data.system_prompt}, *said] if data.system_prompt else said


def _plain(messages):
    return [m if isinstance(m, dict) else m.model_dump(exclude_none=True) for m in messages]


def _functions(tools):
    return [tool for tool in _plain(tools or []) if "function" in tool]


async def _nothing(self, runtime):
    pass


async def _chat(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data, tool_interception_url=None):
    """One question to the model, in this process: what the library's chat program does, for tasks without tools."""
    import httpx
    from verifiers.v1.runtimes import ProgramResult

    if mcp_urls:
        raise RuntimeError("the task has tools behind MCP servers, which this adapter does not call")
    async with httpx.AsyncClient(timeout=None, trust_env=False) as http:
        answer = await http.post(
            f"{endpoint.rstrip('/')}/chat/completions",
            headers={"Authorization": f"Bearer {secret}"},
            json={"model": ctx.model, "messages": _messages(data)},
        )
    answer.raise_for_status()
    return ProgramResult(exit_code=0, stdout="", stderr="")


class Bridge:
    def __init__(self, name, arguments):
        module = name.rsplit("/", 1)[-1].split("@", 1)[0].replace("-", "_")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            found = None
        legacy = hasattr(found, "load_environment")
        self.player = Legacy(found, arguments) if legacy else Taskset(name, arguments)
        self.model = Model()
        self.episodes = {}

    async def run(self):
        loop = asyncio.get_running_loop()
        lines = asyncio.Queue()

        def read():
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, json.loads(line))
            loop.call_soon_threadsafe(lines.put_nowait, None)

        threading.Thread(target=read, daemon=True).start()
        if isinstance(self.player, Taskset):
            await self.player.serve()
        say({"ready": True})
        while (request := await lines.get()) is not None:
            if "tasks" in request:
                self.list(*request["tasks"])
            elif "start" in request:
                episode = request["start"]
                self.model.waiting[episode] = queue.Queue()
                self.episodes[episode] = asyncio.create_task(self.play(episode, request["index"]))
            elif "answer" in request and request["answer"] in self.model.waiting:
                self.model.waiting[request["answer"]].put(request["message"])
            elif "drop" in request and request["drop"] in self.model.waiting:
                self.model.waiting[request["drop"]].put(None)
                self.episodes[request["drop"]].cancel()
        if isinstance(self.player, Taskset):
            await self.player.serving.__aexit__(None, None, None)

    def list(self, start, count):
        try:
            say({"tasks": list(itertools.islice(self.player.tasks(start, count), count))})
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"[:500]})

    async def play(self, episode, index):
        try:
            reward, metrics = await self.player.play(index, self.model.url(episode))
            say({"done": episode, "reward": reward, "metrics": metrics})
        except asyncio.CancelledError:
            pass
        except Exception as error:
            traceback.print_exc()
            rubric = isinstance(error, RubricError)
            say({"done": episode, "error": f"{type(error).__name__}: {error}"[:500], "rubric": rubric})
        finally:
            self.model.waiting.pop(episode, None)
            self.episodes.pop(episode, None)


def main():
    try:
        bridge = Bridge(sys.argv[1], json.loads(sys.argv[2]))
    except Exception as error:
        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {error}"[:500]})
        sys.exit(1)
    asyncio.run(bridge.run())
    os._exit(0)


if __name__ == "__main__":
    main()
