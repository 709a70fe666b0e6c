"""The page in a real browser: draw, compute, download; and what it may not do."""

from __future__ import annotations

import contextlib
import os
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
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server with the embedded model."""
    with serving(tmp_path_factory.mktemp("server")) as url:
        yield url


@contextlib.contextmanager
def serving(folder: Path, **environment: str) -> Iterator[str]:
    """Start a server and give its address; its log goes into the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from dim_runtime.cli import main; main()", "serve", "--port", str(port)]
    log = folder / "stderr"
    with log.open("wb") as file:
        server = subprocess.Popen(command, stderr=file, env={**os.environ, **environment})
    url = f"http://127.0.0.1:{port}"
    try:
        _await_server(url, server, log)
        yield url
    finally:
        server.terminate()
        assert server.wait(60) == 0


@pytest.fixture(scope="module")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a photograph of 24 megapixels."""
    image = cv2.resize(cv2.imread(str(sample_paths()[0])), (6000, 4000))
    photo = tmp_path_factory.mktemp("large") / "large.jpg"
    cv2.imwrite(str(photo), image)
    return photo


def _await_server(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
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


def propose(page: Any) -> tuple[np.ndarray, str | None]:
    """Propose a trimap; return where the scribbles of the request mark something, bool H, W, and its box."""
    page.evaluate(
        """() => {
            const send = window.fetch;
            window.sent = null;
            window.fetch = (address, options) => {
                if (options?.body?.has("scribbles")) window.sent = options.body;
                return send(address, options);
            };
        }"""
    )
    page.click("#propose")
    # The page's policy forbids wait_for_function.
    while not page.evaluate("() => Boolean(window.sent)"):
        page.wait_for_timeout(20)
    playwright.expect(page.locator("#run")).to_be_enabled(timeout=60_000)
    playwright.expect(page.locator("#status")).to_contain_text("Check the blue band", timeout=60_000)
    scribbles, box = page.evaluate(
        """async () => {
            const bytes = await window.sent.get("scribbles").arrayBuffer();
            return [Array.from(new Uint8Array(bytes)), window.sent.get("box")];
        }"""
    )
    pixels = cv2.imdecode(np.array(scribbles, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels[..., 3] > 0, box


def test_a_further_proposal_is_made_of_all_strokes(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    first, _ = propose(page)
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("f")
    page.mouse.click(box["x"] + box["width"] * 0.52, box["y"] + box["height"] * 0.33)
    page.locator("#band").fill("7")
    status = playwright.expect(page.locator("#status"))
    status.to_contain_text("7 px wider than proposed", timeout=60_000)
    second, _ = propose(page)
    assert (second >= first).all()
    assert 0 < (second > first).sum() < 0.05 * second.size, "the stroke, and not the trimap"
    playwright.expect(page.locator("#band-value")).to_have_text("7 px")


def test_a_further_proposal_keeps_the_box(page: Any) -> None:
    load(page, sample_paths()[0])
    drag_box(page)
    box = page.locator("#canvas").bounding_box()
    _, first = propose(page)
    page.keyboard.press("f")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    _, second = propose(page)
    assert second == first
    assert first


def test_a_box_that_is_drawn_after_a_proposal_counts(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    propose(page)
    drag_box(page)
    with page.expect_request("**/v1/trimap"):
        compute(page)
    page.click("#undo")
    # The box is there again, so that there is something to propose from.
    page.click("#undo")
    assert propose(page)[1]


def test_the_keyboard_keeps_its_place_during_a_step(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    page.focus("#propose")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#status")).to_contain_text("Check the blue band", timeout=60_000)
    assert page.evaluate("document.activeElement.id") == "propose"
    page.focus("#band")
    for width in ("1 px", "2 px"):
        page.keyboard.press("ArrowRight")
        playwright.expect(page.locator("#status")).to_contain_text(f"{width} wider", timeout=60_000)
    page.focus("#size")
    page.keyboard.press("f")
    playwright.expect(page.locator('input[name="brush"][value="255"]')).to_be_checked()


def test_what_was_cleared_can_be_drawn_again(page: Any, tmp_path: Path) -> None:
    load(page, sample_paths()[0])
    draw(page)
    before = download(page, "trimap", tmp_path).read_bytes()
    page.click("#clear")
    playwright.expect(page.locator("#undo")).to_be_disabled()
    for _ in STROKES:
        page.click("#redo")
    playwright.expect(page.locator("#redo")).to_be_disabled()
    assert download(page, "trimap", tmp_path).read_bytes() == before


def test_an_earlier_result_shows_where_to_draw(page: Any, tmp_path: Path) -> None:
    load(page, sample_paths()[0])
    draw(page)
    compute(page)
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("b")
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    playwright.expect(page.locator("#status")).to_contain_text("the views show the last result")
    page.keyboard.press("3")
    playwright.expect(page.locator('input[name="view"][value="checker"]')).to_be_checked()
    for kind in ("cutout", "alpha"):
        playwright.expect(page.locator(f"#save-{kind}")).to_be_disabled()
    compute(page)
    playwright.expect(page.locator("#save-cutout")).to_be_enabled()


def test_a_computation_can_be_cancelled(page: Any, address: str, large_photo: Path) -> None:
    load(page, large_photo)
    draw(page)
    cancel, status = page.locator("#cancel"), playwright.expect(page.locator("#status"))
    playwright.expect(cancel).to_be_hidden()
    with page.expect_response(lambda response: response.url.endswith("/events"), timeout=120_000):
        page.click("#run")
    playwright.expect(cancel).to_be_visible()
    page.keyboard.press("Escape")
    status.to_have_text("Cancelled.", timeout=120_000)
    playwright.expect(cancel).to_be_hidden()
    playwright.expect(page.locator("#run")).to_be_enabled()
    playwright.expect(page.locator("#save-cutout")).to_be_disabled()
    metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
    assert "dim_jobs_unfinished 0.0" in metrics, "the server has stopped computing"


def unfinished(address: str) -> str:
    """Return the server's number of jobs that wait or run, as its metrics have it."""
    metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
    return re.findall(r"^dim_jobs_unfinished (\S+)$", metrics, re.MULTILINE)[0]  # type: ignore[no-any-return]


def require_idle(address: str) -> None:
    """Require that the server ends its jobs, long before they would be done."""
    deadline = time.monotonic() + 30
    while unfinished(address) != "0.0":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_proposal_can_be_cancelled(page: Any, address: str) -> None:
    held: list[Any] = []
    page.route("**/v1/trimap", lambda route: held.append(route))
    load(page, sample_paths()[0])
    draw(page)
    page.click("#propose")
    playwright.expect(page.locator("#cancel")).to_be_visible()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#status")).to_have_text("Cancelled.")
    playwright.expect(page.locator("#cancel")).to_be_hidden()
    playwright.expect(page.locator("#propose")).to_be_enabled()


def drop(page: Any, photo: Path) -> None:
    """Drop a file on the picture, as from a file manager."""
    content = list(photo.read_bytes())
    page.evaluate(
        """([content, name]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(content)], name, { type: "image/png" }));
            const drop = new DragEvent("drop", { dataTransfer: files, bubbles: true });
            document.getElementById("stage").dispatchEvent(drop);
        }""",
        [content, f"dropped-{photo.name}"],
    )


def test_a_photograph_that_is_dropped_during_a_job_replaces_it(
    page: Any, address: str, large_photo: Path
) -> None:
    load(page, large_photo)
    draw(page)
    with page.expect_response(lambda response: response.url.endswith("/events"), timeout=120_000):
        page.click("#run")
    drop(page, sample_paths()[0])
    playwright.expect(page.locator("#status")).to_contain_text(
        "dropped-lemur.png, 680 × 440", timeout=120_000
    )
    playwright.expect(page.locator("#run")).to_be_enabled()
    require_idle(address)


def test_a_page_that_is_closed_before_the_response_ends_its_job(
    browser: Any, address: str, large_photo: Path
) -> None:
    """The page has chosen the job's identity, and so can end what it has no response of."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    # The job is accepted, but its response never comes.
    page.evaluate(
        """() => {
            const send = window.fetch;
            window.fetch = async (path, options) => {
                const { signal, ...others } = options ?? {};
                if (path !== "v1/jobs") return send(path, options);
                await send(path, others);
                document.title = "accepted";
                return new Promise(() => {});
            };
        }"""
    )
    load(page, large_photo)
    draw(page)
    page.click("#run")
    playwright.expect(page).to_have_title("accepted", timeout=120_000)
    assert unfinished(address) == "1.0"
    page.close(run_before_unload=True)
    require_idle(address)
    context.close()


def test_a_job_that_is_done_before_it_is_cancelled_is_cancelled(page: Any) -> None:
    """The server removes its result, so there is nothing to fetch."""
    events: list[Any] = []
    page.route("**/events", lambda route: events.append(route))
    page.route(re.compile("/v1/jobs/[0-9a-f]+$"), lambda route: route.fulfill(status=204))
    load(page, sample_paths()[0])
    draw(page)
    with page.expect_request("**/events", timeout=120_000):
        page.click("#run")
    playwright.expect(page.locator("#cancel")).to_be_visible()
    with page.expect_response(re.compile("/v1/jobs/[0-9a-f]+$")):
        page.keyboard.press("Escape")
    events[0].fulfill(content_type="text/event-stream", body='data: {"state": "done"}\n\n')
    playwright.expect(page.locator("#status")).to_have_text("Cancelled.")


def test_a_box_beside_the_photograph_is_none(page: Any) -> None:
    load(page, sample_paths()[0])
    for _ in range(4):
        page.keyboard.press("-")
    page.keyboard.press("r")
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 20, steps=3)
    page.mouse.up()
    page.click("#propose")
    playwright.expect(page.locator("#status")).to_contain_text("Draw over the background and the foreground")


def test_keys_of_results_do_nothing_before_there_is_one(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    page.click("#run")
    for key in "2345":
        page.keyboard.press(key)
        assert page.locator("input[name=view]:checked").get_attribute("value") == "edit"
    playwright.expect(page.locator("#status")).to_contain_text("Done in", timeout=120_000)


def test_files_that_are_no_pictures_are_reported(page: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    status = playwright.expect(page.locator("#status"))
    load(page, sample_paths()[0])
    for field in ("#file", "#picture-file"):
        page.set_input_files(field, text)
        status.to_contain_text("cannot show text.png")
        page.evaluate("document.getElementById('status').textContent = ''")
    page.set_input_files("#picture-file", sample_paths()[0])
    status.to_contain_text("behind the cut-out")


def test_a_photograph_that_does_not_fit_leaves_the_present_one(page: Any, large_photo: Path) -> None:
    load(page, sample_paths()[0])
    page.evaluate("""() => {
      const make = window.createImageBitmap;
      window.createImageBitmap = (source, options) =>
        options?.resizeWidth ? Promise.reject(new Error("out of memory")) : make(source, options);
    }""")
    page.set_input_files("#file", large_photo)
    playwright.expect(page.locator("#status")).to_contain_text("out of memory")
    page.keyboard.press("+")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    draw(page)
    compute(page)


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


@pytest.mark.parametrize("drawn", ["stroke", "box"])
def test_an_error_goes_when_something_is_drawn(page: Any, drawn: str) -> None:
    load(page, sample_paths()[0])
    page.click("#run")
    status = playwright.expect(page.locator("#status"))
    status.to_have_class("error")
    if drawn == "stroke":
        draw(page)
    else:
        drag_box(page)
    status.not_to_have_class("error")
    status.to_contain_text("then propose a trimap")


def drag_box(page: Any) -> None:
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("r")
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.15)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.85, steps=5)
    page.mouse.up()


def test_a_token_goes_behind_the_address(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, DIM_SERVE_TOKEN="a+b/c%=&d") as url:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(url)
        load(page, sample_paths()[0])
        drag_box(page)
        page.click("#propose")
        status = playwright.expect(page.locator("#status"))
        status.to_contain_text(f"This server requires a token. Open the page as {url}/#token=TOKEN.")
        # The browser does not load the page again for this: the photograph and the box stay.
        page.evaluate("location.hash = 'token=a+b/c%=&d'")
        page.click("#propose")
        status.to_contain_text("Check the blue band", timeout=60_000)
        page.close()


def test_the_photograph_does_not_move_while_a_step_runs(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    heights = "[...document.querySelectorAll('footer, #canvas')].map((part) => part.clientHeight)"
    before = page.evaluate(heights)
    page.click("#propose")
    assert page.evaluate(heights) == before
    playwright.expect(page.locator("#status")).to_contain_text("Check the blue band", timeout=60_000)


def test_the_empty_page_shows_one_sentence(page: Any) -> None:
    count = page.locator(".stage > p").evaluate("(part) => part.childNodes.length")
    assert count == 1, "a grid lays its children out below each other"


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_no_serious_accessibility_fault_in_any_state(page: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def require_none(state: str) -> None:
        faults = [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in axe.run(page).response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert not faults, state

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    require_none("empty")
    load(page, sample_paths()[0])
    require_none("loaded")
    page.click("#run")
    require_none("an error")
    draw(page)
    compute(page)
    require_none("done")
    for key in "45":
        page.keyboard.press(key)
        require_none(f"view {key}")


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
def test_a_photograph_of_24_megapixels_stays_quick(page: Any, large_photo: Path) -> None:
    """The first paint of a stroke, from the event to the frame that shows it."""
    load(page, large_photo)
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


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Any]:
    """Return the page on a touch screen of 390 × 844 px, and the session that sends touches."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    opened = context.new_page()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(address)
    yield opened, context.new_cdp_session(opened)
    context.close()
    assert not faults


def touch(session: Any, kind: str, *points: tuple[float, float]) -> None:
    session.send(
        "Input.dispatchTouchEvent",
        {"type": kind, "touchPoints": [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]},
    )


def test_fingers_draw_pinch_and_undo(phone: Any) -> None:
    page, session = phone
    load(page, sample_paths()[0])
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    undo = playwright.expect(page.locator("#undo"))
    unmarked = page.locator("#canvas").screenshot()

    touch(session, "touchStart", (x, y))
    touch(session, "touchMove", (x + 40, y))
    touch(session, "touchEnd")
    undo.to_be_enabled()
    page.click("#undo")
    undo.to_be_disabled()
    page.wait_for_timeout(200)
    assert page.locator("#canvas").screenshot() == unmarked

    touch(session, "touchStart", (x, y))
    touch(session, "touchStart", (x, y), (x + 20, y))
    for wide in (40, 60, 80):
        touch(session, "touchMove", (x - wide / 2, y), (x + wide, y))
    touch(session, "touchEnd")
    undo.to_be_disabled()
    playwright.expect(page.locator("#redo")).to_be_enabled()  # of the stroke before, not of the pinch
    page.wait_for_timeout(200)
    assert page.locator("#canvas").screenshot() != unmarked, "zoomed"
    page.keyboard.press("0")
    page.wait_for_timeout(200)
    assert page.locator("#canvas").screenshot() == unmarked, "the first finger drew nothing"


def test_targets_are_large_enough_for_fingers(phone: Any) -> None:
    page, _ = phone
    load(page, sample_paths()[0])
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, label")]
            .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 44)
            .map((each) => each.outerHTML)"""
    )
    assert small == []
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390


def test_corrections_stay_when_the_band_is_changed(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    page.click("#propose")
    status = playwright.expect(page.locator("#status"))
    status.to_contain_text("Check the blue band", timeout=60_000)
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("u")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for value, told in (("12", "12 px wider than proposed"), ("0", "as wide as proposed")):
        page.locator("#band").fill(value)
        status.to_contain_text(told, timeout=60_000)
        playwright.expect(page.locator("#undo")).to_be_enabled()


def test_the_trimap_can_be_downloaded_before_and_after_the_matte(page: Any, tmp_path: Path) -> None:
    load(page, sample_paths()[0])
    playwright.expect(page.locator("#save-trimap")).to_be_disabled()
    draw(page)
    scribbles = cv2.imread(str(download(page, "trimap", tmp_path)), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(scribbles[..., 3])) == {0, 255}
    playwright.expect(page.locator("#status")).to_contain_text("lemur-scribbles.png")
    compute(page)
    box = page.locator("#canvas").bounding_box()
    page.keyboard.press("u")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    playwright.expect(page.locator("#status")).to_contain_text("compute the matte again")
    playwright.expect(page.locator("#save-cutout")).to_be_disabled()
    trimap = cv2.imread(str(download(page, "trimap", tmp_path)), cv2.IMREAD_GRAYSCALE)
    assert trimap[trimap.shape[0] // 2, trimap.shape[1] // 2] == 128, "the last stroke is in it"
    playwright.expect(page.locator("#status")).to_contain_text("lemur-trimap.png")


def test_a_brush_leads_back_to_the_trimap(page: Any) -> None:
    load(page, sample_paths()[0])
    draw(page)
    compute(page)
    trimap, cutout = (page.locator(f'input[name="view"][value="{view}"]') for view in ("edit", "checker"))
    playwright.expect(cutout).to_be_checked()
    page.keyboard.press("f")
    playwright.expect(trimap).to_be_checked()
    page.keyboard.press("3")
    playwright.expect(cutout).to_be_checked()
    page.click("#undo")  # the trimap that was proposed for what the strokes left open
    playwright.expect(trimap).to_be_checked()
    playwright.expect(page.locator("#save-cutout")).to_be_disabled()
    playwright.expect(page.locator("#band")).to_be_disabled()


@pytest.mark.parametrize("act", ["undo", "clear", "space", "open", "box"])
def test_what_happens_in_the_middle_of_a_stroke_ends_it(page: Any, act: str) -> None:
    load(page, sample_paths()[0])
    box = page.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.press("r" if act == "box" else "f")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y)
    if act == "undo":
        page.keyboard.press("Control+z")
    elif act == "clear":
        page.evaluate("document.getElementById('clear').click()")
    elif act == "space":
        page.focus("#canvas")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Space")
    else:
        page.set_input_files("#file", sample_paths()[1])
        playwright.expect(page.locator("#status")).to_contain_text(sample_paths()[1].name, timeout=60_000)
    # The fixture fails the test if this raises.
    page.mouse.move(x - 40, y + 40, steps=4)
    page.mouse.up()
    strokes = page.locator("#undo").is_enabled()
    assert strokes == (act == "space"), "nothing that was not there is drawn on"
    if act == "space":
        page.click("#undo")
        playwright.expect(page.locator("#undo")).to_be_disabled()


def test_a_drop_beside_the_picture_does_not_leave_the_page(page: Any) -> None:
    kept = page.evaluate(
        """() => ["dragover", "drop"].map((kind) => {
            const dataTransfer = new DataTransfer();
            const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
            return document.querySelector(".tools").dispatchEvent(event);
        })"""
    )
    assert kept == [False, False], "the browser's own action, which opens the file, is off"
    playwright.expect(page.locator("#status")).to_contain_text("That was no file")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (360, 640), (844, 390), (768, 1024)])
def test_a_small_screen_shows_the_picture_and_the_main_step(
    browser: Any, address: str, width: int, height: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    load(page, sample_paths()[0])
    canvas, run = page.locator("#canvas").bounding_box(), page.locator("#run").bounding_box()
    assert run["y"] + run["height"] <= height, "in sight before anything is scrolled"
    for button in page.locator(".zoom button").all():
        place = button.bounding_box()
        assert place["y"] + place["height"] <= canvas["y"], "beside the picture"
        assert place["x"] + place["width"] <= width
    panel = page.evaluate(
        "[...document.querySelectorAll('.tools')].map((t) => t.scrollWidth - t.clientWidth)[0]"
    )
    assert panel == 0
    assert page.evaluate("document.documentElement.scrollHeight") == height
    # The tools that lie under the button are reached by scrolling.
    page.locator("#save-alpha").scroll_into_view_if_needed()
    assert page.locator("#save-alpha").bounding_box()["y"] < height
    context.close()
