"""Downloads from a server in a thread: checked, cached, continued, and never half a file in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.request import build_opener

import pytest

from dim.download import DownloadError, Limits, SecureRedirects, cache_folder, fetch, require_sha256
from dim.errors import InputError
from dim.files import resumable_path
from dim.files import sha256 as digest

CONTENT = bytes(range(256)) * 20_000
BLOCK = 1 << 18
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves :data:`CONTENT` under every name; ``cut`` ends responses early, ``asked`` logs ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cut: int | None = None
        self.with_ranges = True
        self.length: str | None = None
        self.pause = 0.0
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://example.org/model.pth")
            self.end_headers()
        elif self.path == "/missing.pth":
            self.send_error(404)
        else:
            match = re.fullmatch(r"bytes=(\d+)-", asked) if self.server.with_ranges else None
            self._answer(int(match[1]) if match else None)

    def _answer(self, start: int | None) -> None:
        content = self.server.content[start or 0 :]
        if start is not None and not content:
            self.send_error(416)
            return
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", self.server.length or str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have closed the connection
            for place in range(0, len(content[: self.server.cut]), BLOCK):
                self.wfile.write(content[place : min(place + BLOCK, self.server.cut or len(content))])
                time.sleep(self.server.pause)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_second_time_comes_from_the_cache(server: Server, tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    path = fetch(
        server.url("model.pth"),
        sha256=DIGEST,
        cache=tmp_path,
        opener=build_opener(),
        progress=lambda done, total: reports.append((done, total)),
    )
    assert path.read_bytes() == CONTENT
    assert path.name == "model.pth"
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    server.shutdown()
    assert (
        fetch(server.url("model.pth"), sha256=DIGEST.upper(), cache=tmp_path, opener=build_opener()) == path
    )
    assert len(server.asked) == 1
    assert _files(tmp_path) == ["model.pth"]


def test_the_digits_in_the_name_are_checked(server: Server, tmp_path: Path) -> None:
    good, bad = (server.url(f"dim_SAD-50.6_2020-{digits}.pth") for digits in (DIGEST[:8], "0123abcd"))
    assert fetch(good, cache=tmp_path, opener=build_opener()).is_file()
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(bad, cache=tmp_path, opener=build_opener())


def test_nothing_is_kept_of_a_wrong_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=DIGEST):
        fetch(server.url("model.pth"), sha256="0" * 64, cache=tmp_path, opener=build_opener())
    assert _files(tmp_path) == []


@pytest.mark.parametrize("with_ranges", [True, False])
def test_a_cut_off_download_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, with_ranges: bool
) -> None:
    server.cut, server.with_ranges = 1_000_000, with_ranges
    with pytest.raises(DownloadError, match=f"1000000 of {len(CONTENT)} bytes"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())
    assert _files(tmp_path) == [resumable_path("model.pth").name]
    server.cut = None
    path = fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000000-"]
    assert _files(tmp_path) == ["model.pth"]


def test_a_whole_leftover_is_taken_and_a_wrong_one_is_not(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / DIGEST[:8]
    folder.mkdir()
    resumable_path(folder / "model.pth").write_bytes(CONTENT)
    assert fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener()).is_file()
    resumable_path(folder / "other.pth").write_bytes(b"x" * 99)
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(server.url("other.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())
    assert fetch(server.url("other.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener()).is_file()


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())
    path.write_bytes(CONTENT[:-1])
    assert fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener()) == path
    assert digest(path) == DIGEST


def test_errors_of_the_server_are_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404"):
        fetch(server.url("missing.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="is continued"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "model.pth"
    source.write_bytes(CONTENT)
    for url in (source.as_uri(), "ftp://example.org/model.pth", "data://text/model.pth"):
        with pytest.raises(InputError, match="https://"):
            fetch(url, sha256=DIGEST, cache=tmp_path / "cache")


def test_plain_http_is_refused_also_after_a_redirect(server: Server, tmp_path: Path) -> None:
    for url in (server.url("model.pth"), "http://example.org/model.pth"):
        with pytest.raises(InputError, match="https"):
            fetch(url, sha256=DIGEST, cache=tmp_path)
    with pytest.raises(InputError, match=r"http://example\.org"):
        fetch(server.url("elsewhere"), sha256=DIGEST, cache=tmp_path, opener=build_opener(SecureRedirects()))
    assert server.asked == [""]


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("https://example.org/model.pth", None, "unchecked"),
        ("https://example.org/model-979a420.pth", None, "unchecked"),
        ("https://example.org/model.pth", "not a digest", "8 to 64 hexadecimal"),
        ("https://example.org/model.pth", "0123456", "8 to 64 hexadecimal"),
        ("https://example.org/", DIGEST, "no file name"),
        ("https://example.org/%2e%2e", DIGEST, "no file name"),
    ],
)
def test_bad_requests_never_reach_the_network(
    url: str, sha256: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fetch(url, sha256=sha256, cache=tmp_path)


def test_names_cannot_leave_the_cache(server: Server, tmp_path: Path) -> None:
    path = fetch(
        server.url("a/..%2f..%2fb%5cc%20d.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener()
    )
    assert path == tmp_path / DIGEST[:8] / "b_c_d.pth"


def test_local_files_can_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(CONTENT)
    require_sha256(path, DIGEST)
    require_sha256(path, DIGEST[:8].upper())
    with pytest.raises(InputError, match=DIGEST):
        require_sha256(path, "0" * 8)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dim-matting"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "dim-matting"


def test_a_cache_that_cannot_be_written_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot download"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path / "file", opener=build_opener())


def test_a_file_beyond_the_limit_is_not_kept(server: Server, tmp_path: Path) -> None:
    limits = Limits(bytes=len(CONTENT) - 1)
    for length in (None, "9" * 15):
        server.length = length
        with pytest.raises(DownloadError, match="too large"):
            fetch(
                server.url("model.pth"),
                sha256=DIGEST,
                cache=tmp_path,
                limits=limits,
                opener=build_opener(),
            )
        assert _files(tmp_path) == []


def test_a_slow_download_ends_and_is_continued(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that advances one second with every look at it."""
    url, opener = server.url("model.pth"), build_opener()
    with monkeypatch.context() as patch:
        patch.setattr("dim.download.time", SimpleNamespace(monotonic=itertools.count().__next__))
        with pytest.raises(DownloadError, match=r"(?s)not finished after 3 seconds.*is continued"):
            fetch(url, sha256=DIGEST, cache=tmp_path, limits=Limits(seconds=3), opener=opener)
    assert fetch(url, sha256=DIGEST, cache=tmp_path, opener=opener).read_bytes() == CONTENT
    assert server.asked[1] != ""


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "9" * 5000, "١٢"])
def test_a_wrong_content_length(server: Server, tmp_path: Path, length: str) -> None:
    server.length = length.encode().decode("latin-1")
    with pytest.raises(DownloadError, match=r"Content-Length|line is longer"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())


def test_threads_may_fetch_one_file(server: Server, tmp_path: Path) -> None:
    server.pause = 0.01

    def get(_: int) -> Path:
        return fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, opener=build_opener())

    with ThreadPoolExecutor(6) as pool:
        (path,) = set(pool.map(get, range(6)))
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path) == ["model.pth"]
