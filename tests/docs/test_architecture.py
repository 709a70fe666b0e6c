"""The glossary of docs/architecture.md; tests/test_trips.py holds its trips."""

from __future__ import annotations

import re

from .documents import TOP

ARCHITECTURE = (TOP / "docs" / "architecture.md").read_text("utf-8")


def test_terms_of_the_glossary_are_sorted_and_explained_once() -> None:
    terms = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", ARCHITECTURE.split("## Glossary")[1], re.MULTILINE)[1:]
    assert len(terms) > 20
    assert [term.lower() for term in terms] == sorted({term.lower() for term in terms})
