"""Optional packages: an error that names the extra to install."""

from __future__ import annotations

import os
from importlib import import_module

from dim.errors import MissingExtraError


def require(task: str, *packages: str, extra: str = "export") -> None:
    """Raise MissingExtraError for the first package that cannot be imported.

    Args:
        task: the action that needs the packages, for the error.
        packages: names of modules.
        extra: extra of this distribution that installs them.
    """
    silence_onnxruntime()
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(task, package=package, extra=extra, cause=error) from error


def silence_onnxruntime() -> None:
    """Turn off the telemetry of ONNX Runtime, which from 1.29 on sends facts about models over the network.

    Call it before onnxruntime is imported for the first time. ``ORT_DISABLE_TELEMETRY=0`` in the
    environment of the process keeps telemetry on.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
