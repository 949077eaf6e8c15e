"""One of two processes that call each other by pipe, a JSON line each way: `check(candidate)` and the candidate.

A request says what is to be done with an object of the other side: the candidate's function (0), or what has crossed
as a reference before, since it is no data: a closure, a generator, an instance. An answer is a value or what was
raised, and what the lists, dictionaries and sets among the arguments have become, so that a change in place is seen.
While a side waits for an answer it serves the other's requests, for a test may pass a function.

A reference can be called, iterated, indexed, have a length and attributes; it never says that it equals anything.
"""

from __future__ import annotations

import builtins
import json
import sys

from values import Crossing, contents, decode, encode, renew  # type: ignore[import-not-found]

TYPE_CHECKING = False  # importing typing takes longer than Python takes to start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_LINE = 1 << 26
"""Characters of one message."""
MAX_TEXT = 10_000


class Gone(BaseException):
    """The other process no longer answers, or not as agreed. No test can catch it by mistake."""


class Unsendable(BaseException):
    """An argument that cannot be sent, for it is too deep."""


class Peer:
    """`reads`, `writes`: the pipes. `opens(object, name)`: whether the other side may have this attribute. `known`:
    where exceptions are looked for before the built-in ones. `timed` is called before and after each call."""

    def __init__(
        self,
        reads: Any,
        writes: Any,
        opens: Callable[[Any, str], bool],
        known: dict[str, Any],
        timed: Callable[[bool], None] = lambda begins: None,
    ):
        self.reads, self.writes, self.opens, self.known, self.timed = reads, writes, opens, known, timed
        self.objects: list[Any] = [None]
        """What the other side may refer to, by handle; 0 is the function."""
        self.handles: dict[int, int] = {}

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.writes.write(json.dumps(message) + "\n")
            self.writes.flush()
        except (BrokenPipeError, ValueError):
            raise Gone from None

    def receive(self) -> dict[str, Any]:
        try:
            line = self.reads.readline(MAX_LINE)
            message = json.loads(line) if line.endswith("\n") else None
        except (ValueError, RecursionError, OSError):
            raise Gone from None
        if not isinstance(message, dict):
            raise Gone
        return message

    def serve(self) -> None:
        """Answer requests until there are none."""
        for line in self.reads:
            self.answer(json.loads(line))

    def call(self, handle: int, *args: Any, **kwargs: Any) -> Any:
        return self.request({"do": "call", "on": handle}, args, kwargs)

    def request(self, message: dict[str, Any], args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """What the other side answers. Raises what was raised there, and Gone."""
        crossing = Message(self)
        try:
            message |= {"args": [encode(arg, crossing) for arg in args]}
            message |= {"kwargs": [[name, encode(arg, crossing)] for name, arg in (kwargs or {}).items()]}
        except (TypeError, RecursionError) as error:
            raise Unsendable(str(error)) from None
        self.send(message)
        result = self.receive()
        while "do" in result:
            self.answer(result)
            result = self.receive()
        try:
            changed = [(crossing.met[number], decode(now, crossing)) for number, now in result.get("changed", ())]
            value = decode(result.get("value"), crossing)
        except (ValueError, TypeError, RecursionError, IndexError, KeyError, AttributeError):
            raise Gone from None
        for container, now in changed:
            renew(container, now)
        if "raised" in result:
            raise revived(result, self)
        return value

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the other side asks for, and tell it what came of it."""
        crossing = Message(self)
        self.timed(True)
        try:
            result = self.done(message, crossing)
        except Gone:
            raise
        except BaseException as error:
            result = described(error)
        self.timed(False)
        try:
            result["changed"] = self.changes(crossing)
            if "value" in result:
                result["value"] = encode(result["value"], crossing)
        except BaseException as error:
            result = described(error)
        self.send(result)

    def done(self, message: dict[str, Any], crossing: Message) -> dict[str, Any]:
        args = [decode(arg, crossing) for arg in message["args"]]
        kwargs = {name: decode(arg, crossing) for name, arg in message["kwargs"]}
        crossing.sent = crossing.holding()
        it, what = self.objects[message["on"]], message["do"]
        if what == "call":
            return {"value": it(*args, **kwargs)}
        if what == "iterate":
            return {"value": iter(it)}
        if what == "next":
            return {"value": next(it)}
        if what in SEQUENCE:
            if not self.opens(it, what):
                raise TypeError(f"{type(it).__name__!r} object has no {what}")
            return {"value": SEQUENCE[what](it, *args)}
        name = args[0]
        if not isinstance(name, str) or name.startswith("_") or not self.opens(it, name):
            raise AttributeError(f"{type(it).__name__!r} object has no attribute {name!r}")
        if what == "set":
            setattr(it, name, args[1])
            return {"value": None}
        return {"value": getattr(it, name)}

    def changes(self, crossing: Message) -> list[Any]:
        """[number, content now] of every container among the arguments, if any has changed."""
        now = crossing.holding()
        if now == crossing.sent:
            return []
        return [[number, content] for number, content in enumerate(now)]


def _set_item(it: Any, key: Any, value: Any) -> None:
    it[key] = value


SEQUENCE: dict[str, Callable[..., Any]] = {
    "__len__": len,
    "__getitem__": lambda it, key: it[key],
    "__setitem__": _set_item,
}
"""What a reference has in common with lists and dictionaries."""


class Message(Crossing):
    """What crosses in one message and its answer, references to what is no data among it."""

    def __init__(self, peer: Peer):
        super().__init__()
        self.peer = peer
        self.sent: list[Any] = []
        """What each container among the arguments held when it came."""

    def holding(self) -> list[Any]:
        """What each container that came in an argument holds, by number; what they hold now is numbered behind them."""
        return [contents(container, self) for container in self.met[: len(self.sent) or None]]

    def refer(self, value: Any) -> Any:
        if type(value) is Remote:
            return {"yours": object.__getattribute__(value, "_handle")}
        handle = self.peer.handles.setdefault(id(value), len(self.peer.objects))
        if handle == len(self.peer.objects):
            self.peer.objects.append(value)
        return {"mine": handle}

    def follow(self, reference: Any) -> Any:
        [(whose, handle)] = reference.items()
        if whose == "yours" and isinstance(handle, int) and 0 <= handle < len(self.peer.objects):
            return self.peer.objects[handle]
        if whose == "mine" and isinstance(handle, int):
            return Remote(self.peer, handle)
        return super().follow(reference)


class Remote:
    """What the other side holds. It is no data: it equals itself alone, and is neither true nor false."""

    def __init__(self, peer: Peer, handle: int):
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_handle", handle)

    def _ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        peer = object.__getattribute__(self, "_peer")
        return peer.request({"do": what, "on": object.__getattribute__(self, "_handle")}, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("call", *args, **kwargs)

    def __iter__(self) -> Any:
        return self._ask("iterate")

    def __next__(self) -> Any:
        return self._ask("next")

    def __len__(self) -> int:
        length: int = self._ask("__len__")
        return length

    def __getitem__(self, key: Any) -> Any:
        return self._ask("__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("__setitem__", key, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __bool__(self) -> bool:
        raise TypeError("a value that is no data is neither true nor false")


def described(error: BaseException) -> dict[str, Any]:
    """An exception as a message: its type and those it extends, its arguments where they are data, its text."""
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException:
        text = ""
    try:
        args = [encode(arg) for arg in error.args]
        if isinstance(error, OSError) and error.filename is not None:
            args.append(encode(error.filename))
        state = [[name, encode(value)] for name, value in vars(error).items()]
    except BaseException:
        args, state = [text], []
    names = [kind.__name__ for kind in type(error).__mro__ if kind not in (object, BaseException)]
    return {"raised": type(error).__name__, "types": names, "text": text, "arguments": args, "state": state}


def revived(result: dict[str, Any], peer: Peer) -> BaseException:
    """The exception that a message describes: of the first type of its own that is known here."""
    text = str(result.get("text"))
    try:
        kind = next(filter(None, (_exception(name, peer.known) for name in result["types"])), None)
        args = [decode(arg) for arg in result["arguments"]]
        state = {name: decode(value) for name, value in result["state"]}
    except (ValueError, TypeError, RecursionError, KeyError, AttributeError):
        raise Gone from None
    if kind is None:
        return RuntimeError(f"{result['raised']}: {text}")
    error = _made(kind, args, state)
    if str(error)[:MAX_TEXT] != text:
        error = _made(type(kind.__name__, (kind,), {"__str__": lambda self: text}), args, state)
    return error


def _made(kind: Any, args: list[Any], state: dict[Any, Any]) -> BaseException:
    try:
        error = kind(*args)
    except Exception:
        error = kind.__new__(kind)
    if not isinstance(error, OSError):
        error.args = tuple(args)
    for name, value in state.items():
        if isinstance(name, str) and not name.startswith("__"):
            setattr(error, name, value)
    return error


def _exception(name: Any, known: dict[str, Any]) -> Any:
    for found in (known.get(name), getattr(builtins, str(name), None)):
        if isinstance(found, type) and issubclass(found, (Exception, SystemExit, KeyboardInterrupt)):
            return found
    for module in ("json", "decimal", "zlib", "struct", "queue", "csv", "statistics", "binascii"):
        found = getattr(sys.modules.get(module), str(name), None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None
