"""Take the picture of the page that the documentation shows: start a server, draw, propose a band.

python tools/page_screenshot.py -o docs/images/page.jpg
python tools/page_screenshot.py -o page.jpg --address http://127.0.0.1:8000   # of a server that runs
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import expect, sync_playwright

from dim_runtime.images.samples import sample_paths

BACKGROUND = [[(0.06, 0.15), (0.06, 0.9)], [(0.2, 0.1), (0.45, 0.12)], [(0.92, 0.1), (0.92, 0.6)]]
FOREGROUND = [
    [(0.55, 0.35), (0.62, 0.5), (0.6, 0.8)],
    [(0.45, 0.85), (0.75, 0.85)],
    # Over the eyes, which have the background's colours.
    [(0.42, 0.457), (0.54, 0.502)],
]


SERVE = "from dim_runtime.cli import main; main()"
STARTS_S = 120
"""Seconds that a server may take to become ready."""


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--address", help="of a server that runs; one is started without it")
    given = parser.parse_args()
    if given.address:
        take(given.address, given.output)
    else:
        with served() as address:
            take(address, given.output)


@contextmanager
def served() -> Iterator[str]:
    """Start a server on a free port and yield its address once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, "serve", "--port", str(port)])
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ready", process)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server responds; raise RuntimeError if it ended or takes too long."""
    ends = time.monotonic() + STARTS_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            urlopen(url).close()
        except (URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"dim-matte serve is not ready: exit code {process.poll()}")


def take(address: str, output: Path) -> None:
    """Draw strokes over the sample photograph, propose a band and save the page as JPEG."""
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(address)
        page.set_input_files("#file", sample_paths()[0])
        expect(page.locator("#status")).to_contain_text("Draw over")
        area = page.locator("#canvas").bounding_box()
        assert area is not None
        for key, lines in (("b", BACKGROUND), ("f", FOREGROUND)):
            page.keyboard.press(key)
            for line in lines:
                points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in line]
                page.mouse.move(*points[0])
                page.mouse.down()
                for point in points[1:]:
                    page.mouse.move(*point, steps=6)
                page.mouse.up()
        page.click("#propose")
        expect(page.locator("#status")).to_contain_text("Check the blue band", timeout=60_000)
        page.wait_for_timeout(300)
        page.screenshot(path=output, type="jpeg", quality=85)
        browser.close()


if __name__ == "__main__":
    main()
