"""A seccomp filter (classic BPF, `man 2 seccomp`) that denies system calls which sandboxed programs do not need.

The namespaces already remove network, files and other processes. The filter is a second layer, and denies what the
namespaces leave open: rarely used kernel interfaces, new namespaces, debugging, and memory charged to no process
(`memfd_create`, System V shared memory). Numbers: the kernel's unistd_64.h for x86-64, and asm-generic/unistd.h for
64-bit ARM.
"""

import errno
import struct

X86_64, AARCH64 = "x86_64", "aarch64"
MACHINES = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}
"""AUDIT_ARCH values by `platform.machine()`."""

DENIED: dict[str, tuple[int, int | None]] = {
    # name: (x86-64, 64-bit ARM)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
}
"""System calls that fail with EPERM."""

_NUMBERS = {  # calls that are allowed or denied by their arguments
    X86_64: {"clone": 56, "clone3": 435, "socket": 41},
    AARCH64: {"clone": 220, "clone3": 435, "socket": 198},
}
OF_ITSELF: dict[str, tuple[int, int, int | None]] = {
    # name: (x86-64, 64-bit ARM, first argument; None where the first is the process)
    "setpriority": (141, 140, 0),
    "ioprio_set": (251, 30, 1),
    "prlimit64": (302, 261, None),
    "sched_setparam": (142, 118, None),
    "sched_setscheduler": (144, 119, None),
    "sched_setaffinity": (203, 122, None),
    "sched_setattr": (314, 274, None),
}
"""System calls that a process may use on itself alone, which it then calls 0: process 1 may have the same user."""
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; CLONE_NEWTIME needs clone3."""
_AF_UNIX = 1
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = (
    0,
    4,
    16,
    24,
)  # offsets in struct seccomp_data, little endian
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def compile_filter(machine: str) -> bytes:
    """The filter's instructions (struct sock_filter, 8 bytes each). Raises KeyError for an unknown machine."""
    number = _NUMBERS[machine]
    column = 0 if machine == X86_64 else 1
    code = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, MACHINES[machine], 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
    ]
    if machine == X86_64:
        # The x32 ABI has the same calls under different numbers.
        code += _refuse(_op(_AT_LEAST, _X32, 0, 1), errno.ENOSYS)
    # clone3's flags are in memory, which a filter cannot read. After ENOSYS the C library uses clone.
    code += _refuse(_op(_EQUAL, number["clone3"], 0, 1), errno.ENOSYS)
    for numbers in DENIED.values():
        call = numbers[column]
        if call is not None:
            code += _refuse(_op(_EQUAL, call, 0, 1), errno.EPERM)
    for on_x86_64, on_aarch64, kind in OF_ITSELF.values():
        call = on_x86_64 if column == 0 else on_aarch64
        code += [_op(_EQUAL, call, 0, 4 if kind is None else 6), _op(_LOAD, _FIRST_ARGUMENT)]
        if kind is not None:
            code += [_op(_EQUAL, kind, 0, 2), _op(_LOAD, _SECOND_ARGUMENT)]
        code += [_op(_EQUAL, 0, 1, 0), _op(_RETURN, _ERRNO | errno.EPERM), _op(_RETURN, _ALLOW)]
    code += [
        _op(_EQUAL, number["clone"], 0, 4),
        _op(_LOAD, _FIRST_ARGUMENT),
        *_refuse(_op(_ANY_BIT, _NEW_NAMESPACES, 0, 1), errno.EPERM),
        _op(_RETURN, _ALLOW),
        _op(_EQUAL, number["socket"], 0, 3),
        _op(_LOAD, _FIRST_ARGUMENT),
        _op(_EQUAL, _AF_UNIX, 1, 0),
        _op(_RETURN, _ERRNO | errno.EACCES),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(test: bytes, error: int) -> list[bytes]:
    """Fail with `error` if `test` holds; else jump over that instruction."""
    return [test, _op(_RETURN, _ERRNO | error)]
