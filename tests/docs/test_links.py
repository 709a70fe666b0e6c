"""Every relative link of a document leads to a file that exists, every anchor to a heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .documents import TOP, anchors, documents, inline_code, links, name


def broken_links(document: Path) -> list[str]:
    """Return the relative links of ``document`` whose file or heading does not exist."""
    found = []
    for link in links(document.read_text("utf-8")):
        if link.startswith(("http://", "https://", "mailto:", "../../actions/")):  # GitHub resolves the last
            continue
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            found.append(link)
    return found


def missing_files(document: Path) -> list[str]:
    """Return the Python and recipe files that ``document`` names in inline code and that do not exist.

    A name is a path from the top of the repository, or the end of one.
    """
    found = []
    for code in inline_code(document.read_text("utf-8")):
        path = code.removeprefix("…/")
        if re.fullmatch(r"[\w*./-]+\.(py|toml)", path) and not any(TOP.glob(f"**/{path}")):
            found.append(code)
    return found


@pytest.mark.parametrize("document", documents(), ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []


HISTORY = ("CHANGELOG.md", "docs/decisions.md", "docs/models/compact-log.md")
"""Documents that name files of the past."""


@pytest.mark.parametrize(
    "document", [document for document in documents() if name(document) not in HISTORY], ids=name
)
def test_files_that_are_named_exist(document: Path) -> None:
    assert missing_files(document) == []


def test_a_broken_link_a_broken_anchor_and_a_missing_file_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n\n[a](page.md#one-heading) [b](page.md#two) [c](gone.md) `gone.py`\n", "utf-8"
    )
    assert broken_links(page) == ["page.md#two", "gone.md"]
    assert missing_files(page) == ["gone.py"]
