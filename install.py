"""Install this project into the environment of the Python that runs this: `.venv/bin/python install.py .[dev]`.

uv installs, since it takes a fraction of pip's time; pip fetches it where there is none. uv does not read pip's
configuration, so what that says of indexes and certificates is handed over. Where there is no uv, or it fails, pip
installs, and a line says so. Needs the standard library alone. `INSTALLER=pip` in the environment leaves uv out.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

UV = "uv==0.13.9"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
HANDED_OVER = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
"""pip's options → the environment variables that uv reads in their place."""
SEVERAL_BY_COMMA = {"UV_FIND_LINKS"}


def main() -> int:
    arguments = ["install", "--constraint", "constraints.txt", "--editable", *sys.argv[1:]]
    if os.environ.get("INSTALLER") != "pip":
        uv = found_uv()
        if uv is not None:
            failed = subprocess.run(
                [uv, "pip", *arguments, "--quiet", "--python", sys.executable], env=os.environ | uv_environment()
            ).returncode
            if not failed:
                return 0
            print("uv could not install (its reason stands above); pip does, which takes longer.", flush=True)
    return subprocess.run([*PIP, *arguments]).returncode


def found_uv() -> str | None:
    """uv's path. It is installed beside this Python where there is none."""
    own = Path(sys.executable).with_name("uv")
    found = str(own) if own.exists() else shutil.which("uv")
    if found:
        return found
    done = subprocess.run([*PIP, "install", UV], capture_output=True, text=True)
    if done.returncode == 0 and own.exists():
        return str(own)
    reason = next(iter(reversed(done.stderr.strip().splitlines())), "no reason given")
    print(f"There is no uv to be had ({reason[:200]}); pip installs, which takes longer.", flush=True)
    return None


def uv_environment() -> dict[str, str]:
    """pip's configuration as uv's environment; what is set for uv itself stays."""
    # Without --quiet, which silences this too.
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    options: dict[str, str] = {}
    # By rank: an environment variable before a section for `install`, and that before the one for all commands.
    for section in ("global", "install", ":env:"):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            where, _, option = name.rpartition(".")
            if where == section and value:
                options[option] = str(ast.literal_eval(value))
    # pip takes the best version of all indexes; uv by itself the first index that has the package at all.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    if sys.dont_write_bytecode:
        # As pip does in any case. Otherwise every process would compile all that it imports.
        found["UV_COMPILE_BYTECODE"] = "1"
    for option, variable in HANDED_OVER.items():
        if option in options:
            found[variable] = ("," if variable in SEVERAL_BY_COMMA else " ").join(options[option].split())
    return {variable: value for variable, value in found.items() if variable not in os.environ}


if __name__ == "__main__":
    sys.exit(main())
