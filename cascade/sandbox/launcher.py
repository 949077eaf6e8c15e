"""The process that sandboxes commands: `python -I -S launcher.py` reads requests on stdin, and answers each on stdout.

For each request it forks a child, which enters new user, mount, PID, network, IPC and UTS namespaces. Process 1 of the
new PID namespace builds a root with the allowed paths (read-only) and a scratch directory in memory, drops all
privileges, starts the command and monitors it. When process 1 ends, the kernel kills every other process of the
namespace.

Requests and answers are serialised with `marshal`, after 8 bytes of length; importing json would take as long as
starting Python. For the same reason this file, `namespaces` and `watch` import no more than they need, and nothing of
this project: they are modules of a script, not of the package.
"""

import marshal
import os
import select
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import namespaces  # type: ignore[import-not-found]
import watch  # type: ignore[import-not-found]

SIGINT, SIGPIPE, SIGXFSZ = 2, 13, 25
DEFAULT_ACTION = 0


def main() -> None:
    for number in (SIGINT, SIGPIPE, SIGXFSZ):
        # Python handles SIGINT, which the command could send to process 1, and ignores the other two, which the
        # command would inherit.
        namespaces.libc.signal(number, DEFAULT_ACTION)
    while length := os.read(0, 8):
        request = marshal.loads(read(int.from_bytes(length, "little")))
        child = os.fork()
        if child == 0:
            confine(request)
        for descriptor in request["streams"]:
            os.close(descriptor)
        if not ends_before_caller(child):
            return  # the child ends with this process
        if os.waitpid(child, 0)[1] != 0:
            answer({"broken": "the process that watches the command died; is there enough memory?"})


def read(count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        data += os.read(0, count - len(data))
    return bytes(data)


def ends_before_caller(child: int) -> bool:
    """Wait for `child`. False if stdin is closed first, because the caller has ended."""
    poll = select.poll()
    ended = os.pidfd_open(child)
    poll.register(ended, select.POLLIN)
    poll.register(0, 0)
    events = dict(poll.poll())
    os.close(ended)
    return ended in events


def confine(request: dict) -> None:
    """The outermost process of one execution. Does not return; exits with 0 after it has answered."""
    try:
        if request["probe"]:
            answer({"lacks": [name for name in namespaces.FLAGS if not can_unshare(name)]})
            os._exit(0)
        namespaces.die_with_parent()
        namespaces.enter(request["become"])
        namespaces.die_with_parent()  # the change of credentials has cleared the setting
        process_one = os.fork()
        if process_one == 0:
            answer(run(request))
            os._exit(0)
        for descriptor in request["streams"]:
            os.close(descriptor)
        os._exit(os.waitpid(process_one, 0)[1] != 0)
    except (namespaces.Broken, OSError) as error:
        answer({"broken": str(error)})
        os._exit(0)
    finally:
        os._exit(1)


def answer(value: dict) -> None:
    data = marshal.dumps(value)
    message = memoryview(len(data).to_bytes(8, "little") + data)
    while message:
        message = message[os.write(1, message) :]


def can_unshare(name: str) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(namespaces.libc.unshare(namespaces.FLAGS["user"] | namespaces.FLAGS[name]) != 0)
    return os.waitpid(child, 0)[1] == 0


def run(request: dict) -> dict:
    """Process 1: build the root, run the command, return the answer."""
    limits = request["limits"]
    try:
        processes = namespaces.build_root(
            request["readable"], request["scratch"], limits["memory_bytes"], request["roots"]
        )
        namespaces.drop_privileges(request["become"], request["seccomp"])
        for path, content in request["files"].items():
            if os.path.dirname(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
    except (namespaces.Broken, OSError) as error:
        return {"broken": str(error)}
    return watch.Watch(request, processes).finish()


if __name__ == "__main__":
    main()
