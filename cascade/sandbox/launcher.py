"""The process that sandboxes commands: `python -I -S launcher.py` gets requests on the socket that is its stdin, and
answers each there.

It enters new user, mount, PID, network, IPC and UTS namespaces and builds a root with the allowed paths (read-only).
Its child, process 1 of these namespaces, is the interpreter from which commands are forked and which monitors them
(`watch`). For each request it makes a scratch directory in memory and forks a process, which drops all privileges,
reads the request, writes its files, and becomes the command: a Python program runs in that fork (`interpreter`),
anything else is executed. At the end process 1 kills all other processes of its namespace, waits for them, and removes
the scratch directory.

Nothing of a command stays for the next. Process 1 reads of a request no more than its limits, so what is forked from it
holds nothing else. In the namespaces no command has a privilege, and sockets, the only objects there that its system
calls can make, end with its processes.

Messages are serialised with `marshal`, after 8 bytes of length; importing json would take as long as starting Python.
For the same reason this file and the modules beside it import no more than they need, and nothing of this project: they
are modules of a script, not of the package.
"""

import _socket  # type: ignore[import-not-found] # socket imports enum and selectors
import marshal
import os
import select
import stat
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import interpreter  # type: ignore[import-not-found]
import namespaces  # type: ignore[import-not-found]
import watch  # type: ignore[import-not-found]

CHANNEL = 0
SIGINT, SIGPIPE, SIGXFSZ = 2, 13, 25
DEFAULT_ACTION = 0
INT_BYTES = 4
FIRST_HIGH = 100
NOT_FOUND = 127
OWN = ("interpreter", "namespaces", "watch")


def main() -> tuple:
    """Returns in the process of a Python program alone: its code and its namespace."""
    for number in (SIGINT, SIGPIPE, SIGXFSZ):
        # Python handles SIGINT, which the command could send to process 1, and ignores the other two, which the
        # command would inherit.
        namespaces.libc.signal(number, DEFAULT_ACTION)
    settings, _ = receive()
    if settings["probe"]:
        answer({"lacks": [name for name in namespaces.FLAGS if not can_unshare(name)]})
        os._exit(0)
    try:
        interpreter.prepare()
        namespaces.enter(settings["become"])
        process_one = os.fork()
        if process_one:
            os.close(CHANNEL)
            os.waitpid(process_one, 0)
            os._exit(0)
        namespaces.die_with_parent()
        processes = namespaces.build_root(settings["readable"], settings["scratch"], settings["roots"])
        last_process = namespaces.open_last_process(processes)
        filters = namespaces.seccomp_program(settings["seccomp"])
        interpreter.settle(OWN)
        answer({"ready": True})
        while is_asked():
            limits, (request, *streams) = receive()
            namespaces.mount_scratch(settings["scratch"], limits["memory_bytes"])
            namespaces.count_processes_anew(last_process)
            watcher = watch.Watch(settings, limits, processes, streams)
            command = os.fork()
            if command == 0:
                return become_command(settings, limits, request, streams, filters)
            ended = watcher.finish(command, CHANNEL)
            if ended is None:
                break  # the caller has ended
            if limits["keeps"]:
                send_files(settings, request, filters)
            os.close(request)
            namespaces.unmount(settings["scratch"])
            answer(ended)
    except (namespaces.Broken, OSError) as error:
        answer({"broken": str(error)})
    os._exit(0)  # and with process 1 all others of its namespace


def is_asked() -> bool:
    """Wait for a request, and leave it unread. False where the caller has ended."""
    poll = select.poll()
    poll.register(CHANNEL, select.POLLIN)
    [(_, event)] = poll.poll()
    return not event & select.POLLHUP


def receive() -> tuple:
    """A message, and the descriptors that came with it."""
    channel = _socket.socket(fileno=CHANNEL)
    head, extra, _, _ = channel.recvmsg(8, _socket.CMSG_SPACE(4 * INT_BYTES))
    descriptors = [
        int.from_bytes(data[at : at + INT_BYTES], sys.byteorder)
        for _, _, data in extra
        for at in range(0, len(data), INT_BYTES)
    ]
    length = int.from_bytes(head, "little")
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            os._exit(1)  # the caller has ended
        view = view[count:]
    channel.detach()
    return marshal.loads(data), descriptors


def answer(value: dict) -> None:
    data = marshal.dumps(value)
    message = memoryview(len(data).to_bytes(8, "little") + data)
    while message:
        message = message[os.write(CHANNEL, message) :]


def can_unshare(name: str) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(namespaces.libc.unshare(namespaces.FLAGS["user"] | namespaces.FLAGS[name]) != 0)
    return os.waitpid(child, 0)[1] == 0


def become_command(settings: dict, limits: dict, request_file: int, streams: list, filters: object) -> tuple:
    """In the command's own process, from which nothing comes back but by its streams. Does not return where the command
    is no Python program."""
    try:
        namespaces.drop_privileges(settings["become"], filters)
        request = content_of(request_file)
        for path, content in request["files"].items():
            if "/" in path:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, memoryview(content))
        os.setsid()
        # First to high numbers, so that none is overwritten, then to 0, 1 and 2.
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, FIRST_HIGH + number)
        for number in range(len(streams)):
            os.dup2(FIRST_HIGH + number, number)
        os.closerange(3, 1 << 20)
        watch.set_limits(limits, others=0 if settings["become"] is not None else len(("launcher", "process 1")))
    except BaseException as error:
        answer({"broken": str(error)})
        os._exit(1)
    command, python = request["command"], settings["python"]
    try:
        if command[: len(python)] == python and len(command) > len(python):
            interpreter.restart()
            try:
                program = interpreter.load(command[len(python) :])
            except BaseException as error:
                interpreter.finish(error.with_traceback(None))
            if program is not None:
                return program
            namespaces.libc.signal(SIGPIPE, DEFAULT_ACTION)
            namespaces.libc.signal(SIGXFSZ, DEFAULT_ACTION)
        os.execvp(command[0], command)
    except Exception as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    os._exit(NOT_FOUND)


def content_of(request_file: int) -> dict:
    size = os.fstat(request_file).st_size
    data = os.pread(request_file, size, 0)
    while len(data) < size:
        data += os.pread(request_file, size, len(data))
    return marshal.loads(data)


def write(path: str, content: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    while content:
        content = content[os.write(descriptor, content) :]
    os.close(descriptor)


def send_files(settings: dict, request_file: int, filters: object) -> None:
    """The files that the caller asks for now, by a process without privileges: the command has made them."""
    child = os.fork()
    if child == 0:
        try:
            namespaces.drop_privileges(settings["become"], filters)
            paths = content_of(request_file)["keep"]
            answer({path: content for path in paths if (content := kept(path)) is not None})
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise namespaces.Broken("reading the files that are kept")


def kept(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


if __name__ == "__main__":
    program = main()
    try:
        exec(*program)
    except BaseException as error:
        interpreter.finish(error)
    interpreter.finish(None)
