"""What the commands share: files that are complete or not there."""

from __future__ import annotations

import os
from pathlib import Path

from dim.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 under a temporary name and rename it; the folder is made. InputError if it cannot be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}", why=error.strerror or str(error)) from error
    finally:
        if temporary.is_file():
            temporary.unlink()
