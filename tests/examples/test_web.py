"""The artefact in ONNX Runtime's JavaScript packages: Node.js, and WebAssembly in a browser."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dim_runtime import Matting, default_model
from dim_runtime.images.samples import lemur, sample_paths

WEB = Path(__file__).parents[2] / "examples" / "web"
NODE = shutil.which("node")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="needs Node.js"),
    pytest.mark.skipif(
        not (WEB / "node_modules").is_dir(), reason="needs the packages: npm install in examples/web"
    ),
]


@pytest.fixture(scope="module")
def expected() -> Any:
    """Return the alpha of ONNX Runtime on the CPU, the whole image in one window: float32 H, W."""
    image, trimap = lemur()[:2]
    with Matting(backend="onnxruntime") as matting:
        return matting(image, trimap)


def require_equal(alpha: Any, expected: Any, *, step: float) -> None:
    """At most 1e-3 apart but for flips of an arg-max, which may be 1 in 10 000 pixels."""
    assert (np.abs(alpha - expected) - step > 1e-3).mean() < 1e-4


def test_node(tmp_path: Path, expected: Any) -> None:
    image, trimap = sample_paths()
    out = tmp_path / "alpha.png"
    command = [NODE, "matte.mjs", default_model(), image, trimap, out]
    done = subprocess.run(
        [str(part) for part in command], cwd=WEB, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    alpha = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert alpha.ndim == 2
    require_equal(alpha / 255, expected, step=0.5 / 255)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([str(NODE), "serve.mjs", str(default_model()), str(port)], cwd=WEB)
    url = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=1).read()
            break
        except OSError:
            time.sleep(0.1)
    yield url
    server.kill()
    server.wait()


SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""Options of Chromium for WebGPU on the CPU, so that a machine without a GPU runs the same shaders."""


def in_browser(address: str, engine: str, image: Path, trimap: Path) -> Any:
    """Return the alpha that the page computes, one value a pixel; it sends no request elsewhere."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra 'dev')")
    elsewhere: list[str] = []
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *SOFTWARE_GPU])
        page = browser.new_page()
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "blob:", "data:")) else elsewhere.append(request.url)
            ),
        )
        page.goto(address)
        if engine == "webgpu" and not page.evaluate("async () => !!(await navigator.gpu?.requestAdapter())"):
            browser.close()
            pytest.skip("this Chromium has no WebGPU, not even on the CPU")
        page.set_input_files("#photo", image)
        page.set_input_files("#trimap", trimap)
        page.select_option("#engine", engine)
        page.click("#run")
        status = page.locator("#status")
        playwright.expect(status).to_contain_text(re.compile("with|Error"), timeout=600_000)
        assert f"with {engine}" in status.inner_text()
        alpha = np.array(page.evaluate("() => Array.from(window.alphaOfLastRun)"), np.float32)
        browser.close()
    assert not elsewhere
    return alpha


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_webassembly_in_a_browser(address: str, expected: Any) -> None:
    alpha = in_browser(address, "wasm", *sample_paths())
    require_equal(alpha.reshape(expected.shape), expected, step=0)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_a_file_that_is_missing_is_an_error(address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra 'dev')")
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.set_input_files("#photo", sample_paths()[0])
        page.click("#run")
        playwright.expect(page.locator("#status")).to_have_text(
            "Error: choose a photograph and its trimap first"
        )
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_webgpu_in_a_browser(address: str, tmp_path: Path) -> None:
    """A part of the photograph: WebGPU without a GPU takes a minute for all of it."""
    image, trimap = (np.ascontiguousarray(array[60:156, 240:336]) for array in lemur())
    assert (trimap == 128).mean() > 0.2
    paths = tmp_path / "photo.png", tmp_path / "trimap.png"
    cv2.imwrite(str(paths[0]), image[..., ::-1])
    cv2.imwrite(str(paths[1]), trimap)
    with Matting(backend="onnxruntime") as matting:
        expected = matting(image, trimap)
    alpha = in_browser(address, "webgpu", *paths)
    require_equal(alpha.reshape(expected.shape), expected, step=0)


def test_files_outside_the_folder_are_not_served(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/%2e%2e/demo.py", timeout=5)
