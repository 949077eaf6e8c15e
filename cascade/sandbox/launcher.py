"""The program that confines one command: `python -I -S launcher.py`, a request on stdin, the answer on stdout.

It enters new user, mount, PID, network, IPC and UTS namespaces; process 1 of the new PID namespace builds a root of
the allow-list (read-only) and a scratch directory in memory, gives up every privilege, starts the command and watches
it. When process 1 ends the kernel kills whatever else is in the namespace, whoever has forked it.

Request and answer are `marshal`led, because importing json would cost as much as starting Python. For the same
reason this imports nothing that is not needed, and nothing of this project. Each failing step is answered with
`{"broken": step}`.
"""

import ctypes
import marshal
import os
import resource
import select
import stat
import sys
import time

SCRATCH = "/scratch"
TICK = 0.02
"""Seconds between two looks at memory and CPU time."""
UID = 1000
"""Who the command is, inside."""
NOBODY = 65534
"""Who root's commands are to the kernel, so that the limit on processes binds them."""
NOT_FOUND = 127
FILES_IN_SCRATCH = 1 << 16
SIGINT, SIGKILL, SIGPIPE, SIGXCPU, SIGXFSZ = 2, 9, 13, 24, 25
DEFAULT_ACTION = 0

NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "PID": 0x20000000,
    "network": 0x40000000,
    "IPC": 0x08000000,
    "UTS": 0x04000000,
}
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8  # equal as MS_* and MOUNT_ATTR_*
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 1 << 18
DETACH = 2
MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PARENT_DEATH_SIGNAL, NO_NEW_PRIVILEGES, SECCOMP, FILTER = 1, 38, 22, 2

libc = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """A step that the kernel refused; the text is shown to the user."""


def check(result: int, step: str) -> int:
    if result < 0:
        raise Broken(f"{step} ({os.strerror(ctypes.get_errno())})")
    return result


def main() -> None:
    request = marshal.loads(sys.stdin.buffer.read())
    for number in (SIGINT, SIGPIPE, SIGXFSZ):
        # Python handles the first, which the command could send to process 1, and ignores the others, which the
        # command would inherit.
        libc.signal(number, DEFAULT_ACTION)
    try:
        if request.get("probe"):
            answer({"lacks": [name for name in NAMESPACES if not can_unshare(name)]})
            return
        die_with_parent()
        enter_namespaces(request["become_nobody"])
        die_with_parent()  # new credentials have cleared it
        process_one = os.fork()
        if process_one == 0:
            answer(run(request))
            os._exit(0)
    except (Broken, OSError) as error:
        answer({"broken": str(error)})
        os._exit(0)
    for descriptor in request["streams"] or ():
        os.close(descriptor)
    os.waitpid(process_one, 0)


def answer(value: dict) -> None:
    sys.stdout.buffer.write(marshal.dumps(value))
    sys.stdout.buffer.flush()


def can_unshare(name: str) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(libc.unshare(NAMESPACES["user"] | NAMESPACES[name]) != 0)
    return os.waitpid(child, 0)[1] == 0


def die_with_parent() -> None:
    check(libc.prctl(PARENT_DEATH_SIGNAL, SIGKILL, 0, 0, 0), "dying with the parent (prctl)")


def enter_namespaces(become_nobody: bool) -> None:
    """After this the process has every privilege in its own namespaces, and none outside."""
    uid, gid = os.geteuid(), os.getegid()
    go, ready = os.pipe()
    mapper = 0
    if become_nobody:
        # Only a process of the outer namespace may map a user other than itself.
        launcher = os.getpid()
        mapper = os.fork()
        if mapper == 0:
            os.close(ready)
            os.read(go, 1)
            write(f"/proc/{launcher}/uid_map", f"0 {uid} 1\n{UID} {NOBODY} 1\n")
            write(f"/proc/{launcher}/gid_map", f"0 {gid} 1\n{UID} {NOBODY} 1\n")
            os._exit(0)
    os.close(go)
    flags = sum(NAMESPACES.values())
    check(libc.unshare(flags), "user, mount, PID, network, IPC and UTS namespaces (unshare)")
    os.close(ready)
    if mapper:
        if os.waitpid(mapper, 0)[1] != 0:
            raise Broken("mapping the user of the namespace (uid_map)")
        return
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{UID} {uid} 1\n")
    write("/proc/self/gid_map", f"{UID} {gid} 1\n")


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def run(request: dict) -> dict:
    """Process 1: everything from the new root to the answer."""
    limits = request["limits"]
    try:
        processes = build_root(request["readable"], limits["memory_bytes"])
        drop_privileges(request["become_nobody"], request["seccomp"])
        for path, content in request["files"].items():
            if os.path.dirname(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
    except (Broken, OSError) as error:
        return {"broken": str(error)}
    return Watch(request, processes).finish()


def build_root(readable: list[str], scratch_bytes: int) -> int:
    """Change to a root of the allow-list and an empty scratch; returns a descriptor of the namespace's /proc,
    which the command cannot see."""
    check(libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None), "private mounts (mount)")
    # Held open, because the new root may be mounted over where they lie.
    sources = {path: os.open(path, os.O_PATH) for path in readable if not os.path.islink(path)}
    links = {path: os.readlink(path) for path in readable if os.path.islink(path)}
    root = "/tmp"
    mount("tmpfs", root, NO_SUID | NO_DEVICES, "size=1m,mode=755")
    os.mkdir(root + "/proc")
    mount("proc", root + "/proc", NO_SUID | NO_DEVICES | NO_EXEC, "")
    processes = os.open(root + "/proc", os.O_RDONLY | os.O_DIRECTORY)
    mapped = root + "/proc/self/fd/%d"
    for path, source in sources.items():
        target = root + path
        if stat.S_ISDIR(os.fstat(source).st_mode):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT))
        check(
            libc.mount((mapped % source).encode(), target.encode(), None, BIND | RECURSIVE, None),
            f"showing {path} to the command (bind mount)",
        )
        no_devices = 0 if path.startswith("/dev/") else NO_DEVICES
        set_attributes(target, READ_ONLY | NO_SUID | no_devices)
        os.close(source)
    for path, to in links.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(to, root + path)
    check(libc.umount2((root + "/proc").encode(), DETACH), "hiding /proc (umount2)")
    os.rmdir(root + "/proc")
    os.mkdir(root + SCRATCH)
    options = f"size={scratch_bytes},nr_inodes={FILES_IN_SCRATCH},mode=700,uid={UID},gid={UID}"
    mount("tmpfs", root + SCRATCH, NO_SUID | NO_DEVICES, options)
    set_attributes(root, READ_ONLY, recursive=False)
    os.chdir(root)
    check(libc.pivot_root(b".", b"."), "a root of its own (pivot_root)")
    check(libc.umount2(b".", DETACH), "leaving the old root (umount2)")
    os.chdir(SCRATCH)
    return processes


def mount(kind: str, target: str, flags: int, options: str) -> None:
    check(
        libc.mount(kind.encode(), target.encode(), kind.encode(), flags, options.encode()),
        f"mounting a {kind} of its own (mount)",
    )


def set_attributes(path: str, attributes: int, recursive: bool = True) -> None:
    arguments = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr: set, clear, propagation, user namespace
    flags = AT_RECURSIVE if recursive else 0
    done = libc.syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(arguments), ctypes.sizeof(arguments))
    check(done, "read-only mounts (mount_setattr)")


def drop_privileges(become_nobody: bool, instructions: bytes) -> None:
    if become_nobody:
        os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    die_with_parent()  # new credentials have cleared it
    check(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no new privileges (prctl)")
    code = ctypes.create_string_buffer(instructions, len(instructions))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]  # noqa: RUF012

    program = Program(len(instructions) // 8, ctypes.addressof(code))
    check(libc.prctl(SECCOMP, FILTER, ctypes.byref(program), 0, 0), "system call filters (seccomp)")


class Watch:
    """The running command, its pipes, and the limits that the kernel does not keep by itself."""

    def __init__(self, request: dict, processes: int):
        self.request, self.limits, self.processes = request, request["limits"], processes
        self.output: dict[int, list[bytes]] = {1: [], 2: []}
        self.room = self.limits["output_bytes"]
        self.input = memoryview(request["stdin"])
        self.poll = select.poll()
        self.pipes: dict[int, int] = {}
        """Our end of each open pipe, and which of the command's streams it is."""
        self.began = time.monotonic()
        self.command = self.start()

    def start(self) -> int:
        theirs: dict[int, int] = {}
        if self.request["streams"]:
            theirs[0], theirs[1] = self.request["streams"]
        else:
            theirs[0], ours = os.pipe()
            self.add(ours, 0, select.POLLOUT)
        for stream in (1, 2):
            if stream not in theirs:
                ours, theirs[stream] = os.pipe()
                self.add(ours, stream, select.POLLIN)
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                # First out of the way of 0, 1 and 2, then into their places.
                high = {stream: os.dup2(descriptor, 1000 + stream) for stream, descriptor in theirs.items()}
                for stream, descriptor in high.items():
                    os.dup2(descriptor, stream)
                os.closerange(3, 1 << 12)
                self.set_limits()
                os.execvpe(self.request["command"][0], self.request["command"], self.request["environment"])
            except Exception as error:
                os.write(2, f"cannot run {self.request['command'][0]}: {error}\n".encode())
            finally:
                os._exit(NOT_FOUND)
        for descriptor in theirs.values():
            os.close(descriptor)
        return child

    def add(self, descriptor: int, stream: int, event: int) -> None:
        os.set_blocking(descriptor, False)
        self.pipes[descriptor] = stream
        self.poll.register(descriptor, event)

    def set_limits(self) -> None:
        limits = self.limits
        seconds = int(limits["cpu_seconds"]) + 1
        for what, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, 128),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_AS, limits["memory_bytes"]),
            (resource.RLIMIT_FSIZE, limits["file_bytes"]),
            # Process 1 is counted too, and the launcher where both are the same user.
            (resource.RLIMIT_NPROC, limits["processes"] + (1 if self.request["become_nobody"] else 2)),
        ):
            resource.setrlimit(what, (value, value))

    def finish(self) -> dict:
        ended, status = self.watch()
        while self.reap(0)[0]:
            pass
        self.drain()
        seconds = time.monotonic() - self.began
        if self.room < 0:
            ended = "output"
        if not ended:
            ended = "exited" if os.WIFEXITED(status) else "signalled"
            if ended == "signalled" and (os.WTERMSIG(status) == SIGXCPU or self.cpu_seconds() >= self.limits["cpu_seconds"]):
                ended = "cpu_time"
        return {
            "exit_code": os.WEXITSTATUS(status) if ended == "exited" else None,
            "ended": ended,
            "seconds": seconds,
            "stdout": b"".join(self.output[1]),
            "stderr": b"".join(self.output[2]),
            "files": {path: content for path in self.request["keep"] if (content := self.kept(path)) is not None},
        }

    def watch(self) -> tuple[str, int]:
        """Until the command has ended: why it was ended (empty: by itself) and its status. Then all is killed."""
        status, ended, look = 0, "", self.began + TICK
        while True:
            now = time.monotonic()
            if now - self.began >= self.limits["wall_seconds"]:
                ended = "wall_time"
            elif now >= look:
                look = now + TICK
                ended = self.excess()
            if self.room < 0:
                ended = "output"
            if ended:
                break
            for descriptor, _ in self.poll.poll(TICK * 1000):
                self.transfer(descriptor)
            gone, code = self.reap(os.WNOHANG)
            while gone > 0:
                if gone == self.command:
                    if self.others():
                        os.kill(-1, SIGKILL)
                    return "", code
                gone, code = self.reap(os.WNOHANG)
        os.kill(-1, SIGKILL)
        return ended, status

    def reap(self, options: int) -> tuple[int, int]:
        try:
            return os.waitpid(-1, options)
        except ChildProcessError:
            return 0, 0

    def transfer(self, descriptor: int) -> None:
        """Move what a pipe takes or holds; close it at its end."""
        stream = self.pipes[descriptor]
        try:
            if stream == 0:
                self.input = self.input[os.write(descriptor, self.input[: 1 << 16]) :] if self.input else self.input
                if self.input:
                    return
            else:
                data = os.read(descriptor, 1 << 16)
                if data:
                    self.output[stream].append(data[: max(self.room, 0)])
                    self.room -= len(data)
                    return
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # the command reads no more
        self.poll.unregister(descriptor)
        del self.pipes[descriptor]
        os.close(descriptor)

    def drain(self) -> None:
        """What dead processes have left in the pipes."""
        for descriptor in [d for d, stream in self.pipes.items() if stream]:
            while descriptor in self.pipes and self.room >= 0:
                self.transfer(descriptor)

    def others(self) -> list[int]:
        """The processes of the namespace but for this one."""
        return [int(name) for name in os.listdir(self.processes) if name.isdigit() and name != "1"]

    def excess(self) -> str:
        pages, ticks = 0, 0
        for process in self.others():
            try:
                pages += int(self.look(process, "statm").split()[1])
                fields = self.look(process, "stat").rpartition(")")[2].split()
            except (OSError, IndexError):
                continue  # it has just ended
            ticks += sum(map(int, fields[11:15]))  # its own user and system time, and its children's
        scratch = os.statvfs(SCRATCH)
        memory = pages * resource.getpagesize() + (scratch.f_blocks - scratch.f_bfree) * scratch.f_frsize
        if memory > self.limits["memory_bytes"]:
            return "memory"
        if self.cpu_seconds() + ticks / os.sysconf("SC_CLK_TCK") > self.limits["cpu_seconds"]:
            return "cpu_time"
        return ""

    def cpu_seconds(self) -> float:
        """Of the processes that have been waited for."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def look(self, process: int, name: str) -> str:
        descriptor = os.open(f"{process}/{name}", os.O_RDONLY, dir_fd=self.processes)
        try:
            return os.read(descriptor, 4096).decode(errors="replace")
        finally:
            os.close(descriptor)

    def kept(self, path: str) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return None
        with open(descriptor, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


if __name__ == "__main__":
    main()
