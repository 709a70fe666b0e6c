"""Graphs that OpenVINO compiled, kept on disk: the next process loads them in a third of the time.

OpenVINO has such a cache (``CACHE_DIR``), but does not notice damage: with flipped bits in a cached file it
computed other alphas without an error. Here each file begins with the SHA-256 of what follows.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dim.errors import InputError
from dim.files import write_bytes

_log = logging.getLogger(__name__)

DIGEST_BYTES = 32


class GraphCache:
    """A folder of compiled graphs.

    A compiled graph runs as it is, so the folder must be one that only this user, or root, may write to.

    Args:
        folder: made if it is missing.

    Raises:
        InputError: no folder, or one that others may write to.
    """

    def __init__(self, folder: Path) -> None:
        _require_private(folder)
        self._folder = folder

    def compile(
        self, core: Any, model: Any, graph: Path | bytes, device: str, options: Mapping[str, Any]
    ) -> Any:
        """Return the compiled graph from the folder, or compile and add it.

        Args:
            core: ``openvino.Core``.
            model: ``openvino.Model``, read from ``graph``.
            graph: the ONNX file, or what it holds.
            device: OpenVINO's name of the device.
            options: OpenVINO's options for it.
        """
        file = self._folder / f"{_key(core, graph, device, options)}.blob"
        found = _load(file, core, device, options)
        if found is None:
            found = core.compile_model(model, device, options)
            stream = io.BytesIO()
            found.export_model(stream)
            content = stream.getvalue()
            write_bytes(file, hashlib.sha256(content).digest() + content)
        return found


def _require_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise InputError(f"cannot use the cache {folder}", why=str(error)) from error
    if os.name != "posix":
        return
    if status.st_uid not in (0, os.getuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"cannot use the cache {folder}",
            got=f"owner {status.st_uid}, mode {stat.filemode(status.st_mode)}",
            expected="a folder that only its owner, you, may write to",
            why="OpenVINO runs the compiled graphs that it holds",
            fix=f"chmod 700 {folder}, or another folder",
        )


def _key(core: Any, graph: Path | bytes, device: str, options: Mapping[str, Any]) -> str:
    """Return a compiled graph's name, which depends on graph, options, OpenVINO's version and processor."""
    digest = hashlib.sha256(graph if isinstance(graph, bytes) else graph.read_bytes())
    about = (
        sorted((name, str(value)) for name, value in options.items()),
        device,
        str(core.get_versions(device)[device].build_number),
        core.get_property(device, "FULL_DEVICE_NAME"),
        core.get_property(device, "OPTIMIZATION_CAPABILITIES"),
    )
    digest.update(repr(about).encode())
    return digest.hexdigest()


def _load(file: Path, core: Any, device: str, options: Mapping[str, Any]) -> Any:
    """Return the compiled graph of a file; None without one, or with one that cannot be used."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {file}", why=str(error)) from error
    digest, compiled = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(compiled).digest() != digest:
        _log.warning("%s is damaged: the graph is compiled again", file)
        return None
    try:
        return core.import_model(io.BytesIO(compiled), device, dict(options))
    except RuntimeError as error:
        _log.warning("OpenVINO cannot load %s (%s): the graph is compiled again", file, error)
        return None
