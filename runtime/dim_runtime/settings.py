"""The arguments of :class:`~dim_runtime.matting.Matting` as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dim_runtime.backends.open import BackendName, Precision
from dim_runtime.planning.planner import Context, Tile


@dataclass(frozen=True)
class MattingOptions:
    """The arguments of :class:`~dim_runtime.matting.Matting`: plain values to compare, store and send.

    They are validated by :meth:`~dim_runtime.matting.Matting.from_options`.

    Attributes:
        model: an ``.onnx`` or ``.engine`` file, or the name of a shipped model; None for the
            embedded one.
        backend: None for the usual one of the file's suffix.
        device: "cpu", "cuda" or "cuda:N".
        precision: None for the artefact's own.
        tile: largest window side, pixels, or "auto".
        context: pixels around each core, or "exact".
        threads: threads of one operator; None for the engine's choice.
        memory_limit: peak resident memory of the process, bytes; None for no limit.
        cache: folder for graphs that OpenVINO compiles; None for none.
    """

    model: str | Path | None = None
    backend: BackendName | None = None
    device: str = "cpu"
    precision: Precision | None = None
    tile: Tile = "auto"
    context: Context = "exact"
    threads: int | None = None
    memory_limit: int | None = None
    cache: Path | None = None
