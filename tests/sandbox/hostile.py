"""Programs that attack. Each prints ESCAPED where it has got what it must not get; none may."""

PROGRAMS: dict[str, str] = {
    # exhausting the machine
    "fork bomb": """
        import os
        while True:
            try: os.fork()
            except OSError: pass
    """,
    "thread bomb": """
        import threading, time
        started = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); started += 1
        except RuntimeError: pass
        print("ESCAPED" if started > 16 else "stopped"); import os; os._exit(0)
    """,
    "memory bomb": """
        blocks = []
        while True: blocks.append(b"x" * (16 << 20))
    """,
    "memory bomb of many processes": """
        import os, time
        for _ in range(12):
            if os.fork() == 0:
                block = b"x" * (60 << 20); time.sleep(60)
        time.sleep(60)
    """,
    "shared memory that counts for no process": """
        import mmap, os
        held = []
        while len(held) < 40:
            held.append(os.memfd_create("x")); os.write(held[-1], b"x" * (8 << 20))
        print("ESCAPED")
    """,
    "files that fill the memory": """
        i = 0
        while i < 400:
            open(f"f{i}", "wb").write(b"x" * (4 << 20)); i += 1
        print("ESCAPED")
    """,
    "one large file": """
        import os
        with open("big", "wb") as file:
            for _ in range(64): file.write(b"x" * (1 << 20)); file.flush()
        print("ESCAPED")
    """,
    "sparse file": """
        open("big", "wb").truncate(1 << 40); print("ESCAPED")
    """,
    "millions of files": """
        try:
            for i in range(200_000): open(f"f{i}", "wb").close()
            print("ESCAPED")
        except OSError: print("stopped")
    """,
    "open files": """
        held = []
        try:
            while len(held) < 5000: held.append(open("/dev/null"))
            print("ESCAPED")
        except OSError: print("stopped")
    """,
    "output flood": "while True: print('x' * 10_000)",
    "output flood on both streams": """
        import sys
        while True: sys.stdout.write("x" * 10_000); sys.stderr.write("y" * 10_000)
    """,
    "endless loop": "while True: pass",
    "endless loop that ignores the warning": """
        import resource, signal
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        try: resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999)); print("ESCAPED")
        except (ValueError, OSError): pass
        while True: pass
    """,
    "processor time of many processes": """
        import os
        for _ in range(6):
            if os.fork() == 0:
                while True: pass
        while True: pass
    """,
    "sleep": "import time; time.sleep(10_000)",
    "stopping itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "raising its own limits": """
        import resource
        for name in ("AS", "NPROC", "FSIZE", "NOFILE", "CORE"):
            limit = getattr(resource, "RLIMIT_" + name)
            try:
                resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)); print("ESCAPED", name)
            except (ValueError, OSError): pass
    """,
    "a core dump": """
        import os, resource, ctypes
        print("ESCAPED" if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0) else "none", flush=True)
        ctypes.string_at(0)
    """,
    # other processes
    "double fork with setsid": """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                while True: time.sleep(0.01)
            os._exit(0)
        os.wait()
    """,
    "daemon that keeps the pipes open": """
        import os, time
        if os.fork() == 0:
            os.setsid(); time.sleep(10_000)
        print("left")
    """,
    "killing the parent": """
        import os, signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL, signal.SIGSTOP):
            try: os.kill(os.getppid(), number)
            except OSError: pass
        print("still here")
    """,
    "killing process 1": """
        import os, signal
        for number in range(1, 65):
            try: os.kill(1, number)
            except OSError: pass
        print("still here")
    """,
    "killing everybody": """
        import os, signal
        try: os.kill(-1, signal.SIGKILL)
        except OSError: pass
        print("still here")
    """,
    "killing the canary": """
        import os, signal
        for pid in range(2, 70_000):
            if pid != os.getpid():
                try: os.kill(pid, signal.SIGKILL); print("ESCAPED", pid)
                except OSError: pass
    """,
    "other processes in /proc": """
        import os
        print("ESCAPED" if os.path.exists("/proc/1/environ") or os.path.exists("/proc/self/mem") else "no /proc")
    """,
    "mounting /proc": """
        import ctypes, os
        os.mkdir("p")
        libc = ctypes.CDLL(None, use_errno=True)
        print("ESCAPED" if libc.mount(b"proc", b"p", b"proc", 0, None) == 0 else ctypes.get_errno())
    """,
    "ptrace": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        for pid in (1, os.getppid()):
            print("ESCAPED" if libc.ptrace(16, pid, None, None) == 0 else ctypes.get_errno())
    """,
    "reading another process's memory": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        buffer = ctypes.create_string_buffer(8)
        mine, theirs = Vector(ctypes.addressof(buffer), 8), Vector(0x400000, 8)
        got = libc.process_vm_readv(1, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
        print("ESCAPED" if got >= 0 else ctypes.get_errno())
    """,
    "new user namespace": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print("ESCAPED" if libc.unshare(0x10000000) == 0 else ctypes.get_errno())
    """,
    "new user namespace by clone": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        child = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
        print("ESCAPED" if child >= 0 else ctypes.get_errno())
    """,
    "becoming root": """
        import os
        for call in (os.setuid, os.setgid, os.seteuid):
            try: call(0); print("ESCAPED")
            except OSError: pass
    """,
    "a set-user-id program": """
        import os, shutil
        shutil.copy("/bin/sh", "sh"); os.chmod("sh", 0o6755)
        print(os.popen("./sh -p -c 'id -u'").read())
        for name in ("su", "mount", "passwd"):
            if os.path.exists(f"/bin/{name}") and os.system(f"/bin/{name} --help >/dev/null 2>&1; true"): print("odd")
    """,
    "system calls for few": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for number in (321, 298, 323, 425, 248, 250, 304, 428, 165, 246, 175):
            if libc.syscall(number, 0, 0, 0, 0, 0) >= 0: print("ESCAPED", number)
            elif ctypes.get_errno() != 1: print("ESCAPED", number, ctypes.get_errno())
    """,
    "system calls under their x32 numbers": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print("ESCAPED" if libc.syscall(0x40000000 + 39) >= 0 else ctypes.get_errno())
    """,
    "other processes' limits and priority": """
        import ctypes, os, resource
        libc = ctypes.CDLL(None, use_errno=True)
        for act in (lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.setpriority(os.PRIO_USER, 0, 19),
                    lambda: os.setpriority(os.PRIO_PGRP, 0, 19), lambda: os.sched_setaffinity(1, {0}),
                    lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
                    lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))):
            try: act(); print("ESCAPED")
            except OSError: pass
        os.nice(1); os.sched_setaffinity(0, os.sched_getaffinity(0)); resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    """,
    # files
    "reading the canary": "print('ESCAPED' if open('CANARY').read() else '')",
    "listing the file system": """
        import os
        for place in ("/home", "/work", "/var", "/mnt", "/tmp", "/sys", "/run", "/boot"):
            if os.path.exists(place): print("ESCAPED", place)
        if os.path.exists("/etc/passwd") or os.path.exists("/etc/shadow"): print("ESCAPED")
        if set(os.listdir("/dev")) - {"null", "zero", "full", "random", "urandom"}: print("ESCAPED")
    """,
    "writing outside": """
        import os, sys
        places = ("/", "/usr", "/usr/lib", "/etc", "/dev", "/root", sys.prefix, os.path.dirname(os.__file__))
        for place in places:
            try: open(os.path.join(place, "written"), "w"); print("ESCAPED", place)
            except OSError: pass
    """,
    "changing Python's own modules": """
        import json, os
        for path in (json.__file__, os.__file__):
            for act in (lambda: open(path, "a"), lambda: os.unlink(path), lambda: os.chmod(path, 0o777),
                        lambda: os.rename(path, path + "x"), lambda: os.utime(path)):
                try: act(); print("ESCAPED", path)
                except OSError: pass
    """,
    "symbolic link out": """
        import os
        os.symlink("CANARY", "link"); os.symlink("/", "root")
        for path in ("link", "root/CANARY", "../CANARY", "/scratch/../CANARY"):
            try: print("ESCAPED", open(path).read())
            except OSError: pass
        os.symlink("CANARY", "kept")
    """,
    "symbolic link left as a result": "import os; os.symlink('/dev/zero', 'kept')",
    "a pipe left as a result": "import os; os.mkfifo('kept')",
    "an unreadable result": "import os; open('kept', 'w').write('x'); os.chmod('kept', 0); os.chmod('.', 0)",
    "hard link out": """
        import os
        for path in ("CANARY", "/bin/sh", os.__file__):
            try: os.link(path, "link"); print("ESCAPED", path)
            except OSError: pass
    """,
    "leaving by chroot": """
        import os
        os.mkdir("d")
        try: os.chroot("d"); print("ESCAPED")
        except OSError: pass
        for _ in range(50): os.chdir("..")
        print("ESCAPED" if os.path.exists("work") or os.path.exists("home") else "")
    """,
    "inherited file descriptors": """
        import os
        for descriptor in range(3, 4096):
            try: os.fstat(descriptor); print("ESCAPED", descriptor)
            except OSError: pass
    """,
    "a directory descriptor from outside": """
        import os
        for descriptor in range(3, 200):
            try: os.fchdir(descriptor); print("ESCAPED")
            except OSError: pass
    """,
    "device nodes": """
        import os, stat
        for number in (os.makedev(1, 1), os.makedev(8, 0), os.makedev(254, 0)):
            try: os.mknod("node", stat.S_IFBLK | 0o666, number); print("ESCAPED")
            except OSError: pass
    """,
    "remounting": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for place in (b"/", b"/usr", b"/scratch"):
            if libc.mount(None, place, None, 32 | 4096, None) == 0 or libc.umount2(place, 2) == 0: print("ESCAPED")
    """,
    # secrets and network
    "environment": "import os; print('ESCAPED' if any('SECRET' in k + v for k, v in os.environ.items()) else '')",
    "environment of the launcher": """
        import os
        for process in ("1", "self", str(os.getppid())):
            try: print("ESCAPED", open(f"/proc/{process}/environ").read())
            except OSError: pass
    """,
    "network": """
        import socket
        for family, kind in ((2, 1), (2, 2), (10, 1), (16, 3), (17, 3), (2, 3), (40, 1)):
            try: socket.socket(family, kind); print("ESCAPED", family, kind)
            except OSError: pass
    """,
    "loopback of the host": """
        import socket
        try: socket.create_connection(("127.0.0.1", PORT), 1); print("ESCAPED")
        except OSError: pass
    """,
    "name resolution": """
        import socket
        try: print("ESCAPED", socket.gethostbyname("example.com"))
        except OSError: pass
    """,
    "host name": "import socket, os; os.uname(); print(len(socket.gethostname()))",
    "abstract socket of the host": """
        import socket
        one = socket.socket(socket.AF_UNIX)
        try: one.connect("\\0ABSTRACT"); print("ESCAPED")
        except OSError: pass
    """,
    "System V shared memory": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print("ESCAPED" if libc.shmget(1, 1 << 20, 0o1666) >= 0 else "refused")
    """,
    "crash": "import ctypes; ctypes.string_at(0)",
    "garbage output": "import os; os.write(1, bytes(range(256)) * 100)",
    "closing its streams": """
        import os, time
        for descriptor in (0, 1, 2): os.close(descriptor)
        time.sleep(0.1)
    """,
}
