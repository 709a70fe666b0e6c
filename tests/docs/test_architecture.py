"""Every file that a trip of docs/architecture.md names exists, and a real run of that trip enters it."""

from __future__ import annotations

import re

import pytest

import trips

from .documents import TOP

TRIPS = {"Image → alpha": "image", "Checkpoint → verified ONNX": "verified", "Recipe → checkpoint": "train"}


def stations(text: str) -> dict[str, list[str]]:
    """Return by heading the file that each numbered line begins with."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        lines = re.findall(r"^\d+\. (.*)$", section, re.MULTILINE)
        if lines:
            found[section.splitlines()[0]] = [re.match(r"`([^`]+)`: ", line)[1] for line in lines]  # type: ignore[index]
    return found


ARCHITECTURE = (TOP / "docs" / "architecture.md").read_text("utf-8")


def test_every_trip_is_described_in_about_ten_lines() -> None:
    found = stations(ARCHITECTURE)
    assert set(found) == set(TRIPS)
    assert all(8 <= len(files) <= 12 and len(set(files)) == len(files) for files in found.values())


@pytest.mark.parametrize("heading", TRIPS)
def test_the_run_enters_every_file_that_the_trip_names(heading: str) -> None:
    for package in ("torch", "onnxscript", "onnxruntime", "accelerate"):
        pytest.importorskip(package)
    entered = set(trips.measured(TRIPS[heading])["entered"])
    assert [file for file in stations(ARCHITECTURE)[heading] if file not in entered] == []


def test_terms_of_the_glossary_are_sorted_and_explained_once() -> None:
    terms = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", ARCHITECTURE.split("## Glossary")[1], re.MULTILINE)[1:]
    assert len(terms) > 20
    assert [term.lower() for term in terms] == sorted({term.lower() for term in terms})
