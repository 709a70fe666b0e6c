"""Keep words that slow a reader down out of docstrings, comments, strings and Markdown.

    python tools/check_words.py                 # the whole repository but for what pyproject.toml exempts
    python tools/check_words.py docs runtime    # these files and folders

`words.toml` lists the words, what to write in their place, and for each an example that must be found and one
that must not. Code is not prose: names, inline code and code blocks are not looked at. Exit code 1 when a
word is found, 2 when a path does not exist.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parents[1]
WORD_LIST = Path(__file__).with_name("words.toml")
SUFFIXES = (".py", ".md", ".j2")
SKIPPED_FOLDERS = frozenset({"out", "site", "build", "dist", "node_modules"})

_FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4}|\t).*\n?)+")
_INLINE_CODE = re.compile(r"(`+)[^`]+?\1")
_NOT_A_NEWLINE = re.compile(r"[^\n]")


class Rule(NamedTuple):
    """A word that is kept out, and what to write in its place."""

    pattern: re.Pattern[str]
    instead: str
    wrong: tuple[str, ...]
    """Sentences in which the pattern must be found."""
    right: tuple[str, ...]
    """Sentences in which it must not be found."""


class Prose(NamedTuple):
    """A stretch of text that a person reads, and the line of the file at which it starts."""

    line: int
    text: str


class Finding(NamedTuple):
    """A word that was found, and where."""

    path: Path
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: “{self.word}”: {self.instead}"


def read_rules(path: Path = WORD_LIST) -> list[Rule]:
    """Read the word list; a blank in a pattern stands for any white space, ends of lines included."""
    entries = tomllib.loads(path.read_text("utf-8"))["word"]
    return [
        Rule(
            re.compile(r"\b(?:" + entry["find"].replace(" ", r"\s+") + r")\b", re.IGNORECASE),
            entry["instead"],
            tuple(entry["wrong"]),
            tuple(entry.get("right", ())),
        )
        for entry in entries
    ]


def find_words(text: str, rules: Iterable[Rule]) -> Iterator[tuple[int, str, str]]:
    """Yield (offset of the line, word, replacement) for each word of ``rules`` in ``text``."""
    for rule in rules:
        for match in rule.pattern.finditer(text):
            yield text.count("\n", 0, match.start()), " ".join(match.group().split()), rule.instead


def check_file(path: Path, rules: list[Rule]) -> list[Finding]:
    """Return the findings of one file, by line."""
    text = path.read_text("utf-8")
    stretches = python_prose(text) if path.suffix == ".py" else [Prose(1, markdown_prose(text))]
    found = {
        Finding(path, stretch.line + offset, word, instead)
        for stretch in stretches
        for offset, word, instead in find_words(stretch.text, rules)
    }
    return sorted(found, key=lambda finding: (finding.line, finding.word))


def markdown_prose(text: str) -> str:
    """Return ``text`` with code blocks and inline code blanked; lines keep their numbers."""
    for code in (_FENCED, _INDENTED, _INLINE_CODE):
        text = code.sub(lambda match: _NOT_A_NEWLINE.sub(" ", match.group()), text)
    return text


def python_prose(source: str) -> Iterator[Prose]:
    """Yield the comments of a module (consecutive lines together) and its strings, docstrings included."""
    yield from _comments(source)
    yield from _strings(ast.parse(source))


def _comments(source: str) -> Iterator[Prose]:
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != first + len(block):
            yield Prose(first, markdown_prose("\n".join(block)))
            block = []
        first = first if block else token.start[0]
        block.append(token.string.lstrip("#"))
    if block:
        yield Prose(first, markdown_prose("\n".join(block)))


def _strings(tree: ast.AST) -> Iterator[Prose]:
    inside_f_strings = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
    } - {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
    for node in ast.walk(tree):
        if id(node) in inside_f_strings:
            continue
        if isinstance(node, ast.JoinedStr):
            # What is filled in is unknown here: a sign that no pattern contains stands for it.
            parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield Prose(node.lineno, _INLINE_CODE.sub(" ", "".join(parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Prose(node.lineno, markdown_prose(node.value))


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield Python, Markdown and template files; hidden folders and outputs are left out.

    Raises:
        FileNotFoundError: for a path that does not exist.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(path)
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            inside = file.relative_to(path).parts[:-1]
            hidden = any(part.startswith(".") or part in SKIPPED_FOLDERS for part in inside)
            if file.is_file() and file.suffix in SUFFIXES and not hidden:
                yield file


def exempt_paths() -> list[Path]:
    """Return the files and folders that pyproject.toml exempts; FileNotFoundError for one that is gone."""
    table = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["check-words"]
    return [(TOP / name).resolve(strict=True) for name in table["exempt"]]


def main(arguments: list[str]) -> int:
    """Check files and folders, by default the repository; print what was found; return the exit code."""
    rules, exempt = read_rules(), exempt_paths()
    try:
        below = files_below([Path(name) for name in arguments] or [TOP])
        files = [file for file in below if not any(file.resolve().is_relative_to(path) for path in exempt)]
    except FileNotFoundError as error:
        print(f"error: no such file or folder: {error}", file=sys.stderr)
        return 2
    found = [finding for file in files for finding in check_file(file, rules)]
    for finding in found:
        print(finding._replace(path=_shown(finding.path)))
    print(f"{len(files)} files, {len(found)} words to replace")
    return 1 if found else 0


def _shown(path: Path) -> Path:
    return path.resolve().relative_to(TOP) if path.resolve().is_relative_to(TOP) else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
