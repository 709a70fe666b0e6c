"""The hostile requests: a short run finds nothing, and what must not happen is noticed."""

from __future__ import annotations

import random
import sys

import pytest

pytest.importorskip("schemathesis")
pytest.importorskip("uvicorn")
pytest.importorskip("tifffile")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

from dim.images.headers import declared_pixels  # noqa: E402
from hostile import attempts, bombs, command  # noqa: E402
from hostile.attempts import Raw, Reply  # noqa: E402


def test_a_short_run_finds_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--requests", "20", "--described", "0.2", "--slow", "9", "--no-wait-slow"]
    code = command.main(options)
    printed = capfd.readouterr().out
    assert code == 0, printed
    for name in ("bombs", "described", "mutated images", "10 GB in chunks"):
        assert name in printed


def sent(number: int) -> object:
    attempt = attempts.make(1, number)
    return b"".join(attempt.pieces()) if isinstance(attempt, Raw) else attempt


def test_an_attempt_is_the_same_each_time() -> None:
    kinds = set()
    for number in range(60):
        kind = attempts.make(1, number).kind
        kinds.add(kind)
        if kind != "10 GB in chunks":
            assert sent(number) == sent(number)
    assert len(kinds) >= len(attempts.MAKERS) - 1


@pytest.mark.parametrize("bomb", bombs.BOMBS)
def test_a_bomb_declares_what_no_server_takes(bomb: object, tmp_path: object) -> None:
    path = tmp_path / "bomb"  # type: ignore[operator]
    path.write_bytes(bomb(20_000))  # type: ignore[operator]
    assert path.stat().st_size < 1 << 20
    pixels = declared_pixels(path)
    assert pixels is None or pixels > 10**8


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (Reply(500, "", b'{"problem": "the server failed"}'), "status 500"),
        (Reply(400, "", b"Bad Request"), "without JSON"),
        (Reply(422, "", b'{"detail": []}'), "without our parts"),
        (Reply(422, "", b'{"problem": "x", "path": "/tmp"}'), "without our parts"),
        (None, "no response"),
    ],
)
def test_a_fault_is_noticed(reply: Reply | None, part: str) -> None:
    result = command.Result()
    result.note("kind", reply, "request 1")
    (fault,) = result.faults
    assert fault.startswith("request 1: ")
    assert part in fault


def test_good_refusals_are_no_faults() -> None:
    result = command.Result()
    for reply in (
        Reply(422, "", b'{"problem": "x", "fix": "y"}'),
        Reply(200, "", b"\x89PNG"),
        Reply(404, "", b""),
    ):
        result.note("kind", reply, "request")
    result.note("kind", None, "request", may_close=True)
    assert not result.faults
    assert result.sent == 4


def test_the_seed_changes_the_requests() -> None:
    numbers = random.Random(0).sample(range(20, 1000), 20)
    assert any(attempts.make(1, n) != attempts.make(2, n) for n in numbers)
