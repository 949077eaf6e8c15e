"""Runs the command in process 1: its pipes, and the limits that the kernel does not enforce by itself."""

import os
import resource
import select
import stat
import time

TICK = 0.02
"""Seconds between two checks of memory and CPU time."""
NOT_FOUND = 127
SIGKILL = 9


class Watch:
    """Starts and monitors a command. `processes`: a descriptor of the namespace's /proc, invisible to the command."""

    def __init__(self, request: dict, processes: int):
        self.request, self.limits, self.processes = request, request["limits"], processes
        self.output: dict[int, list[bytes]] = {1: [], 2: []}
        self.room = self.limits["output_bytes"]
        self.input = memoryview(request["stdin"])
        self.poll = select.poll()
        self.pipes: dict[int, int] = {}
        """This process's end of each open pipe → the command's stream (0, 1 or 2)."""
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
                # First to high numbers, so that none is overwritten, then to 0, 1 and 2.
                high = {stream: os.dup2(descriptor, 100 + stream) for stream, descriptor in theirs.items()}
                for stream, descriptor in high.items():
                    os.dup2(descriptor, stream)
                os.closerange(3, 1 << 20)
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
            # Process 1 is counted too, and so is the launcher if both have the same user.
            (resource.RLIMIT_NPROC, limits["processes"] + (2 if self.request["become"] is None else 1)),
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
            if ended == "signalled" and self.cpu_seconds() >= self.limits["cpu_seconds"]:
                ended = "cpu_time"  # the kernel's limit came first
        return {
            "exit_code": os.WEXITSTATUS(status) if ended == "exited" else None,
            "ended": ended,
            "seconds": seconds,
            "stdout": b"".join(self.output[1]),
            "stderr": b"".join(self.output[2]),
            "files": {path: content for path in self.request["keep"] if (content := self.kept(path)) is not None},
        }

    def watch(self) -> tuple[str, int]:
        """Wait for the command to end, then kill all other processes. Returns the exceeded limit (empty: none) and the
        exit status."""
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
        """Write to a pipe what it accepts, or read its contents; close it at the end of its data."""
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
            pass  # the command has closed its input
        self.poll.unregister(descriptor)
        del self.pipes[descriptor]
        os.close(descriptor)

    def drain(self) -> None:
        """Read what ended processes have left in the pipes."""
        for descriptor in [d for d, stream in self.pipes.items() if stream]:
            while descriptor in self.pipes and self.room >= 0:
                self.transfer(descriptor)

    def others(self) -> list[int]:
        """The other processes of the namespace."""
        return [int(name) for name in os.listdir(self.processes) if name.isdigit() and name != "1"]

    def excess(self) -> str:
        pages, ticks = 0, 0
        for process in self.others():
            try:
                pages += int(self.look(process, "statm").split()[1])
                fields = self.look(process, "stat").rpartition(")")[2].split()
            except (OSError, IndexError):
                continue  # the process has just ended
            ticks += sum(map(int, fields[11:15]))  # user and system time of the process and its waited-for children
        scratch = os.statvfs(self.request["scratch"])
        memory = pages * resource.getpagesize() + (scratch.f_blocks - scratch.f_bfree) * scratch.f_frsize
        if memory > self.limits["memory_bytes"]:
            return "memory"
        if self.cpu_seconds() + ticks / os.sysconf("SC_CLK_TCK") > self.limits["cpu_seconds"]:
            return "cpu_time"
        return ""

    def cpu_seconds(self) -> float:
        """CPU time of the processes that have been waited for."""
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
