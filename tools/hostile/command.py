"""The command: start a server, send hostile requests, and check that good ones are served all the while."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np

from dim_runtime import Matting
from dim_runtime.images.samples import lemur
from hostile.attempts import TIMEOUT_S, AnyAttempt, Reply, make
from hostile.described import send_described
from hostile.server import TOKEN, Server, served
from hostile.slow import SlowClients

PARTS = {"problem", "got", "expected", "why", "fix"}
PLAIN = (b"Invalid host header", b"Range header:", b"Malformed range header")
"""Text of refusals by Starlette: another host's name, an impossible range of a file."""
GOOD_EVERY = 20
"""Hostile requests between two good ones."""
SLOW_CLOSED_S = 120
"""Seconds in which slow clients must be closed; the server's own limit is 60 s."""
RECOVERY_S = 600
"""Seconds in which a good request must be taken: the queue may be full."""
MEMORY = 1000
"""Largest resident memory that is allowed by default, MB."""


@dataclass
class Result:
    """What happened.

    Attributes:
        statuses: how often each status came, by kind of request; 0 for a closed connection.
        faults: what must not happen.
        good: good requests that were served with the right alpha.
    """

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = field(default_factory=list)
    good: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, reply: Reply | None, name: str, *, may_close: bool = False) -> None:
        """Count a response, and keep what is wrong with it."""
        fault = _fault(reply, may_close=may_close)
        with self._lock:
            self.statuses[kind][reply.status if reply else 0] += 1
            if fault:
                self.faults.append(f"{name}: {fault}")

    @property
    def sent(self) -> int:
        return sum(sum(each.values()) for each in self.statuses.values())


def _fault(reply: Reply | None, *, may_close: bool) -> str | None:
    """Return what is wrong with a response: its status, or an error without our parts."""
    if reply is None:
        return None if may_close else "no response"
    if reply.status >= 500 and reply.status != 503:
        return f"status {reply.status}: {reply.body[:200]!r}"
    if reply.status < 400 or not reply.body or reply.body.startswith(PLAIN):
        return None
    try:
        parts = json.loads(reply.body)
    except ValueError:
        return f"status {reply.status} without JSON: {reply.body[:200]!r}"
    is_ours = isinstance(parts, dict) and "problem" in parts and set(parts) <= PARTS
    return None if is_ours else f"status {reply.status} without our parts: {reply.body[:200]!r}"


class GoodRequest:
    """A photograph and its alpha, computed in this process."""

    def __init__(self) -> None:
        image, trimap, *_ = lemur()
        small = cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
        marks = cv2.resize(trimap, (160, 160), interpolation=cv2.INTER_NEAREST)
        self._files = {
            "image": bytes(cv2.imencode(".png", small[..., ::-1])[1]),
            "trimap": bytes(cv2.imencode(".png", marks)[1]),
        }
        with Matting(threads=1) as matting:
            self._alpha = np.round(matting(small, marks) * 255).astype(np.uint8)

    def fault(self, server: Server) -> str | None:
        """Send it, again while the server is too busy; return what is wrong."""
        ends = time.monotonic() + RECOVERY_S
        while True:
            answer = httpx.post(
                f"{server.address}/v1/matte",
                files=self._files,
                data={"output": "alpha"},
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=TIMEOUT_S,
                verify=False,  # reading the system's certificates takes longer than the request
            )
            if answer.status_code not in (429, 503) or time.monotonic() > ends:
                break
            time.sleep(1)
        if answer.status_code != 200:
            return f"a good request: status {answer.status_code} {answer.text[:200]}"
        alpha = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        return None if np.array_equal(alpha, self._alpha) else "a good request: another alpha"


def attack(server: Server, options: argparse.Namespace) -> Result:
    """Send the requests and return what happened."""
    result, good = Result(), GoodRequest()
    described = 0 if options.only is not None else round(options.requests * options.described)
    numbers = range(options.requests - described) if options.only is None else [options.only]
    slow = SlowClients(server, options.slow)
    try:
        with ThreadPoolExecutor(options.clients) as clients:
            for start in range(0, len(numbers), GOOD_EVERY):
                batch = numbers[start : start + GOOD_EVERY]
                sent = [clients.submit(_send, server, make(options.seed, n), n, result) for n in batch]
                _require_good(good, server, result)
                for each in sent:
                    each.result()
        send_described(server, described, result.note)
        if options.wait_slow and not slow.wait_closed(SLOW_CLOSED_S):
            result.faults.append(f"slow clients: only {slow.closed} of {slow.count} were closed")
        result.statuses["slow clients"][0] = slow.closed
    finally:
        slow.end()
    _require_good(good, server, result)
    return result


def _send(server: Server, attempt: AnyAttempt, number: int, result: Result) -> None:
    name = f"{attempt.kind}, --only {number}"
    try:
        reply = attempt.send(server)
    except (httpx.HTTPError, OSError) as error:
        # A server that refuses an upload in its middle closes the connection; it must be there afterwards.
        if isinstance(error, httpx.ConnectError | httpx.TimeoutException | TimeoutError):
            result.faults.append(f"{name}: {error!r}")
        reply = None
        result.note(attempt.kind, reply, name, may_close=True)
        return
    result.note(attempt.kind, reply, name, may_close=attempt.may_close)


def _require_good(good: GoodRequest, server: Server, result: Result) -> None:
    try:
        fault = good.fault(server)
    except httpx.HTTPError as error:
        fault = f"a good request: {error!r}"
    if fault:
        result.faults.append(fault)
    else:
        result.good += 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hostile", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="send this hand-made request only")
    parser.add_argument("--clients", type=int, default=8, help="requests at one time")
    parser.add_argument("--slow", type=int, default=60, help="connections that never end their request")
    parser.add_argument("--described", type=float, default=0.3, help="share that Schemathesis makes")
    parser.add_argument("--memory", type=int, default=MEMORY, help="largest resident memory, MB")
    parser.add_argument("--wait-slow", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the attack and print what happened; 1 if anything was wrong."""
    options = parse(arguments)
    with served() as server:
        start = server.peak_bytes / 1e6
        result = attack(server, options)
        peak, files = server.peak_bytes / 1e6, server.open_files
        result.faults += server.stop()
        if options.log:
            options.log.write_bytes(server.log.read_bytes())
    if peak > options.memory:
        result.faults.append(f"resident memory {peak:.0f} MB, more than {options.memory} MB")
    report(result)
    print(
        f"resident memory: {start:.0f} MB at the start, {peak:.0f} MB at most; {files} open files at the end"
    )
    return 1 if result.faults else 0


def report(result: Result) -> None:
    """Print the statuses of each kind, and the faults."""
    for kind, statuses in sorted(result.statuses.items()):
        counts = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(statuses.items()))
        print(f"{kind:>20}  {counts}")
    print(f"{result.sent} hostile requests, {result.good} good ones; {len(result.faults)} faults")
    for fault in result.faults[:20]:
        print("fault:", fault)
