"""The checks of the documentation site, on pages made here."""

from __future__ import annotations

from pathlib import Path

from build_docs import broken_links, warnings_of


def test_links_inside_the_site_are_followed(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "index.html").write_text('<h2 id="here">Here</h2><a href="../#top">up</a>', "utf-8")
    (tmp_path / "index.html").write_text(
        '<h1 id="top">Top</h1><a href="guide/#here">right</a><a href="https://example.org">outside</a>',
        "utf-8",
    )
    assert broken_links(tmp_path) == []


def test_missing_pages_names_and_pictures_and_foreign_scripts_are_problems(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="gone/"></a><a href="#gone"></a><img src="gone.jpg"><script src="https://example.org/x.js">',
        "utf-8",
    )
    assert broken_links(tmp_path) == [
        "index.html: loads https://example.org/x.js from elsewhere",
        "index.html: broken link gone/",
        "index.html: broken link #gone",
        "index.html: broken link gone.jpg",
    ]


def test_every_unusual_line_of_the_generator_is_a_problem() -> None:
    usual = "Build started\nNo issues found\nBuild finished in 5.20s\n"
    assert warnings_of(usual) == []
    assert warnings_of(f"griffe: a.py:1: no such parameter\n{usual}") == ["griffe: a.py:1: no such parameter"]
