"""The load on a server: what is counted, and a stop in the middle."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("playwright", reason="tools/page_screenshot.py starts servers")

import load_server
from page_screenshot import SERVE, wait_for


@pytest.fixture
def server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, "serve", "--port", str(port), "--queue", "1"])
    wait_for(f"http://127.0.0.1:{port}/ready", process)
    yield f"http://127.0.0.1:{port}", process
    process.kill()
    process.wait()


def test_a_stop_in_the_middle_loses_nothing(
    server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(load_server, "SIDES", (64, 96))
    address, process = server
    load = [address, "--clients", "4", "--requests", "3", "--pid", str(process.pid)]
    assert load_server.main(load) == 0, capsys.readouterr().out
    assert "12 responses" in capsys.readouterr().out
    assert load_server.main([*load, "--stop-after", "2"]) == 0
    assert "0 requests lost" in capsys.readouterr().out
    assert process.wait(60) == 0


def test_a_lost_request_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    record = load_server.Record(stopped=True, failures=["ReadError"])
    assert load_server.report_stop(record) == 1
    assert "1 requests lost" in capsys.readouterr().out
    assert load_server.report_stop(load_server.Record()) == 1, "the server was never stopped"


def test_servers_elsewhere_are_not_loaded() -> None:
    assert load_server.main(["http://192.0.2.1"]) == 2
