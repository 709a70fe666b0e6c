"""``dim-matte serve`` in a child process with limits, and what can be seen of it from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

TOKEN = "not-to-be-guessed"
OPTIONS = {
    "--threads": "1",
    "--workers": "2",
    "--queue": "16",
    "--max-bytes": "16MB",
    "--max-pixels": "4000000",
    "--memory-limit": "500MB",
}
"""Options of the server; small enough that requests meet every limit."""
SERVE = "from dim_runtime.cli import main; main()"
STARTS_S, STOPS_S = 120, 120
"""Seconds that the server may take to become ready, and to finish what it accepted."""
DATA_BYTES = 4 * 10**9
"""Memory beyond which the system refuses the child more; it protects the machine, not the claim."""
OPEN_FILES = 1024


@dataclass
class Server:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        folder: its folder of temporary files.
        process: the child.
        log: what it writes to standard error.
    """

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def peak_bytes(self) -> int:
        """Largest resident memory since the start, bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    @property
    def open_files(self) -> int:
        """Files and connections that are open now."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> list[str]:
        """Stop the server and return what is wrong: its exit code, tracebacks, files that are left."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self.process.wait(STOPS_S)
        except subprocess.TimeoutExpired:
            code = None
        text = self.log.read_text(errors="replace")
        faults = [] if code == 0 else [f"exit code {code}"]
        if "Traceback" in text:
            faults.append("a traceback: " + text[text.index("Traceback") :][:2000])
        left = [path.name for path in self.folder.iterdir() if path.name.startswith("dim-serve-")]
        return faults + ([f"files are left: {left[:3]}"] if left else [])


@contextmanager
def served() -> Iterator[Server]:
    """Start the server, yield it once it is ready, and kill it if it was not stopped."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "temporary"
        folder.mkdir()
        log = Path(name) / "log"
        port = _free_port()
        options = [part for option in OPTIONS.items() for part in option]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", "--port", str(port), *options],
                env=os.environ | {"DIM_SERVE_TOKEN": TOKEN, "TMPDIR": str(folder)},
                stdout=errors,
                stderr=errors,
                preexec_fn=_limit,
            )
        server = Server(port, folder, process, log)
        try:
            _await_ready(server)
            yield server
        finally:
            process.kill()
            process.wait()


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _await_ready(server: Server) -> None:
    ends = time.monotonic() + STARTS_S
    while time.monotonic() < ends and server.process.poll() is None:
        try:
            httpx.get(f"{server.address}/ready", timeout=5, verify=False)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the server is not ready: {server.log.read_text(errors='replace')[-2000:]}")
