"""Files from the web: over https only, checked against their SHA-256, kept in a cache."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from dim import files
from dim.errors import DimError, InputError

Progress = Callable[[int, int | None], object]
"""Called with the bytes that are there and the bytes in all, None where the server does not tell."""

_NAMED_DIGEST = re.compile(r"-([0-9a-f]{8})\.\w+$")
"""OpenMMLab's published files end like this: eight digits of their SHA-256, then the suffix."""

_DIGEST = re.compile(r"[0-9a-f]{8,64}")
_FOLDER_DIGITS = 8
_BLOCK = 1 << 20
_TIMEOUT = 30
"""Seconds without a byte."""
_RANGE_NOT_SATISFIABLE = 416


class DownloadError(DimError):
    """A file that the web did not give, or not as it was published."""


def is_url(text: str) -> bool:
    """Whether a text is a URL and not a path."""
    return "://" in text


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    allow_local: bool = False,
) -> Path:
    """A file of the web as a local one: from the cache, or downloaded into it.

    A download that is cut off goes on where it stopped when it is asked for again. The cache holds only whole
    files, and their digest is checked every time.

    Args:
        url: https only, redirections too.
        sha256: hexadecimal, all 64 digits or at least the first 8; None takes the 8 digits at the end of the
            file's name, where OpenMMLab publishes them.
        cache: folder; None for :func:`cache_folder`.
        progress: see :data:`Progress`.
        allow_local: take file:// and http://127.0.0.1 too; made for tests.

    Raises:
        InputError: no digest, or no https.
        DownloadError: the download failed, or the file is not the published one; nothing of it is kept then.
    """
    _require_secure(url, allow_local)
    expected = _expected_digest(url, sha256)
    target = (cache or cache_folder()) / expected[:_FOLDER_DIGITS] / _file_name(url)
    if target.is_file() and files.sha256(target).startswith(expected):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _partial_file(target) as partial:
            _transfer(url, partial, _opener(allow_local), progress)
            _require_published(url, partial, expected)
            os.replace(partial, target)
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"cannot download {url}",
            why=str(error) or type(error).__name__,
            fix=f"try again, it goes on where it stopped; or put the file at {target} by other means",
        ) from error
    return target


def require_sha256(path: Path, expected: str) -> None:
    """InputError unless the file's SHA-256 begins with these digits, 8 to 64."""
    found = files.sha256(path)
    if not found.startswith(_normalised(expected)):
        raise InputError(
            f"cannot use {path}: it is not the file that was asked for",
            got=f"SHA-256 {found}",
            expected=expected,
        )


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/dim-matting``, by default ``~/.cache/dim-matting``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "dim-matting"


def _require_secure(url: str, allow_local: bool) -> None:
    parts = urlsplit(url)
    local = parts.scheme == "file" or (parts.scheme == "http" and parts.hostname == "127.0.0.1")
    if parts.scheme != "https" and not (allow_local and local):
        raise InputError(
            f"cannot download {url}",
            got=f"{parts.scheme}://",
            expected="https://",
            why="what comes over an open line can be changed on the way",
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
            expected="what the publisher of the file says",
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


class _CheckedRedirects(HTTPRedirectHandler):
    """A redirection must be as secure as the first address."""

    def __init__(self, allow_local: bool) -> None:
        self.allow_local = allow_local

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        _require_secure(newurl, self.allow_local)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(allow_local: bool) -> OpenerDirector:
    return build_opener(_CheckedRedirects(allow_local))


@contextlib.contextmanager
def _partial_file(target: Path) -> Iterator[Path]:
    """A file of this call's own for the download, with what an earlier, interrupted one left.

    The leftover is taken by renaming it, which only one of several processes can do; the others start anew.
    What is still there at the end is left for the next one.
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


def _transfer(url: str, partial: Path, opener: OpenerDirector, progress: Progress | None) -> None:
    """Bring ``partial`` up to the whole file; bytes that are there are not asked for again."""
    start = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the digest tells whether it is the right file
        raise
    with response:
        resumed = response.status == 206
        with partial.open("ab" if resumed else "wb") as file:
            _copy(response, file, start if resumed else 0, progress)


def _copy(response: Any, file: IO[bytes], start: int, progress: Progress | None) -> None:
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    done = start
    while block := response.read(_BLOCK):
        file.write(block)
        done += len(block)
        if progress is not None:
            progress(done, total)
    if total is not None and done < total:
        raise HTTPException(f"the connection ended after {done} of {total} bytes")


def _require_published(url: str, partial: Path, expected: str) -> None:
    found = files.sha256(partial)
    if found.startswith(expected):
        return
    size = partial.stat().st_size
    partial.unlink()
    raise DownloadError(
        f"cannot use what {url} gave: it is not the published file",
        got=f"SHA-256 {found}, {size} bytes",
        expected=expected,
        why="the file was replaced, or the address gives a page instead of it",
        fix="--sha256 with what the publisher says; nothing of the download was kept",
    )
