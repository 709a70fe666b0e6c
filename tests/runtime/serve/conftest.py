"""A server around a back end without a network, and files to send to it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from dim.arrays import Floating, UInt8
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend, red_channel
from dim_runtime.serve.api import create_app
from dim_runtime.serve.limits import Limits

Start = Callable[..., TestClient]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server: limits by name, ``token``, ``hosts``, and ``alpha`` for the back end's arithmetic."""
    running: list[tuple[TestClient, Matting]] = []

    def make(
        *,
        token: str | None = None,
        hosts: list[str] | None = None,
        alpha: Callable[[UInt8, UInt8], Floating] = red_channel,
        **limits: Any,
    ) -> TestClient:
        matting = Matting.from_backend(FakeBackend(alpha=alpha))
        app = create_app(matting, limits=Limits(**limits), token=token, hosts=hosts)
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        running.append((client, matting))
        return client

    yield make
    for client, matting in running:
        client.__exit__(None, None, None)
        matting.close()


@pytest.fixture(scope="session")
def pair() -> tuple[UInt8, UInt8]:
    """Image uint8 90, 120, 3, RGB, and trimap uint8 90, 120: a disc with a ring of unknown pixels."""
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (90, 120, 3), np.uint8)
    distance = np.hypot(*np.ogrid[-45:45, -60:60])
    trimap = np.full((90, 120), 128, np.uint8)
    trimap[distance < 20] = 255
    trimap[distance > 35] = 0
    return image, trimap


def png(array: Any) -> bytes:
    """Encode gray, RGB or RGBA as PNG."""
    orders = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    order = orders[2 if array.ndim == 2 else array.shape[2]]
    done, encoded = cv2.imencode(".png", array if order is None else cv2.cvtColor(array, order))
    assert done
    return encoded.tobytes()


def decode(content: bytes) -> Any:
    """Decode a file: gray, RGB or RGBA."""
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    if found.ndim == 2:
        return found
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB if found.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


@pytest.fixture
def files(pair: tuple[UInt8, UInt8]) -> dict[str, Any]:
    """Return the pair as the fields ``image`` and ``trimap`` of a form."""
    image, trimap = pair
    return {"image": ("photo.png", io.BytesIO(png(image))), "trimap": ("t.png", io.BytesIO(png(trimap)))}


@pytest.fixture
def page() -> Path:
    """Return the folder of the page."""
    from dim_runtime.serve.api import PAGE

    return PAGE
