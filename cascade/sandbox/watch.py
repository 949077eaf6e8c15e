"""Monitors a command from process 1: the limits that the kernel does not enforce by itself, and the end of all."""

import os
import resource
import select
import stat
import time

TICK = 0.02
"""Seconds between two checks of memory and CPU time."""
SIGKILL = 9
PROCESS_ONE = "1"


def set_limits(limits: dict, others: int) -> None:
    """In the command's process. `others`: how many processes of the same user are not the command's."""
    seconds = int(limits["cpu_seconds"]) + 1
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        # Its output is a file as well.
        (resource.RLIMIT_FSIZE, max(limits["file_bytes"], limits["output_bytes"] + 1)),
        (resource.RLIMIT_NPROC, limits["processes"] + others),
    ):
        resource.setrlimit(what, (value, value))


class Watch:
    """`processes`: a descriptor of the namespace's /proc, which the command cannot see. `streams`: descriptors of the
    command's input, output and error."""

    def __init__(self, settings: dict, limits: dict, processes: int, streams: list):
        self.scratch, self.limits, self.processes = settings["scratch"], limits, processes
        # Where they are pipes, the command alone may hold them.
        self.outputs = [stream for stream in streams[1:] if stat.S_ISREG(os.fstat(stream).st_mode)]
        self.streams = streams
        self.began, self.used = time.monotonic(), self.waited_for()

    def finish(self, command: int, caller: int) -> dict | None:
        """Wait for the command to end, or end it; then kill all other processes of the namespace, and wait for them.
        None if the caller, a socket, has been closed."""
        for stream in self.streams:
            if stream not in self.outputs:
                os.close(stream)
        ended, status = self.watch(command, caller)
        if ended is None:
            return None
        seconds = time.monotonic() - self.began
        try:
            # None can be forked past this: the kernel lets no process fork that is about to be killed.
            os.kill(-1, SIGKILL)
            while True:
                os.waitpid(-1, 0)  # others are this process's children too, once their parents have ended
        except (ProcessLookupError, ChildProcessError):
            pass
        if self.written() > self.limits["output_bytes"]:
            ended = "output"
        for stream in self.outputs:
            os.close(stream)
        if not ended:
            ended = "exited" if os.WIFEXITED(status) else "signalled"
            if ended == "signalled" and self.waited_for() - self.used >= self.limits["cpu_seconds"]:
                ended = "cpu_time"  # the kernel's limit came first
        return {
            "exit_code": os.WEXITSTATUS(status) if ended == "exited" else None,
            "ended": ended,
            "seconds": seconds,
        }

    def watch(self, command: int, caller: int) -> tuple:
        """The exceeded limit (empty: none, None: the caller has gone) and the exit status, if it has ended."""
        poll = select.poll()
        descriptor = os.pidfd_open(command)
        poll.register(descriptor, select.POLLIN)
        poll.register(caller, 0)
        look = self.began + TICK
        try:
            while True:
                for at, _ in poll.poll(TICK * 1000):
                    return ("", os.waitpid(command, 0)[1]) if at == descriptor else (None, None)
                now = time.monotonic()
                if now - self.began >= self.limits["wall_seconds"]:
                    return "wall_time", None
                if now >= look:
                    look = now + TICK
                    if ended := self.excess():
                        return ended, None
                self.reap(command)
        finally:
            os.close(descriptor)

    def reap(self, command: int) -> None:
        """Wait for processes whose parent has ended, so that they do not count; not for the command itself."""
        while True:
            try:
                gone = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if gone is None or gone.si_pid == command:
                return
            os.waitpid(gone.si_pid, 0)

    def others(self) -> list[int]:
        """The processes of the command."""
        return [int(name) for name in os.listdir(self.processes) if name.isdigit() and name != PROCESS_ONE]

    def excess(self) -> str:
        pages, ticks = 0, 0
        for process in self.others():
            try:
                pages += int(self.look(process, "statm").split()[1])
                fields = self.look(process, "stat").rpartition(")")[2].split()
            except (OSError, IndexError):
                continue  # the process has just ended
            ticks += sum(map(int, fields[11:15]))  # user and system time of the process and its waited-for children
        if self.written() > self.limits["output_bytes"]:
            return "output"
        scratch = os.statvfs(self.scratch)
        memory = pages * resource.getpagesize() + (scratch.f_blocks - scratch.f_bfree) * scratch.f_frsize
        if memory > self.limits["memory_bytes"]:
            return "memory"
        if self.waited_for() - self.used + ticks / os.sysconf("SC_CLK_TCK") > self.limits["cpu_seconds"]:
            return "cpu_time"
        return ""

    def written(self) -> int:
        return sum(os.fstat(stream).st_size for stream in self.outputs)

    def waited_for(self) -> float:
        """CPU time of all processes that have been waited for, those of earlier commands too."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def look(self, process: int, name: str) -> str:
        descriptor = os.open(f"{process}/{name}", os.O_RDONLY, dir_fd=self.processes)
        try:
            return os.read(descriptor, 4096).decode(errors="replace")
        finally:
            os.close(descriptor)
