"""How `make setup` installs: by uv under pip's configuration, by pip where uv is not to be had or fails."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("install", Path(__file__).parents[1] / "install.py")
assert spec is not None
assert spec.loader is not None
install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install)


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """pip's configuration is what the test writes, and nothing else."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)
    file = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return file


def test_pips_configuration_is_handed_to_uv(configured, monkeypatch):
    configured.write_text(
        "[global]\nindex-url = https://index.example/simple\nextra-index-url =\n    file:///one\n    file:///two\n"
        "find-links = /wheels\ntimeout = 99\ncert = /ca.pem\n"
        "[install]\nfind-links = /first /second\ntrusted-host = index.example\n[freeze]\nindex-url = https://no.example\n"
    )
    monkeypatch.setenv("PIP_CONSTRAINT", "/caps.txt")
    monkeypatch.setenv("PIP_INDEX_URL", "https://from.environment/simple")
    assert {
        name: value for name, value in install.uv_environment().items() if value not in ("", "https://pypi.org")
    } == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://from.environment/simple",
        "UV_INDEX": "file:///one file:///two",
        "UV_FIND_LINKS": "/first,/second",
        "UV_HTTP_TIMEOUT": "99",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INSECURE_HOST": "index.example",
        "UV_CONSTRAINT": "/caps.txt",
    }
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://set.for.uv")
    assert "UV_DEFAULT_INDEX" not in install.uv_environment()


def test_uv_compiles_where_python_would_keep_no_bytecode(configured, monkeypatch):
    assert "UV_COMPILE_BYTECODE" not in install.uv_environment()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert install.uv_environment()["UV_COMPILE_BYTECODE"] == "1"


def tool(path: Path, code: int) -> str:
    """A program that notes how it was called, and ends with this code."""
    path.write_text(
        f'#!/bin/sh\necho "{path.name} $* strategy=$UV_INDEX_STRATEGY" >> {path.parent}/calls\nexit {code}\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("uv", "pip", "forced", "tools", "ends", "says"),
    [
        (0, 0, "", ["uv"], 0, ""),
        (1, 0, "", ["uv", "pip"], 0, "uv could not install"),
        (1, 3, "", ["uv", "pip"], 3, "uv could not install"),
        (0, 0, "pip", ["pip"], 0, ""),
        (None, 0, "", ["pip", "pip"], 1, "There is no uv to be had"),
    ],
)
def test_who_installs(configured, tmp_path, monkeypatch, capsys, uv, pip, forced, tools, ends, says):
    monkeypatch.setattr(install, "PIP", [tool(tmp_path / "pip", 1 if uv is None else pip)])
    monkeypatch.setattr(sys, "argv", ["install.py", ".[dev]"])
    monkeypatch.setenv("INSTALLER", forced)
    if uv is None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr(install.shutil, "which", lambda name: None)
        monkeypatch.setattr(install, "uv_environment", dict)
    else:
        found = tool(tmp_path / "uv", uv)
        monkeypatch.setattr(install, "found_uv", lambda: found)
    assert install.main() == ends
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == tools
    assert "install --constraint constraints.txt --editable .[dev]" in calls[-1]
    if tools[0] == "uv":
        assert calls[0].endswith("strategy=unsafe-best-match")
    assert says in capsys.readouterr().out
