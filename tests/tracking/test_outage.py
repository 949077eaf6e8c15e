"""A real tracking server that goes away while a node runs, and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from mlflow import MlflowClient

from cascade.launch.process_setup import QUIET
from cascade.launch.ui_servers import HOST
from cascade.tracking import Journal, background, live, publish
from cascade.tracking.runs import node_of, search

PATIENCE = 90.0
"""Seconds that a server may take to start on a busy machine."""


class Server:
    def __init__(self, folder):
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        self._process = None

    def start(self, *options):
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder / "served"), *options]
        with open(self._folder / "server.log", "a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **QUIET}, start_new_session=True
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def kill(self):
        """As a machine that loses its power: nothing is flushed, no connection is closed."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def server(layout, monkeypatch):
    server = Server(layout.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_a_server_that_was_away_has_everything_once_it_is_back(layout, recipe, server, monkeypatch, capsys):
    monkeypatch.setattr(background, "INTERVAL", 0.1)
    journal = Journal(layout.journal("rl"))
    samples = layout.root / "samples.json"
    samples.write_text("made during the outage")
    with live(recipe, layout, "rl"):
        journal.tags({"inputs_hash": "i1"})
        _measure(journal, range(5))
        _wait(lambda: _losses(server.url) == _expected(5))
        server.kill()
        began = time.monotonic()
        _measure(journal, range(5, 10))
        journal.artifact(samples, "samples")
        assert time.monotonic() - began < 1  # The node does not wait for it.
        _wait(lambda: "published later" in capsys.readouterr().err)
        server.start()
        _wait(lambda: _losses(server.url) == _expected(10))
    (run,) = _runs(server.url)
    assert run.info.status == "FINISHED"
    files = MlflowClient(server.url).list_artifacts(run.info.run_id, "samples")
    assert [file.path for file in files] == ["samples/samples.json"]


@pytest.mark.parametrize(("listed", "answers"), [("mlflow.example,{host}", False), ("{host}:{port}", True)])
def test_a_server_under_a_name_that_it_was_not_started_with(layout, recipe, monkeypatch, capsys, listed, answers):
    server = Server(layout.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    Journal(layout.journal("rl")).tags({"inputs_hash": "i1"})
    try:
        server.start("--allowed-hosts", listed.format(host=HOST, port=server.port))
        assert publish(recipe, layout, ["rl"]) is answers
    finally:
        server.kill()
    told = capsys.readouterr().err
    assert ("start it with --allowed-hosts of this name and port" in told) is not answers
    assert "published later" not in told


def _measure(journal, steps):
    for step in steps:
        journal.metrics({"train/loss": 1.0 / (step + 1)}, step)


def _expected(steps):
    return [(step, 1.0 / (step + 1)) for step in range(steps)]


def _runs(url):
    client = MlflowClient(url)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [run for run in search(client, experiments) if node_of(run) == "rl"]


def _losses(url):
    points = [
        (point.step, point.value)
        for run in _runs(url)
        for point in MlflowClient(url).get_metric_history(run.info.run_id, "train/loss")
    ]
    return sorted(points)


def _wait(condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")
