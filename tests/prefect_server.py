"""A Prefect server of a test's own."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.launch.process_setup import QUIET
from cascade.launch.ui_servers import stop_groups
from tests.loopback import closed_port


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Its API's address. The database lies in `home`."""
    port = closed_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {**QUIET, "PREFECT_HOME": str(home), "PREFECT_API_URL": url}
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{url}/health"):
            assert server.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < deadline, "Prefect's server does not answer"
            time.sleep(0.2)
        yield url
    finally:
        stop_groups([server], patience=10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
