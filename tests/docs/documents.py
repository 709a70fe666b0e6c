"""The repository's Markdown, taken apart: files, code blocks, tables, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]

_FENCED = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced code block: the document, the line of its first line of code, its language, its text."""

    document: str
    line: int
    language: str
    code: str


def documents() -> list[Path]:
    """Return every Markdown file of the repository, by path."""
    folders = ("dim", "docs", "examples", "export", "runtime", "tests", "tools", "training", ".github")
    inside = [
        path
        for folder in folders
        for path in (TOP / folder).rglob("*.md")
        if "node_modules" not in path.parts
    ]
    return sorted([*TOP.glob("*.md"), *inside])


def name(document: Path) -> str:
    """Return the document's path within the repository."""
    return document.relative_to(TOP).as_posix()


def without_code(text: str) -> str:
    """Return ``text`` without its fenced blocks and inline code."""
    return _CODE.sub("", _FENCED.sub("", text))


def code_blocks(*languages: str) -> list[Block]:
    """Return the fenced blocks in these languages, in the order of documents and lines."""
    found = []
    for document in documents():
        text = document.read_text("utf-8")
        for match in _FENCED.finditer(text):
            language = match[2].strip()
            if language in languages:
                found.append(
                    Block(name(document), text.count("\n", 0, match.start(3)) + 1, language, match[3])
                )
    return found


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yield (line of the document, words) for each command of a shell block; comments are left out."""
    lines = block.code.splitlines()
    start = 0
    while start < len(lines):
        end = start
        while lines[end].endswith("\\") and end + 1 < len(lines):
            end += 1
        joined = " ".join(line.rstrip("\\") for line in lines[start : end + 1])
        words = shlex.split(joined.replace("…", ""), comments=True)
        if words:
            yield block.line + start, words
        start = end + 1


def links(text: str) -> list[str]:
    """Return the targets of links and pictures outside code."""
    return _LINK.findall(_FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    slugs: set[str] = set()
    for heading in _HEADING.findall(_FENCED.sub("", text)):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        number = 0
        while (slug := f"{plain}-{number}" if number else plain) in slugs:
            number += 1
        slugs.add(slug)
    return slugs


def inline_code(text: str) -> list[str]:
    """Return the pieces of inline code outside fenced blocks."""
    return _CODE.findall(_FENCED.sub("", text))


def table_rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table whose header line is ``header``, row by row; fail without one."""
    lines = text.splitlines()
    assert header in lines, f"no table with the header {header}"
    start = lines.index(header) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
    return rows
