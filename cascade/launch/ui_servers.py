"""Local Prefect and MLflow servers: their URLs, running both for `cascade ui`, and a Prefect server for one run."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import click

from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.utils.files import write_json
from cascade.utils.orphans import kill_with_parent

HOST = "127.0.0.1"

MLFLOW_PORT = 5000


def set_environment(layout: Layout) -> None:
    """Set the environment variables that Prefect and MLflow read when they are imported, unless the user has set them.

    Prefect's database is in the project, so that past runs stay visible. The server of a running `cascade ui` is used.
    """
    home = os.environ.setdefault("PREFECT_HOME", str(layout.root / ".prefect"))
    # Prefect's default is in ~/.prefect, and it warns if that directory does not exist.
    os.environ.setdefault("PREFECT_SERVER_MEMO_STORE_PATH", str(Path(home) / "memo_store.toml"))
    if "PREFECT_API_URL" not in os.environ and (url := running_prefect(layout)):
        os.environ["PREFECT_API_URL"] = url


def running_prefect(layout: Layout) -> str | None:
    """URL of the API of the Prefect server that `cascade ui` runs for this project; None if it does not respond."""
    try:
        url = json.loads(_note(layout).read_text())["prefect"]
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return url if answer.status == 200 else None
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None


def mlflow_pages(layout: Layout) -> str:
    """URL at which `cascade ui` serves MLflow's pages for this project; its default if `cascade ui` does not run."""
    try:
        return str(json.loads(_note(layout).read_text())["mlflow"])
    except (OSError, ValueError, KeyError):
        return f"http://{HOST}:{MLFLOW_PORT}"


def serve(layout: Layout, prefect_port: int, mlflow_port: int) -> None:
    """Run both servers on the loopback interface until Ctrl-C or SIGTERM, then stop both.

    Raises CascadeError when a port is taken or a server does not start.
    """
    from cascade.tracking.mlflow_store import tracking_uri

    for option, port in (("--prefect-port", prefect_port), ("--mlflow-port", mlflow_port)):
        _require_free(option, port)
    set_environment(layout)
    store = tracking_uri(layout)
    pages = {"Prefect": f"http://{HOST}:{prefect_port}", "MLflow": f"http://{HOST}:{mlflow_port}"}
    commands = {
        "Prefect": ["prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)],
        "MLflow": [
            "mlflow",
            "server",
            "--host",
            HOST,
            "--port",
            str(mlflow_port),
            "--backend-store-uri",
            store,
            "--workers",
            "1",
        ],
    }
    environment = {
        **os.environ,
        "PREFECT_API_URL": f"{pages['Prefect']}/api",
    }
    signal.signal(signal.SIGTERM, _interrupt)
    servers: dict[str, subprocess.Popen] = {}
    try:
        for name, command in commands.items():
            servers[name] = _start(name, command, layout, environment)
        for name, server in servers.items():
            _wait(name, server, f"{pages[name]}/{'api/health' if name == 'Prefect' else 'health'}", layout)
            click.echo(f"{name:8}{pages[name] if name == 'Prefect' else experiment_page(pages[name], layout)}")
        write_json(_note(layout), {"prefect": f"{pages['Prefect']}/api", "mlflow": pages["MLflow"]})
        click.echo("Ctrl-C stops both.")
        while True:
            for name, server in servers.items():
                if server.poll() is not None:
                    raise CascadeError(f"{name} stopped by itself; its log is {_log(layout, name)}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        click.echo("Stopping.")
    finally:
        _note(layout).unlink(missing_ok=True)
        stop_groups(list(servers.values()), patience=10)


def experiment_page(server: str, layout: Layout) -> str:
    """URL of the runs of the active recipe; MLflow's start page if there is no experiment yet. The start page, and
    the experiment's page that it links to, list traces, and Cascade logs none."""
    from cascade.recipe import load  # Imported here, because a run's server process, which must start fast, needs none.

    try:
        family = urllib.parse.quote(load(layout.params).family)
        address = f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name={family}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            experiment_id = json.loads(answer.read())["experiment"]["experiment_id"]
    except (CascadeError, OSError, ValueError, KeyError):
        return server
    return f"{server}/#/experiments/{experiment_id}/runs"


def start_prefect(layout: Layout) -> Callable[[], None]:
    """Start a Prefect server that ends with this process, unless PREFECT_API_URL is set. Returns a function that
    waits until the server responds, and raises CascadeError if it does not start.

    Prefect would start a server itself, but in this process's group: Ctrl-C in a terminal would stop that server too,
    and Prefect would then try for minutes to deliver its last events. Call this before Prefect is imported, so that
    events are delivered before the server is stopped.
    """
    if "PREFECT_API_URL" in os.environ:
        return lambda: None
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    url = os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_UI_URL"] = ""  # This server has no UI to link to.
    server = _start("Prefect", ["cascade.launch.ui_servers", str(port), str(os.getpid())], layout, os.environ)
    atexit.register(stop_groups, [server], patience=5)
    return lambda: _wait("Prefect", server, f"{url}/health", layout)


def stop_groups(processes: list[subprocess.Popen], patience: float) -> None:
    """Send SIGTERM to each process's group, wait up to `patience` seconds, then send SIGKILL to groups still alive.
    Each process must lead its session."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        for process in processes:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and any(_group_lives(process) for process in processes):
            time.sleep(0.05)


def _group_lives(process: subprocess.Popen) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _start(name: str, command: list[str], layout: Layout, environment: Mapping[str, str]) -> subprocess.Popen:
    log = _log(layout, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=layout.root,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def _wait(name: str, server: subprocess.Popen, url: str, layout: Layout, patience: float = 180) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise CascadeError(f"{name} did not start; its log is {_log(layout, name)}")


def _require_free(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise CascadeError(f"port {port} is taken; choose another with {option}") from None


def _note(layout: Layout) -> Path:
    return layout.root / ".cascade" / "servers.json"


def _log(layout: Layout, name: str) -> Path:
    return layout.root / ".cascade" / "logs" / f"{name.lower()}.log"


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _serve_prefect(port: int, parent: int) -> None:
    kill_with_parent(parent)
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True, final=True), host=HOST, port=port, log_level="error")


if __name__ == "__main__":
    _serve_prefect(int(sys.argv[1]), int(sys.argv[2]))
