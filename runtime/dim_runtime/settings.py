"""The arguments of :class:`~dim_runtime.matting.Matting` as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from dim_runtime.backends.open import BackendName, Precision
from dim_runtime.inference.tiler import Progress
from dim_runtime.matting import Matting
from dim_runtime.planning.planner import Context


@dataclass(frozen=True)
class MattingOptions:
    """The arguments of :class:`Matting`, as plain values that can be compared, written down and sent away."""

    model: Path | None = None
    backend: str | None = None
    device: str = "cpu"
    precision: str | None = None
    tile: int = 1536
    context: Context = "exact"
    threads: int | None = None
    memory_limit: int | None = None

    def open(self, progress: bool | Progress = False) -> Matting:
        """Load the model; errors as :class:`Matting`."""
        arguments: dict[str, Any] = asdict(self)
        # Names of back ends and precisions are checked where they are used: one list of each.
        arguments["backend"] = cast("BackendName | None", self.backend)
        arguments["precision"] = cast("Precision | None", self.precision)
        return Matting(**arguments, progress=progress)
