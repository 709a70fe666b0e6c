"""Take the picture of the page that the documentation shows: docs/images/page.jpg.

dim-matte serve --port 8000 &
python tools/page_screenshot.py http://127.0.0.1:8000 -o docs/images/page.jpg
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from dim_runtime.images.samples import sample_paths

BACKGROUND = [[(0.06, 0.15), (0.06, 0.9)], [(0.2, 0.1), (0.45, 0.12)], [(0.92, 0.1), (0.92, 0.6)]]
FOREGROUND = [[(0.55, 0.35), (0.62, 0.5), (0.6, 0.8)], [(0.45, 0.85), (0.75, 0.85)]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(arguments.address)
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
        page.screenshot(path=arguments.output, type="jpeg", quality=85)
        browser.close()


if __name__ == "__main__":
    main()
