"""Steps of `launcher` before a command starts: new namespaces, a root with the allowed paths, dropping privileges.

Mount flags and attributes: `man 2 mount` and `man 2 mount_setattr`.
"""

import ctypes
import os
import stat

UID = 1000
"""User and group of the command inside the namespace."""
FILES_IN_SCRATCH = 1 << 16

FLAGS = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "PID": 0x20000000,
    "network": 0x40000000,
    "IPC": 0x08000000,
    "UTS": 0x04000000,
}
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 1 << 18
DETACH = 2
MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PARENT_DEATH_SIGNAL, NO_NEW_PRIVILEGES, SECCOMP, FILTER = 1, 38, 22, 2
SIGKILL = 9

libc = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """A step that the kernel refused; the message is shown to the user."""


def check(result: int, step: str) -> None:
    if result < 0:
        raise Broken(f"{step} ({os.strerror(ctypes.get_errno())})")


def die_with_parent() -> None:
    check(libc.prctl(PARENT_DEATH_SIGNAL, SIGKILL, 0, 0, 0), "dying with the parent (prctl)")


def enter(become: int | None) -> None:
    """Enter new namespaces, in which the process has all privileges; outside it has none.

    `become`: the host's user id that commands run as, if the caller may choose one (root); None: the caller's.
    """
    uid, gid = os.geteuid(), os.getegid()
    go, ready = os.pipe()
    mapper = 0
    if become is not None:
        # Only a process of the outer namespace may map a user other than itself.
        launcher = os.getpid()
        mapper = os.fork()
        if mapper == 0:
            os.close(ready)
            os.read(go, 1)
            write(f"/proc/{launcher}/uid_map", f"0 {uid} 1\n{UID} {become} 1\n")
            write(f"/proc/{launcher}/gid_map", f"0 {gid} 1\n{UID} {become} 1\n")
            os._exit(0)
    os.close(go)
    flags = sum(FLAGS.values())
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


def build_root(readable: list[str], scratch: str, roots: list[str]) -> int:
    """Change to a root with the allowed paths and a place for the scratch directory; `roots` are links into the latter.
    Returns a descriptor of the namespace's /proc, which the command cannot see."""
    check(libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None), "private mounts (mount)")
    # Kept open, because the new root may be mounted over their paths.
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
    os.mkdir(root + scratch)
    for name in roots:
        os.symlink(f"{scratch}/{name}", f"{root}/{name}")
    set_attributes(root, READ_ONLY, recursive=False)
    os.chdir(root)
    check(libc.pivot_root(b".", b"."), "a root of its own (pivot_root)")
    check(libc.umount2(b".", DETACH), "leaving the old root (umount2)")
    os.chdir("/")
    return processes


def mount_scratch(scratch: str, scratch_bytes: int) -> None:
    """An empty scratch directory, in memory; change to it."""
    options = f"size={scratch_bytes},nr_inodes={FILES_IN_SCRATCH},mode=700,uid={UID},gid={UID}"
    mount("tmpfs", scratch, NO_SUID | NO_DEVICES, options)
    os.chdir(scratch)


def unmount(path: str) -> None:
    os.chdir("/")
    check(libc.umount2(path.encode(), DETACH), "removing the scratch directory (umount2)")


def open_last_process(processes: int) -> int | None:
    """A descriptor for `count_processes_anew`; None where the kernel has no such thing (CONFIG_CHECKPOINT_RESTORE)."""
    try:
        return os.open("sys/kernel/ns_last_pid", os.O_WRONLY, dir_fd=processes)
    except OSError:
        return None


def count_processes_anew(last_process: int | None) -> None:
    """Let the next process of this namespace be number 2, however many there were."""
    if last_process is not None:
        os.pwrite(last_process, b"1", 0)


def mount(kind: str, target: str, flags: int, options: str) -> None:
    check(
        libc.mount(kind.encode(), target.encode(), kind.encode(), flags, options.encode()),
        f"mounting a {kind} of its own (mount)",
    )


def set_attributes(path: str, attributes: int, recursive: bool = True) -> None:
    arguments = (ctypes.c_uint64 * 4)(attributes)  # struct mount_attr: set, clear, propagation, user namespace
    flags = AT_RECURSIVE if recursive else 0
    done = libc.syscall(
        MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(arguments), ctypes.sizeof(arguments)
    )
    check(done, "read-only mounts (mount_setattr)")


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def seccomp_program(instructions: bytes) -> Filter:
    """struct sock_fprog of `man 2 seccomp`."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    program = Filter(len(instructions) // 8, ctypes.addressof(code))
    program.kept = code
    return program


_CAPABILITIES_VERSION_3 = 0x20080522
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()


def drop_privileges(become: int | None, filters: Filter) -> None:
    if become is not None:
        os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    die_with_parent()  # the change of credentials has cleared the setting
    check(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no new privileges (prctl)")
    # Where the user stays the same, only a program that is executed would lose them.
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION_3)
    check(libc.capset(header, _NO_CAPABILITIES), "dropping capabilities (capset)")
    check(libc.prctl(SECCOMP, FILTER, ctypes.byref(filters), 0, 0), "system call filters (seccomp)")
