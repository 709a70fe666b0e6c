"""The page in a real browser: draw, compute, download; and what it may not do."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim_runtime.images.samples import sample_paths

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra 'dev')")
pytest.importorskip("uvicorn")
pytest.importorskip("pymatting")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]

STROKES = (
    ("b", [(0.05, 0.1), (0.05, 0.9)]),
    ("b", [(0.95, 0.1), (0.95, 0.9)]),
    ("b", [(0.1, 0.06), (0.9, 0.06)]),
    ("f", [(0.45, 0.45), (0.5, 0.6), (0.5, 0.8)]),
    ("f", [(0.4, 0.75), (0.6, 0.75)]),
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a server with the embedded model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from dim_runtime.cli import main; main()", "serve", "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        _await_server(url, server)
        yield url
    finally:
        server.terminate()
        assert server.wait(60) == 0


def _await_server(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, server.stderr.read() if server.stderr else ""
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=1).read()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not start")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as session:
        opened = session.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """Return the page, which fails the test if it logs an error or sends a request elsewhere."""
    faults: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((address, "blob:", "data:")) else faults.append(request.url)
        ),
    )
    opened.goto(address)
    yield opened
    opened.close()
    assert not faults


def load(page: Any, photo: Path) -> None:
    page.set_input_files("#file", photo)
    playwright.expect(page.locator("#status")).to_contain_text("Draw over", timeout=60_000)


def draw(page: Any) -> None:
    """Five strokes, with keys for the brushes."""
    box = page.locator("#canvas").bounding_box()
    for key, points in STROKES:
        page.keyboard.press(key)
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=5)
        page.mouse.up()


def compute(page: Any) -> None:
    page.click("#run")
    playwright.expect(page.locator("#status")).to_contain_text(
        re.compile("Done in|cannot|error"), timeout=120_000
    )
    assert "Done in" in page.inner_text("#status")


def download(page: Any, kind: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click(f"#save-{kind}")
    path = folder / f"{kind}.png"
    waiting.value.save_as(path)
    return path


def test_the_downloaded_cutout_is_the_apis(page: Any, address: str, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    photo, _ = sample_paths()
    load(page, photo)
    draw(page)
    compute(page)
    cutout, trimap = download(page, "cutout", tmp_path), download(page, "trimap", tmp_path)
    levels = cv2.imread(str(trimap), cv2.IMREAD_GRAYSCALE)
    assert set(np.unique(levels)) == {0, 128, 255}
    files = {"image": photo.read_bytes(), "trimap": trimap.read_bytes()}
    answer = httpx.post(f"{address}/v1/matte", files=files, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.content == cutout.read_bytes()


def test_a_proposal_can_be_corrected_and_undone(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    page.click("#propose")
    playwright.expect(page.locator("#status")).to_contain_text("Check the blue band", timeout=60_000)
    before = page.locator("#canvas").screenshot()
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("u")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6, steps=4)
    page.mouse.up()
    assert page.locator("#canvas").screenshot() != before
    page.keyboard.press("Control+z")
    page.wait_for_timeout(200)
    assert page.locator("#canvas").screenshot() == before


def test_the_keyboard_alone_draws(page: Any) -> None:
    load(page, sample_paths()[0])
    page.focus("#canvas")
    page.keyboard.press("f")
    before = page.locator("#canvas").screenshot()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    page.wait_for_timeout(200)
    assert page.locator("#canvas").screenshot() != before


def test_what_is_missing_is_reported_before_anything_is_sent(page: Any) -> None:
    load(page, sample_paths()[0])
    status = playwright.expect(page.locator("#status"))
    page.click("#run")
    status.to_contain_text("Draw over the background and the foreground first")
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("f")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.click("#propose")
    status.to_contain_text("Draw over the background first")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_fault(page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    load(page, sample_paths()[0])
    faults = [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in axe.run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert not faults


@pytest.mark.parametrize("width", [1200, 390])
def test_no_tool_is_wider_than_its_panel(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 760})
    load(page, sample_paths()[0])
    wider = page.evaluate(
        """() => {
            const right = document.querySelector(".tools").getBoundingClientRect().right;
            const tools = [...document.querySelectorAll(".tools fieldset, .tools fieldset *")];
            return tools.filter((tool) => tool.getBoundingClientRect().right > right + 0.5)
                .map((tool) => tool.outerHTML);
        }"""
    )
    assert wider == []


@pytest.mark.bench
def test_a_photograph_of_24_megapixels_stays_quick(page: Any, tmp_path: Path) -> None:
    """The first paint of a stroke, from the event to the frame that shows it."""
    image = cv2.resize(cv2.imread(str(sample_paths()[0])), (6000, 4000))
    photo = tmp_path / "large.jpg"
    cv2.imwrite(str(photo), image)
    load(page, photo)
    page.evaluate(
        """() => {
            window.paints = [];
            const canvas = document.getElementById("canvas");
            for (const kind of ["pointerdown", "pointermove"]) {
                let start = 0;
                canvas.addEventListener(kind, () => { start = performance.now(); }, true);
                canvas.addEventListener(kind, () => { window.paints.push(performance.now() - start); });
            }
        }"""
    )
    draw(page)
    paints = page.evaluate("() => window.paints")
    assert len(paints) > 20
    assert np.percentile(paints, 95) < 50, paints
