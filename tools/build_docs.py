"""Build the documentation site into site/, and fail on any warning, broken link or missing picture.

    python tools/build_docs.py

Zensical's strict mode passes links to missing files, and the warnings of griffe, which reads the docstrings.
So the output is read here, and every link of the finished pages is followed inside the site.
"""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOP = Path(__file__).resolve().parents[1]
SITE = TOP / "site"
BUILD = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
EXPECTED_OUTPUT = ("Build started", "Build finished", "No issues found")
LOADED = {"img": "src", "script": "src", "link": "href", "source": "src"}
"""Elements whose target a browser loads with the page, and the attribute that names it."""


class Page(HTMLParser):
    """Links of a page, files that it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the targets and the name of one element."""
        given = {key: value for key, value in attrs if value}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given[LOADED[tag]])


def broken_links(site: Path) -> list[str]:
    """Return a line for each link or picture without a target, and for each file loaded from elsewhere."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        shown = path.relative_to(site).as_posix()
        found += [f"{shown}: loads {url} from elsewhere" for url in page.loads if urlsplit(url).netloc]
        for url in [*page.links, *page.loads]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].names if target in pages else {parts.fragment}
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in known):
                found.append(f"{shown}: broken link {url}")
    return found


def warnings_of(output: str) -> list[str]:
    """Return the lines of the generator's output that are not its usual ones."""
    lines = [line.strip() for line in output.splitlines()]
    return [line for line in lines if line and not line.startswith(EXPECTED_OUTPUT)]


def main() -> int:
    """Build, check, print the problems; return the exit code."""
    done = subprocess.run(BUILD, cwd=TOP, capture_output=True, text=True, check=False)
    problems = warnings_of(done.stdout + done.stderr)
    if not done.returncode:
        problems += broken_links(SITE)
    print("\n".join(problems))
    pages = len(list(SITE.rglob("*.html")))
    print(f"{pages} pages in {SITE.relative_to(TOP)}/, {len(problems)} problems")
    return 1 if problems or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
