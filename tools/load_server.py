"""Load a running server with many clients at once, and report failures, throughput and resident memory.

    dim-matte serve --port 8000 &
    python tools/load_server.py http://127.0.0.1:8000 --clients 64 --requests 20 --pid $!

Only addresses of this machine are loaded. Requests refused with status 429 are repeated after the time that
the server names; every other status but 200 is a failure, and so is 429 without Retry-After.

With ``--stop-after N`` the server gets SIGTERM after N responses. What it had accepted must still be served:
afterwards a request may be refused (status 503, or no connection), but no connection may break.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import psutil

from dim_runtime import Matting
from dim_runtime.images.samples import lemur

SIDES = (160, 224, 320, 440)
"""Heights of the photographs that are sent, pixels."""


@dataclass
class Record:
    """Results of the clients."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    refused_by_stop: int = 0
    stopped: bool = False
    failures: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim_stop(self, after: int | None) -> bool:
        """Return True once, to one client, as soon as there are so many responses; never for None."""
        with self._lock:
            due = after is not None and not self.stopped and len(self.seconds) >= after
            self.stopped |= due
            return due


def main(given: list[str] | None = None) -> int:
    """Load a server and report; return the exit code."""
    arguments = parse(given)
    if urlsplit(arguments.address).hostname not in ("127.0.0.1", "localhost", "::1"):
        print("error: only servers of this machine are loaded", file=sys.stderr)
        return 2
    pairs = requests()
    record = Record()
    started = time.perf_counter()
    run(arguments, pairs, record)
    wall = time.perf_counter() - started
    if arguments.stop_after is not None:
        return report_stop(record)
    return report(arguments, record, wall, library_seconds(arguments, pairs))


def parse(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", help="such as http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20, help="of each client")
    parser.add_argument("--pid", type=int, help="the server's process, to measure its memory")
    parser.add_argument("--stop-after", type=int, metavar="N", help="send SIGTERM to --pid after N responses")
    arguments = parser.parse_args(given)
    if arguments.stop_after is not None and arguments.pid is None:
        parser.error("--stop-after needs --pid")
    return arguments


def requests() -> list[tuple[dict[str, bytes], tuple[object, object]]]:
    """Return photographs of several sizes: as form files, and as arrays."""
    image, trimap, *_ = lemur()
    made = []
    for side in SIDES:
        size = round(image.shape[1] * side / image.shape[0]), side
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        marks = cv2.resize(trimap, size, interpolation=cv2.INTER_NEAREST)
        encoded = {
            "image": cv2.imencode(".png", small[..., ::-1])[1].tobytes(),
            "trimap": cv2.imencode(".png", marks)[1].tobytes(),
        }
        made.append((encoded, (small, marks)))
    return made


def run(arguments: argparse.Namespace, pairs: list, record: Record) -> None:  # type: ignore[type-arg]
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(arguments.pid, record, stop))
    watcher.start()
    with ThreadPoolExecutor(arguments.clients) as clients:
        list(clients.map(lambda number: send_all(arguments, pairs, record, number), range(arguments.clients)))
    stop.set()
    watcher.join()


def send_all(arguments: argparse.Namespace, pairs: list, record: Record, client: int) -> None:  # type: ignore[type-arg]
    """Send the requests of one client, and record what comes back."""
    with httpx.Client(timeout=600) as session:
        for number in range(arguments.requests):
            files, _ = pairs[(client + number) % len(pairs)]
            started = time.perf_counter()
            try:
                answer = send(session, arguments.address, files, record)
            except httpx.HTTPError as error:
                if record.stopped and isinstance(error, httpx.ConnectError):
                    record.refused_by_stop += 1
                    return
                record.failures.append(repr(error))
                continue
            if record.stopped and answer.status_code == 503:
                record.refused_by_stop += 1
                return
            if answer.status_code != 200:
                record.failures.append(f"{answer.status_code} {answer.text[:200]}")
                continue
            record.seconds.append(time.perf_counter() - started)
            if record.claim_stop(arguments.stop_after):
                os.kill(arguments.pid, signal.SIGTERM)


def send(session: httpx.Client, address: str, files: dict[str, bytes], record: Record) -> httpx.Response:
    """Send one request; wait and repeat while the queue is full."""
    while True:
        answer = session.post(f"{address}/v1/matte", files=files, data={"output": "alpha"})
        if answer.status_code != 429 or "Retry-After" not in answer.headers:
            return answer
        record.refused += 1
        time.sleep(float(answer.headers["Retry-After"]))


def watch(pid: int | None, record: Record, stop: threading.Event) -> None:
    """Record the server's resident memory twice a second until ``stop`` is set."""
    if pid is None:
        return
    process = psutil.Process(pid)
    while not stop.wait(0.5) and process.is_running():
        record.resident.append(process.memory_info().rss)


def library_seconds(arguments: argparse.Namespace, pairs: list) -> float:  # type: ignore[type-arg]
    """Return the time that the library takes for the same work in one process, files included."""
    with Matting() as matting:
        times = []
        for files, _ in pairs:
            started = time.perf_counter()
            image = cv2.imdecode(np.frombuffer(files["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            trimap = cv2.imdecode(np.frombuffer(files["trimap"], np.uint8), cv2.IMREAD_GRAYSCALE)
            alpha = matting(np.ascontiguousarray(image), trimap)
            cv2.imencode(".png", np.round(alpha * 255).astype(np.uint8))
            times.append(time.perf_counter() - started)
    return arguments.clients * arguments.requests * statistics.mean(times)


def report_stop(record: Record) -> int:
    """Print what became of the requests around the stop; 1 if one was lost."""
    print(
        f"{len(record.seconds)} responses, {record.refused_by_stop} clients refused after the stop, "
        f"{len(record.failures)} requests lost"
    )
    for failure in record.failures[:10]:
        print("lost:", failure)
    return 1 if record.failures or not record.stopped else 0


def report(arguments: argparse.Namespace, record: Record, wall: float, library: float) -> int:
    """Print rates, times, memory and failures; return 1 if a request failed."""
    sent = len(record.seconds)
    print(
        f"{sent} responses in {wall:.1f} s, {sent / wall:.2f} a second; {record.refused} refused and repeated"
    )
    if sent:
        print(f"median {statistics.median(record.seconds):.2f} s, largest {max(record.seconds):.2f} s")
    print(f"library in one process: {library:.1f} s; ratio {library / wall:.2f}")
    if len(record.resident) >= 8:
        quarter = len(record.resident) // 4
        parts = record.resident[:quarter], record.resident[-quarter:]
        first, last = (statistics.mean(part) / 1e6 for part in parts)
        print(f"resident memory: first quarter {first:.0f} MB, last {last:.0f} MB ({last / first:.3f})")
    for failure in record.failures[:10]:
        print("failure:", failure)
    return 1 if record.failures else 0


if __name__ == "__main__":
    sys.exit(main())
