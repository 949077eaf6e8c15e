"""Runs a Python program in a process that was forked from a prepared interpreter, as `python -I -S` would run it.

Starting Python takes ten times as long as forking it. What a program can tell of the difference: the modules of
`PREPARED` are loaded, and at the end the standard library's own objects are not taken down. A module of the launcher's
script, as `namespaces` is.
"""

import _signal  # type: ignore[import-not-found] # signal imports enum
import atexit
import gc
import io
import marshal
import os
import sys

PREPARED = (
    *("__future__", "_sitebuiltins", "collections", "functools", "importlib", "itertools", "json", "math", "operator"),
    *("re", "resource", "select"),
)
"""Modules that most programs import, or those that test them. Each makes forking dearer."""
SIGINT, SIGPIPE, SIGXFSZ = 2, 13, 25
FLUSH_FAILED = 120
FRAMES_ABOVE = 2 if sys.version_info < (3, 12) else 1
"""Of the launcher, in the depth that the recursion limit is about."""
LOADERS = sys.modules["_frozen_importlib_external"]


def prepare() -> None:
    """Load what programs need, once, before there are any."""
    for name in PREPARED:
        __import__(name)
    compile("0", "", "exec")  # the first time, Python makes the types of syntax trees


def settle(own: tuple) -> None:
    """The last of the preparations: what exists now is the interpreter's own. `own`: the launcher's modules, which
    programs do not find."""
    for name in own:
        del sys.modules[name]
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    sys.path_importer_cache.clear()
    LOADED.update(sys.modules)
    gc.collect()
    gc.freeze()


LOADED: dict = {}


def load(arguments: list) -> tuple | None:
    """The code of a program and its namespace, after the options of Python's command line: `-c SOURCE …` or `FILE …`.
    None where it is for Python itself to say what is wrong with them. Raises what compiling raises."""
    main = type(sys)("__main__")
    names = vars(main)
    names |= {"__builtins__": sys.modules["builtins"], "__annotations__": {}}
    if arguments[0] == "-c":
        code = compile(arguments[1], "<string>", "exec", dont_inherit=True)
        names["__loader__"] = sys.modules["_frozen_importlib"].BuiltinImporter
        argv = ["-c", *arguments[2:]]
    else:
        path = os.path.abspath(arguments[0])
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return None
        if path.endswith(".pyc"):
            if content[:4] != LOADERS.MAGIC_NUMBER:
                return None
            code = marshal.loads(content[16:])
        else:
            code = compile(content, path, "exec", dont_inherit=True)
        loader = LOADERS.SourcelessFileLoader if path.endswith(".pyc") else LOADERS.SourceFileLoader
        names |= {"__file__": path, "__cached__": None, "__loader__": loader("__main__", path)}
        argv = list(arguments)
    sys.setrecursionlimit(sys.getrecursionlimit() + FRAMES_ABOVE)
    sys.modules["__main__"] = main
    sys.argv = argv
    sys.orig_argv = [sys.executable, "-I", "-S", *arguments]
    return code, names


def restart() -> None:
    """Standard streams and signals as Python has them when it starts."""
    _signal.signal(SIGINT, _signal.default_int_handler)
    _signal.signal(SIGPIPE, _signal.SIG_IGN)
    _signal.signal(SIGXFSZ, _signal.SIG_IGN)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        before = getattr(sys, name)
        raw = io.FileIO(number, mode, closefd=False)
        raw.name = f"<{name}>"
        buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        text = io.TextIOWrapper(buffer, before.encoding, before.errors, newline="\n", line_buffering=name == "stderr")
        text.mode = mode  # type: ignore[misc]
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def finish(error: BaseException | None) -> None:
    """End this process as Python ends: say what was raised, wait for threads, run what is registered, give up what the
    program's modules hold, flush."""
    status = 0
    if isinstance(error, SystemExit):
        status = _status(error.code)
    elif error is not None:
        status = 1
        try:
            # Not the frame that called the program.
            trace = error.__traceback__ and error.__traceback__.tb_next
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        except BaseException as another:
            sys.__excepthook__(type(another), another, another.__traceback__)
    interrupted = isinstance(error, KeyboardInterrupt)
    error = None
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    failed = _flush_failed()
    for module in _loaded_since():
        names = vars(module)
        for key in [key for key in names if key != "__builtins__"]:
            names[key] = None
    gc.collect()
    failed = _flush_failed() or failed
    if interrupted:
        _signal.signal(SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), SIGINT)
    os._exit(FLUSH_FAILED if failed else status)


def _loaded_since() -> list:
    """The program's own modules. Whatever else is looked at is a page that this process must copy."""
    modules = [sys.modules["__main__"]]
    for name in reversed(sys.modules):
        if name in LOADED:
            break
        modules.append(sys.modules[name])
    return [module for module in modules if type(module) is type(sys)]


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _flush_failed() -> bool:
    failed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            failed = failed or stream is sys.stdout
    return failed
