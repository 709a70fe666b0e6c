"""The checkpoint argument of command lines: a path, a URL, or the name of a published file."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from urllib.request import OpenerDirector

from dim.download import Progress, fetch, is_url, require_sha256
from dim.errors import InputError
from dim.files import problem_of

_OPENMMLAB = "https://download.openmmlab.com/mmediting/mattors/dim/dim_"
_SCORED = "1x1_1000k_comp1k_SAD"

PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "openmmlab/dim_stage1": f"{_OPENMMLAB}stage1_v16_{_SCORED}-53.8_20200605_140257-979a420f.pth",
        "openmmlab/dim_stage2": f"{_OPENMMLAB}stage2_v16_pln_{_SCORED}-52.3_20200607_171909-d83c4775.pth",
        "openmmlab/dim_stage3": f"{_OPENMMLAB}stage3_v16_pln_{_SCORED}-50.6_20200609_111851-647f24b6.pth",
    }
)
"""Addresses of OpenMMLab's checkpoints by name. An address ends with the first 8 digits of the file's
SHA-256, and a download is checked against them."""


def locate(
    argument: str | Path,
    *,
    sha256: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    opener: OpenerDirector | None = None,
) -> Path:
    """Return the local file of a checkpoint argument, downloaded into the cache if necessary.

    An existing file takes precedence over a published name. The folder of a training run stands for its best
    weights, or for the newest ones before the first validation. A missing path is returned unchanged; the
    reader raises.

    Args:
        argument: a path, an https URL, or a name of :data:`PUBLISHED`; a suffix ``#sha256=…`` is a digest, as
            in pip's URLs.
        sha256: digest that the file must have, hexadecimal, 8 to 64 digits; it takes precedence over the
            suffix. A URL requires one of them unless its name ends with 8 of its digits.
        cache, progress, opener: see :func:`dim.download.fetch`.

    Raises:
        InputError: an unknown published name, or a file with another digest.
        dim.download.DownloadError: the download failed, or the file is not the published one.
    """
    path = Path(argument)
    text, named = (str(argument), None) if problem_of(path) is None else _without_digest(str(argument))
    path, expected = Path(text), sha256 or named
    problem = problem_of(path)
    if problem == "a folder":
        path, problem = _weights_of_run(path), None
    if problem is None:
        if expected is not None:
            require_sha256(path, expected)
        return path
    if text in PUBLISHED:
        _require_agreement(text, expected)
    if text in PUBLISHED or is_url(text):
        url = PUBLISHED.get(text, text)
        return fetch(url, sha256=expected, cache=cache, progress=progress, opener=opener)
    _refuse_unknown_name(text)
    return path


def _weights_of_run(folder: Path) -> Path:
    """Return the weights in the folder of a training run or in its ``last/``.

    Raises:
        InputError: the folder holds none.
    """
    names = (
        "best.safetensors", "last/averaged.safetensors", "last/model.safetensors", "averaged.safetensors",
        "model.safetensors",
    )  # fmt: skip
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(
            f"cannot find weights in the folder {folder}",
            expected="a checkpoint, or the folder of a training run",
            why="it holds neither best.safetensors nor last/model.safetensors",
        )
    return found


def _without_digest(text: str) -> tuple[str, str | None]:
    """Split ``TEXT#sha256=DIGEST``."""
    start, mark, digest = text.rpartition("#sha256=")
    return (start, digest) if mark else (text, None)


def _require_agreement(name: str, sha256: str | None) -> None:
    digits = PUBLISHED[name].rpartition("-")[2].partition(".")[0]
    if sha256 is not None and not sha256.lower().startswith(digits):
        raise InputError(
            f"cannot use {name}: it is published with another SHA-256", got=sha256, expected=f"{digits}…"
        )


def _refuse_unknown_name(text: str) -> None:
    """Raise InputError for a misspelt name: ``openmmlab/…`` without a suffix that is no file."""
    publisher, _, name = text.partition("/")
    if publisher in {known.partition("/")[0] for known in PUBLISHED} and "." not in name:
        nearest = get_close_matches(text, PUBLISHED, n=1, cutoff=0)
        raise InputError(
            f"unknown published checkpoint {text}", expected=", ".join(PUBLISHED), fix=f"{nearest[0]}?"
        )
