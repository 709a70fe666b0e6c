"""Files from the web: over HTTPS only, checked against their SHA-256, kept in a cache."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from dim import files
from dim.errors import DimError, InputError

Progress = Callable[[int, int | None], object]
"""Called with (received, total) bytes; total is None without Content-Length."""

_NAMED_DIGEST = re.compile(r"-([0-9a-f]{8})\.\w+$")
"""End of the names of OpenMMLab's published files: eight digits of their SHA-256, then the suffix."""

_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_FOLDER_DIGITS = 8
_BLOCK = 1 << 20
_TIMEOUT = 30
"""Seconds without a byte after which a connection counts as lost."""
_RANGE_NOT_SATISFIABLE = 416


class Limits(NamedTuple):
    """Limits of one download.

    Attributes:
        bytes: largest file. The published checkpoints have about 100 MB.
        seconds: longest transfer; a repeated call continues it.
    """

    bytes: int = 4 << 30
    seconds: float = 3600


DEFAULT_LIMITS = Limits()


class DownloadError(DimError):
    """The download failed, or its SHA-256 does not match."""


class SecureRedirects(HTTPRedirectHandler):
    """Follows redirects to HTTPS only."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """Return the request for the new address; InputError unless it is HTTPS."""
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_url(text: str) -> bool:
    """Return whether a text is a URL and not a path."""
    return "://" in text


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT_LIMITS,
    opener: OpenerDirector | None = None,
) -> Path:
    """Return the local copy of a file of the web: from the cache, or downloaded into it.

    An interrupted download is continued by the next call. The cache holds only whole files, and their digest
    is checked at every call. Threads and processes may fetch the same file at the same time.

    Args:
        url: address of the file.
        sha256: hexadecimal, all 64 digits or at least the first 8; None takes the 8 digits at the end of the
            file's name, where OpenMMLab publishes them.
        cache: folder; None for :func:`cache_folder`.
        progress: see :data:`Progress`.
        limits: see :class:`Limits`.
        opener: opens the URL; None accepts HTTPS only, redirects included.

    Raises:
        InputError: no digest, or not HTTPS.
        DownloadError: the download failed or exceeds a limit, or the file is not the published one; then no
            part of it is kept.
    """
    if opener is None:
        _require_https(url)
        opener = build_opener(SecureRedirects())
    expected = _expected_digest(url, sha256)
    target = (cache or cache_folder()) / expected[:_FOLDER_DIGITS] / _file_name(url)
    if target.is_file() and files.sha256(target).startswith(expected):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _partial_file(target) as partial:
            _transfer(url, partial, opener, progress, limits)
            _require_published(url, partial, expected)
            os.replace(partial, target)
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"cannot download {url}",
            why=str(error) or type(error).__name__,
            fix=f"try again, the download is continued; or copy the file to {target}",
        ) from error
    return target


def require_sha256(path: Path, expected: str) -> None:
    """Raise InputError unless the file's SHA-256 begins with these digits, 8 to 64."""
    found = files.sha256(path)
    if not found.startswith(_normalised(expected)):
        raise InputError(
            f"cannot use {path}: its SHA-256 does not match", got=f"SHA-256 {found}", expected=expected
        )


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/dim-matting``, by default ``~/.cache/dim-matting``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "dim-matting"


def _require_https(url: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme != "https":
        raise InputError(
            f"cannot download {url}",
            got=f"{scheme}://",
            expected="https://",
            why="plain HTTP can be tampered with in transit",
            fix="use https, or download the file by other means and give its path",
        )


def _expected_digest(url: str, sha256: str | None) -> str:
    if sha256 is not None:
        return _normalised(sha256)
    named = _NAMED_DIGEST.search(urlsplit(url).path)
    if named is None:
        raise InputError(
            f"cannot download {url} unchecked",
            got="no SHA-256, and no 8 digits of it at the end of the file's name",
            expected="the SHA-256 that the publisher of the file states",
            fix="sha256=… (--sha256 …)",
        )
    return named[1]


def _normalised(sha256: str) -> str:
    if not _DIGEST.fullmatch(sha256.lower()):
        raise InputError(
            "cannot check against this SHA-256", got=repr(sha256), expected="8 to 64 hexadecimal digits"
        )
    return sha256.lower()


def _file_name(url: str) -> str:
    name = re.sub(r"[^\w.+-]", "_", PurePosixPath(unquote(urlsplit(url).path)).name)
    if name.strip(".") == "":
        raise InputError(f"cannot download {url}", got="no file name at its end")
    return name


@contextlib.contextmanager
def _partial_file(target: Path) -> Iterator[Path]:
    """Yield this call's own file for the download, with the bytes of an earlier, interrupted one.

    Only one of several calls can rename the earlier file to its own; the others start from the beginning. A
    file that remains at the end is left for the next call.
    """
    leftover, own = files.resumable_path(target), files.temporary_path(target)
    _rename_if_there(leftover, own)
    try:
        yield own
    finally:
        _rename_if_there(own, leftover)


def _rename_if_there(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.replace(source, target)


def _transfer(
    url: str, partial: Path, opener: OpenerDirector, progress: Progress | None, limits: Limits
) -> None:
    """Download what ``partial`` lacks; bytes that it has are not requested again."""
    start = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    deadline = time.monotonic() + limits.seconds
    try:
        response = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the digest shows whether it is the right file
        raise
    with response:
        resumed = response.status == 206
        received = start if resumed else 0
        total = _total(response.headers.get("Content-Length"), received)
        with partial.open("ab" if resumed else "wb") as file:
            # read1 returns after each packet, so that the deadline also holds for a slow server.
            while block := response.read1(_BLOCK):
                received += len(block)
                if max(received, total or 0) > limits.bytes:
                    partial.unlink()
                    raise _too_large(url, max(received, total or 0), limits)
                file.write(block)
                if progress is not None:
                    progress(received, total)
                if time.monotonic() > deadline and received != total:
                    raise HTTPException(f"not finished after {limits.seconds:g} seconds")
    if total is not None and received < total:
        raise HTTPException(f"the connection ended after {received} of {total} bytes")


def _total(content_length: str | None, received: int) -> int | None:
    if content_length is None:
        return None
    if not (content_length.isascii() and content_length.isdigit() and len(content_length) < 20):
        raise HTTPException(f"the server sent Content-Length {content_length[:80]!r}")
    return received + int(content_length)


def _too_large(url: str, size: int, limits: Limits) -> DownloadError:
    return DownloadError(
        f"cannot download {url}: the file is too large",
        got=f"{size} bytes or more",
        expected=f"at most {limits.bytes}",
        fix="download the file by other means and give its path",
    )


def _require_published(url: str, partial: Path, expected: str) -> None:
    found = files.sha256(partial)
    if found.startswith(expected):
        return
    size = partial.stat().st_size
    partial.unlink()
    raise DownloadError(
        f"cannot use the download of {url}: it is not the published file",
        got=f"SHA-256 {found}, {size} bytes",
        expected=expected,
        why="the file was replaced, or the address leads to a web page",
        fix="--sha256 with the publisher's digest; no part of the download was kept",
    )
