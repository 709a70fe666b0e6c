"""The items of a batch: a table of image, trimap and output, or folders of pairs."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dim.documents import parse_json
from dim.errors import InputError
from dim.images.files import WRITABLE
from dim_runtime.batch import storage
from dim_runtime.images.pairs import pair_up

COLUMNS = ("image", "trimap")
OUTPUT = "output"
TABLES = (".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Item:
    """One image to matte.

    Attributes:
        image, trimap: local paths or names with a scheme; absolute or relative to the working folder.
        output: relative to the output folder, with slashes; PNG or TIFF.
        problem: why it cannot be done, if that is known before reading it.
    """

    image: str
    trimap: str
    output: str
    problem: str | None = None


def read_items(source: str, trimaps: Path | None = None) -> list[Item]:
    """Read the items of a batch, in order.

    Args:
        source: a table, ``.csv`` with a header or ``.jsonl`` with an object a line, whose columns are
            ``image``, ``trimap`` and, optional, ``output`` (else the image's name with ``.png``); names are
            relative to the table. Or a folder that holds ``images/`` and ``trimaps/``, or with ``trimaps`` a
            folder of images.
        trimaps: folder of trimaps.

    Raises:
        InputError: no such table or folder, a line that is not usable, two items with one output.
    """
    if PurePosixPath(source).suffix.lower() in TABLES and trimaps is None:
        items = _table(source)
    elif storage.is_remote(source):
        raise InputError(f"cannot list {source}", expected=f"a table, {', '.join(TABLES)}, or a local folder")
    else:
        items = _from_folders(storage.local(source), trimaps)
    require_distinct(items)
    return items


def _from_folders(folder: Path, trimaps: Path | None) -> list[Item]:
    found = pair_up(folder, trimaps)
    items = [Item(str(pair.image), str(pair.trimap), f"{pair.name}.png") for pair in found.pairs]
    items += [Item("", "", f"{lone.name}.png", lone.problem) for lone in found.unpaired]
    return sorted(items, key=lambda item: item.output)


def _table(source: str) -> list[Item]:
    folder = source.rsplit("/", 1)[0] if storage.is_remote(source) else str(storage.local(source).parent)
    with storage.readable(source) as path:
        if not path.is_file():
            raise InputError(f"cannot read the table {source}", got="no such file")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"cannot read the table {source}", expected="text in UTF-8") from error
        except OSError as error:
            raise InputError(f"cannot read the table {source}", why=error.strerror or str(error)) from error
    rows = _csv(source, text) if source.lower().endswith(".csv") else _json_lines(source, text)
    items = [_item(f"{source}, line {number}", row, folder) for number, row in rows]
    if not items:
        raise InputError(f"there is nothing to do in {source}", expected="one line for each image")
    return items


def _csv(source: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(_lines(text))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"cannot read {source}, line {reader.line_num}", why=str(error)) from error


def _lines(text: str) -> list[str]:
    """Split at line feeds only: str.splitlines also splits at U+2028 and U+0085, which names may hold."""
    return [line.removesuffix("\r") for line in text.replace("\r\n", "\n").split("\n")]


def _json_lines(source: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(f"cannot read {source}, line {number}", why=str(error)) from error
        if not isinstance(row, dict):
            raise InputError(f"cannot read {source}, line {number}", got=line, expected="a JSON object")
        yield number, row


def _item(place: str, row: dict[str, Any], folder: str) -> Item:
    for column in COLUMNS:
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise InputError(
                f"cannot use {place}",
                got=f"nothing for {column!r}",
                expected="the columns image, trimap and, optional, output",
            )
    image, trimap = (row[column].strip() for column in COLUMNS)
    named = row.get(OUTPUT) or ""
    if not isinstance(named, str):
        raise InputError(f"cannot use {place}", got=f"the output {named!r}", expected="a file name")
    output = named.strip() or f"{PurePosixPath(image).stem}.png"
    for name in (image, trimap, output):
        _require_file_name(place, name)
    _require_inside(place, output)
    # Normalised: "a.png", "./a.png" and ".//a.png" are one file.
    return Item(storage.join(folder, image), storage.join(folder, trimap), str(PurePosixPath(output)))


def _require_file_name(place: str, name: str) -> None:
    """Raise InputError for a name that no file can have: half of a surrogate pair, which JSON may hold."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise InputError(
            f"cannot use {place}", got=f"the name {name!a}", expected="a file name", why=error.reason
        ) from error


def _require_inside(place: str, output: str) -> None:
    path = PurePosixPath(output.replace("\\", "/"))
    if "\0" in output:
        raise InputError(f"cannot use {place}", got="a NUL character in the output", expected="a file name")
    if path.is_absolute() or ".." in path.parts or "://" in output:
        raise InputError(
            f"cannot use {place}", got=f"the output {output}", expected="a name inside the output folder"
        )
    if path.suffix.lower() not in WRITABLE:
        raise InputError(f"cannot use {place}", got=f"the output {output}", expected=" or ".join(WRITABLE))


def require_distinct(items: Iterable[Item], key: Callable[[str], str] = str) -> None:
    """Raise InputError if two items have one output.

    Args:
        key: names with the same key are one file of the output folder.
    """
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(key(item.output), []).append(item.output)
    twice = [names for names in groups.values() if len(names) > 1]
    if twice:
        raise InputError(
            "two images of this batch would be written to one file",
            got=f"{' and '.join(dict.fromkeys(twice[0]))}{f', {len(twice) - 1} more' if twice[1:] else ''}",
            fix="give each its own name in a column 'output'",
        )
