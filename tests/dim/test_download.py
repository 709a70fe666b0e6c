"""Downloads from a server in a thread: checked, cached, gone on with, and never half a file in the cache."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dim.download import DownloadError, cache_folder, fetch, require_sha256
from dim.errors import InputError
from dim.files import resumable_path
from dim.files import sha256 as digest

CONTENT = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves :data:`CONTENT` under every name; ``cut`` ends the next answers early, ``asked`` logs ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cut: int | None = None
        self.with_ranges = True
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
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut])

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
        allow_local=True,
        progress=lambda done, total: reports.append((done, total)),
    )
    assert path.read_bytes() == CONTENT
    assert path.name == "model.pth"
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    server.shutdown()
    assert fetch(server.url("model.pth"), sha256=DIGEST.upper(), cache=tmp_path, allow_local=True) == path
    assert len(server.asked) == 1
    assert _files(tmp_path) == ["model.pth"]


def test_the_digits_in_the_name_are_checked(server: Server, tmp_path: Path) -> None:
    good, bad = (server.url(f"dim_SAD-50.6_2020-{digits}.pth") for digits in (DIGEST[:8], "0123abcd"))
    assert fetch(good, cache=tmp_path, allow_local=True).is_file()
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(bad, cache=tmp_path, allow_local=True)


def test_nothing_is_kept_of_a_wrong_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=DIGEST):
        fetch(server.url("model.pth"), sha256="0" * 64, cache=tmp_path, allow_local=True)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("with_ranges", [True, False])
def test_a_cut_off_download_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, with_ranges: bool
) -> None:
    server.cut, server.with_ranges = 1_000_000, with_ranges
    with pytest.raises(DownloadError, match=f"1000000 of {len(CONTENT)} bytes"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)
    assert _files(tmp_path) == [resumable_path("model.pth").name]
    server.cut = None
    path = fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000000-"]
    assert _files(tmp_path) == ["model.pth"]


def test_a_whole_leftover_is_taken_and_a_wrong_one_is_not(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / DIGEST[:8]
    folder.mkdir()
    resumable_path(folder / "model.pth").write_bytes(CONTENT)
    assert fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True).is_file()
    resumable_path(folder / "other.pth").write_bytes(b"x" * 99)
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(server.url("other.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)
    assert fetch(server.url("other.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True).is_file()


def test_a_damaged_file_in_the_cache_is_replaced(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)
    path.write_bytes(CONTENT[:-1])
    assert fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True) == path
    assert digest(path) == DIGEST


def test_what_the_server_says_is_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404"):
        fetch(server.url("missing.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)


def test_local_files_are_for_tests(tmp_path: Path) -> None:
    source = tmp_path / "model.pth"
    source.write_bytes(CONTENT)
    path = fetch(source.as_uri(), sha256=DIGEST, cache=tmp_path / "cache", allow_local=True)
    assert path.read_bytes() == CONTENT
    with pytest.raises(InputError, match="file://"):
        fetch(source.as_uri(), sha256=DIGEST, cache=tmp_path / "cache")


def test_an_open_line_is_refused_even_behind_a_redirection(server: Server, tmp_path: Path) -> None:
    for url in (server.url("model.pth"), "http://example.org/model.pth"):
        with pytest.raises(InputError, match="https"):
            fetch(url, sha256=DIGEST, cache=tmp_path)
    with pytest.raises(InputError, match=r"http://example\.org"):
        fetch(server.url("elsewhere"), sha256=DIGEST, cache=tmp_path, allow_local=True)
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
    path = fetch(server.url("a/..%2f..%2fb%5cc%20d.pth"), sha256=DIGEST, cache=tmp_path, allow_local=True)
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
    with pytest.raises(DownloadError, match="by other means"):
        fetch(server.url("model.pth"), sha256=DIGEST, cache=tmp_path / "file", allow_local=True)
