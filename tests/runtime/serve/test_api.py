"""The REST interface: what it returns, what it refuses, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import shutil
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import psutil
import pytest
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from dim.arrays import Floating, UInt8
from dim.errors import InputError
from dim.files import os_errors
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend, red_channel
from dim_runtime.outputs.render import render
from dim_runtime.serve.api import _events
from dim_runtime.serve.failures import DESCRIPTIONS, STATUS, describe
from dim_runtime.serve.folders import LOCK_NAME
from dim_runtime.serve.jobs import Job, JobQueue, Phase, State
from dim_runtime.serve.limits import RemovedJobError
from dim_runtime.trimaps.sources import TrimapSources

from .conftest import Start, decode, png

Pair = tuple[UInt8, UInt8]
PARTS = {"problem", "got", "expected", "why", "fix"}


def library_alpha(pair: Pair) -> Any:
    """Return the alpha of the library, uint8."""
    with Matting.from_backend(FakeBackend()) as matting:
        return np.round(matting(*pair) * 255).astype(np.uint8)


def test_a_matte_is_the_librarys(start: Start, files: dict[str, Any], pair: Pair) -> None:
    answer = start().post("/v1/matte", files=files, data={"output": "alpha"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(decode(answer.content), library_alpha(pair))


def test_a_binary_mask_in_place_of_a_trimap_is_a_warning(
    start: Start, files: dict[str, Any], pair: Pair
) -> None:
    client = start()
    assert "dim-warning" not in client.post("/v1/matte", files=files).headers
    files["trimap"] = ("t.png", png(np.where(pair[1] > 0, 255, 0).astype(np.uint8)))
    answer = client.post("/v1/matte", files=files)
    assert answer.status_code == 200
    assert "no pixel of the trimap is unknown" in answer.headers["dim-warning"]
    identity = client.post("/v1/jobs", files=files).json()["id"]
    with client.stream("GET", f"/v1/jobs/{identity}/events") as events:
        states = [json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:")]
    assert "no pixel of the trimap is unknown" in states[-1]["warnings"][0]


def test_a_cutout_has_the_images_colours_and_the_alpha(
    start: Start, files: dict[str, Any], pair: Pair
) -> None:
    answer = start().post("/v1/matte", files=files, data={"output": "cutout", "foreground": "image"})
    found = decode(answer.content)
    np.testing.assert_array_equal(found[..., 3], library_alpha(pair))
    visible = found[..., 3] > 0
    np.testing.assert_array_equal(found[..., :3][visible], pair[0][visible])


def disc_and_scribbles() -> tuple[UInt8, UInt8]:
    """Image uint8 120, 160, 3, RGB, of a disc, and scribbles uint8 120, 160, 4 over it and beside it."""
    image = np.full((120, 160, 3), (30, 80, 160), np.uint8)
    cv2.circle(image, (80, 60), 30, (220, 120, 30), -1)
    marks = np.zeros((120, 160, 4), np.uint8)
    cv2.circle(marks, (80, 60), 5, (255, 255, 255, 255), -1)
    cv2.line(marks, (5, 5), (155, 5), (0, 0, 0, 255), 3)
    return image, marks


def test_scribbles_are_narrowed_by_a_first_pass_of_the_network(start: Start) -> None:
    """A band of the user is kept, so that the network runs once."""
    passes = []

    def seen(image: UInt8, trimap: UInt8) -> Any:
        passes.append((trimap == 128).sum())
        return (image[..., 0] > 128).astype(np.float64)

    image, marks = disc_and_scribbles()
    client = start(alpha=seen)
    for band, count in (("0", 2), ("1", 1)):
        passes.clear()
        files = {
            name: ("file.png", io.BytesIO(png(array)))
            for name, array in (("image", image), ("scribbles", marks))
        }
        answer = client.post("/v1/matte", files=files, data={"output": "alpha", "band": band})
        assert answer.status_code == 200
        assert len(passes) == count
        assert passes[-1] > 0
        assert count == 1 or passes[1] < passes[0]


def test_sixteen_bits_and_tiff(start: Start, files: dict[str, Any], pair: Pair) -> None:
    answer = start().post("/v1/matte", files=files, data={"output": "alpha", "depth": "16", "format": "tiff"})
    assert answer.headers["content-type"] == "image/tiff"
    found = decode(answer.content)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(np.round(found / 257), library_alpha(pair))


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_a_composite_lies_over_the_colour(start: Start, files: dict[str, Any], kind: str) -> None:
    data = {"output": "composite", "foreground": "image", "background": "#204060", "format": kind}
    answer = start().post("/v1/matte", files=files, data=data)
    assert answer.status_code == 200, answer.text
    corner = decode(answer.content)[:8, :8].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(corner, (0x20, 0x40, 0x60), atol=0 if kind == "png" else 4)


def refused(answer: Any, status: int) -> dict[str, str]:
    """Return the four parts of an error with this status."""
    assert answer.status_code == status, answer.text
    parts: dict[str, str] = answer.json()
    assert set(parts) <= PARTS, parts
    assert "problem" in parts
    assert "dim-serve-" not in answer.text, "no path of the server"
    return parts


def test_sources_are_missing_or_several(start: Start, files: dict[str, Any], pair: Pair) -> None:
    client = start()
    parts = refused(client.post("/v1/matte", files={"image": files["image"]}), 422)
    assert parts["expected"].startswith("one of: trimap, mask, scribbles, box;")
    files["mask"] = ("m.png", io.BytesIO(png(pair[1])))
    assert "trimap and mask" in refused(client.post("/v1/matte", files=files), 422)["got"]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"output": "cutout", "format": "jpeg"}, "cannot return a cut-out as JPEG"),
        ({"output": "alpha", "format": "webp"}, "cannot return an alpha as WebP"),
        ({"output": "composite", "format": "jpeg", "depth": "16"}, "cannot return 16 bits as JPEG"),
        ({"output": "alpha", "foreground": "estimated"}, "leave foreground out"),
        ({"output": "cutout", "background": "#FFFFFF"}, "leave background out"),
        ({"depth": "9"}, "9 bits"),
        ({"output": "nonsense"}, "output"),
        ({"output": "composite", "background": "/etc/passwd"}, "/etc/passwd"),
        ({"output": "composite", "background": "#12"}, "#12"),
        ({"band": "100000"}, "band"),
        ({"box": "1,2,3"}, "1,2,3"),
        ({"box": "١,2,3,4"}, "١"),
        ({"box": "1,2,3,99999999999999999999999"}, "cannot read the box"),
    ],
)
def test_wrong_fields(start: Start, files: dict[str, Any], data: dict[str, str], part: str) -> None:
    answer = start().post("/v1/matte", files=files, data=data)
    assert part in str(refused(answer, 422))


FIELDS = {
    "/v1/matte": "output format depth foreground background",
    "/v1/trimap": "",
    "/v1/jobs": "depth foreground id",
}


@pytest.mark.parametrize("route", FIELDS)
def test_fields_that_a_route_does_not_have_are_refused(
    start: Start, files: dict[str, Any], route: str
) -> None:
    client = start()
    parts = refused(client.post(route, files=files, data={"bandd": "3"}), 422)
    assert parts["problem"] == "cannot use the field 'bandd'"
    assert parts["fix"] == "write band"
    schemas = client.get("/openapi.json").json()
    (body,) = schemas["paths"][route]["post"]["requestBody"]["content"].values()
    described = schemas["components"]["schemas"][body["schema"]["$ref"].rsplit("/", 1)[1]]["properties"]
    assert set(parts["expected"].split(", ")) == set(described)
    sources = {"image", "trimap", "mask", "scribbles", "box", "inside", "outside", "band"}
    assert set(described) == sources | set(FIELDS[route].split())
    files["extra"] = ("e.png", io.BytesIO(b"a file"))
    assert "'extra'" in refused(client.post(route, files=files), 422)["problem"]
    assert "output" in refused(client.post(f"{route}?output=alpha", files=files), 422)["got"]


def test_a_job_keeps_the_depth(start: Start, files: dict[str, Any]) -> None:
    client = start()
    answer = client.post("/v1/jobs", files=files, data={"depth": "16", "foreground": "image"})
    for output in ("alpha", "cutout"):
        result = client.get(f"/v1/jobs/{answer.json()['id']}/result", params={"output": output})
        assert decode(result.content).dtype == np.uint16


def test_outputs_of_a_job_may_be_fetched_at_one_time_and_twice(
    start: Start, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first response is sent after the others, which dropped the job."""
    others_sent, waiting = threading.Event(), threading.Event()

    class Late(StreamingResponse):
        async def __call__(self, *connection: Any) -> None:
            if not waiting.is_set():
                waiting.set()
                await run_in_threadpool(others_sent.wait, 60)
            await super().__call__(*connection)

    monkeypatch.setattr("dim_runtime.serve.service.StreamingResponse", Late)
    client = start()
    identity = client.post("/v1/jobs", files=files).json()["id"]

    def fetched(output: str) -> Any:
        return client.get(f"/v1/jobs/{identity}/result", params={"output": output})

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetched, "alpha")
        assert waiting.wait(60)
        alpha, cutout = fetched("alpha"), fetched("cutout")
        others_sent.set()
        assert [part.status_code for part in (first.result(), alpha, cutout)] == [200, 200, 200]
        assert first.result().content == alpha.content
    assert fetched("alpha").status_code == 404


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"GIF89a"])
def test_what_is_no_image(start: Start, files: dict[str, Any], content: bytes) -> None:
    files["image"] = ("photo.png", io.BytesIO(content))
    assert "image" in refused(start().post("/v1/matte", files=files), 422)["problem"]


def test_errors_name_the_field_once(start: Start, files: dict[str, Any]) -> None:
    files["image"] = ("photo.svg", io.BytesIO(b"<svg/>"))
    client = start()
    assert refused(client.post("/v1/matte", files=files), 422)["problem"] == "cannot read the image"
    text = refused(client.post("/v1/matte", data={"image": "photo.jpg", "trimap": "t.png"}), 422)
    assert text["fix"] == "send files as files: curl -F image=@photo.jpg"
    assert text["got"] == "application/x-www-form-urlencoded"
    text = refused(client.post("/v1/matte", files={"image": (None, "photo.jpg")}), 422)
    assert text["got"] == "image: a text in place of a file"
    unknown = refused(client.get("/v1/jobs/nope"), 404)
    assert (unknown["got"], unknown["fix"]) == ("'nope'", "POST /v1/jobs again")
    assert "multipart/form-data" in refused(client.post("/v1/matte", json={"image": "x"}), 422)["expected"]


@pytest.mark.parametrize("field", ["trimap", "mask"])
def test_a_trimap_of_another_size_than_the_images(start: Start, files: dict[str, Any], field: str) -> None:
    drawn = np.zeros((90, 100), np.uint8)
    drawn[30:60, 30:60] = 255
    answer = start().post("/v1/trimap", files={"image": files["image"], field: png(drawn)})
    assert answer.status_code == 422
    assert "120×90" in answer.json()["got"]
    assert "100×90" in answer.json()["got"]


def test_a_trimap_without_known_pixels_is_a_warning(start: Start, files: dict[str, Any]) -> None:
    files["trimap"] = ("t.png", png(np.full((90, 120), 128, np.uint8)))
    answer = start().post("/v1/matte", files=files)
    assert answer.status_code == 200
    assert "is a guess" in answer.headers["dim-warning"]


def test_a_field_that_comes_twice_is_refused(start: Start, files: dict[str, Any]) -> None:
    client = start()
    twice = [*files.items(), ("trimap", files["trimap"])]
    answer = client.post("/v1/matte", files=twice)
    assert answer.status_code == 422
    assert answer.json()["got"] == "2 of it"
    answer = client.post("/v1/matte", files=files, data={"output": ["alpha", "cutout"]})
    assert answer.status_code == 422
    assert "'output'" in answer.json()["problem"]


def test_sizes_that_differ(start: Start, files: dict[str, Any]) -> None:
    files["trimap"] = ("t.png", io.BytesIO(png(np.full((20, 30), 128, np.uint8))))
    refused(start().post("/v1/matte", files=files), 422)


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of some hundred bytes that declares many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_by_its_header(start: Start, files: dict[str, Any]) -> None:
    files["image"] = ("photo.png", io.BytesIO(bomb(60_000, 60_000)))
    assert "3600000000 pixels" in refused(start().post("/v1/matte", files=files), 413)["got"]


def test_headers_are_read_by_no_more_threads_than_workers(
    start: Start, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, most, lock = 0, 0, threading.Lock()

    def slow(sources: TrimapSources) -> None:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        time.sleep(0.02)  # gives other requests the chance to be read meanwhile
        with lock:
            reading -= 1

    monkeypatch.setattr("dim_runtime.serve.work.require_small", slow)
    client = start(workers=1)
    content = {"image": png(pair[0]), "trimap": png(pair[1])}
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(client.post, "/v1/jobs", files=content) for _ in range(4)]
    assert [each.result().status_code for each in sent] == [202] * 4
    assert most == 1


def test_a_body_that_is_announced_too_large_is_not_read(start: Start) -> None:
    client = start(max_bytes=1000)
    answer = client.post("/v1/matte", headers={"Content-Length": str(10**10)}, content=b"")
    refused(answer, 413)


def test_a_body_that_turns_out_too_large_is_refused(start: Start, files: dict[str, Any]) -> None:
    def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    client = start(max_bytes=20_000)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(client.post("/v1/matte", content=chunks(), headers=headers), 413)


def test_a_form_has_few_parts_and_short_texts(start: Start, files: dict[str, Any]) -> None:
    client = start()
    refused(client.post("/v1/matte", files=[("image", b"x")] * 9), 400)
    refused(client.post("/v1/matte", files=files, data={f"field{i}": "x" for i in range(40)}), 400)
    refused(client.post("/v1/matte", files=files, data={"background": "x" * 100_000}), 400)


def test_bodies_that_arrive_at_once_have_a_common_limit(start: Start, files: dict[str, Any]) -> None:
    client = start(max_bytes=100_000, arriving_bytes=50_000)
    crowded = client.post("/v1/matte", files={**files, "mask": b"x" * 60_000})
    refused(crowded, 429)
    assert int(crowded.headers["Retry-After"]) >= 1
    assert crowded.headers["Connection"] == "close"
    assert client.post("/v1/matte", files=files).status_code == 200, "what was counted is free again"


def test_the_description_has_every_error(start: Start) -> None:
    described = start().get("/openapi.json").json()
    for route in described["paths"].values():
        for operation in route.values():
            errors = {status: each for status, each in operation["responses"].items() if int(status) >= 400}
            assert set(map(int, errors)) == set(DESCRIPTIONS)
            for each in errors.values():
                assert each["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
    assert set(described["components"]["schemas"]["Problem"]["properties"]) == PARTS
    assert {*STATUS.values()} <= set(DESCRIPTIONS)


class Gate:
    """A back end that waits until the test opens the gate."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Semaphore(0)

    def alpha(self, image: UInt8, trimap: UInt8) -> Floating:
        self.entered.release()
        assert self.open.wait(30)
        return red_channel(image, trimap)


def test_a_full_queue_refuses_with_a_time_to_wait(start: Start, pair: Pair) -> None:
    gate = Gate()
    client = start(alpha=gate.alpha, workers=1, queue=1)

    def send() -> Any:
        image, trimap = pair
        return client.post("/v1/jobs", files={"image": png(image), "trimap": png(trimap)})

    first = send()
    assert gate.entered.acquire(timeout=30), "the worker took the first job"
    second, third = send(), send()
    assert [first.status_code, second.status_code] == [202, 202]
    refused(third, 429)
    assert int(third.headers["Retry-After"]) >= 1
    refused(client.get("/ready"), 429)
    gate.open.set()
    for accepted in (first, second):
        answer = client.get(f"/v1/jobs/{accepted.json()['id']}/result", params={"output": "alpha"})
        np.testing.assert_array_equal(decode(answer.content), library_alpha(pair))


def test_a_job_reports_its_progress_and_is_dropped_when_fetched(
    start: Start, files: dict[str, Any], pair: Pair
) -> None:
    client = start()
    identity = client.post("/v1/jobs", files=files).json()["id"]
    with client.stream("GET", f"/v1/jobs/{identity}/events") as events:
        states = [json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:")]
    assert states[-1]["state"] == "done"
    assert states[-1]["done"] == states[-1]["total"] >= 1
    client.get(f"/v1/jobs/{identity}/result", params={"output": "alpha"})
    cutout = client.get(f"/v1/jobs/{identity}/result", params={"output": "cutout"})
    np.testing.assert_array_equal(decode(cutout.content)[..., 3], library_alpha(pair))
    assert client.get(f"/v1/jobs/{identity}").status_code == 404
    folder = client.app.state.service.queue._root.path  # type: ignore[attr-defined]
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME], "no file is left"


def test_a_client_can_choose_the_identity_of_a_job(start: Start, pair: Pair) -> None:
    client, identity = start(), "0123456789abcdef" * 2
    image, trimap = (png(part) for part in pair)
    for data, status in (({"id": identity}, 202), ({"id": identity}, 422), ({"id": "../1"}, 422)):
        answer = client.post("/v1/jobs", files={"image": image, "trimap": trimap}, data=data)
        assert answer.status_code == status
    assert client.get(f"/v1/jobs/{identity}/result").status_code == 200
    assert client.delete(f"/v1/jobs/{identity}").status_code == 204


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_job_whose_client_is_gone_before_the_response_is_dropped(start: Start, is_gone: bool) -> None:
    async def receive() -> dict[str, str]:
        if not is_gone:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    service = start().app.state.service  # type: ignore[attr-defined]
    queue = service.queue
    job = queue.submit(queue.new_folder(), lambda job: None)
    asyncio.run(service.drop_if_left(Request({"type": "http"}, receive), job))
    queue._pool.shutdown(wait=True)
    assert (queue.find(job.id) is None) == is_gone
    assert job.folder.exists() != is_gone


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/matte", "POST"),
        ("PUT", "/v1/trimap", "POST"),
        ("GET", "/v1/jobs", "POST"),
        ("PUT", "/v1/jobs/0", "DELETE, GET"),
        ("POST", "/v1/jobs/0/result", "GET"),
        ("POST", "/health", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/main.js", "GET, HEAD"),
    ],
)
def test_a_wrong_method_gets_the_right_ones(start: Start, method: str, path: str, allowed: str) -> None:
    answer = start().request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["problem"]


def test_paths_that_do_not_exist_are_not_found(start: Start) -> None:
    client = start()
    assert {client.get(path).status_code for path in ("/v1", "/v1/mattes", "/nothing.js")} == {404}
    assert client.get("/").status_code == client.get("/main.js").status_code == 200


def test_a_proposal_ends_when_nobody_waits_for_it(start: Start) -> None:
    """GrabCut takes minutes for noise, and does not stop within an iteration."""
    client = start(workers=1)
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    marks = np.zeros((1024, 1024, 4), np.uint8)
    cv2.circle(marks, (512, 512), 99, (255, 255, 255, 255), -1)
    cv2.line(marks, (5, 5), (1000, 5), (0, 0, 0, 255), 9)
    identity = client.post("/v1/jobs", files={"image": png(noise), "scribbles": png(marks)}).json()["id"]

    def children() -> list[psutil.Process]:
        found = psutil.Process().children()
        return [each for each in found if "dim_runtime.trimaps.grabcut_process" in each.cmdline()]

    deadline = time.monotonic() + 60
    while not children():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.delete(f"/v1/jobs/{identity}").status_code == 204
    left = time.monotonic()
    client.app.state.service.queue._pool.shutdown(wait=True)  # type: ignore[attr-defined]
    assert time.monotonic() - left < 30
    assert not children()
    assert client.get(f"/v1/jobs/{identity}").status_code == 404


def test_a_job_whose_client_is_gone_is_dropped(start: Start) -> None:
    entered, leave = threading.Event(), threading.Event()

    def held(job: Job) -> None:
        entered.set()
        assert leave.wait(60)

    async def disconnected() -> dict[str, str]:
        return {"type": "http.disconnect"}

    service = start(workers=1).app.state.service  # type: ignore[attr-defined]
    queue = service.queue
    queue.submit(queue.new_folder(), held)
    assert entered.wait(60)
    job = queue.submit(queue.new_folder(), held)
    with pytest.raises(RemovedJobError):
        asyncio.run(service.finished_for(Request({"type": "http"}, disconnected), job))
    assert (queue.find(job.id), queue.waiting) == (None, 0)
    leave.set()


def test_a_result_that_another_request_removed_is_gone(
    start: Start, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = JobQueue.wait

    async def wait_and_drop(queue: JobQueue, job: Job) -> None:
        await wait(queue, job)
        queue.drop(job)

    monkeypatch.setattr(JobQueue, "wait", wait_and_drop)
    client = start()
    identity = client.post("/v1/jobs", files=files).json()["id"]
    refused(client.get(f"/v1/jobs/{identity}/result"), 410)


def test_the_last_event_of_a_job_is_its_end() -> None:
    """Also if the job ends while the event before is sent."""
    job = Job("", Path(), lambda job: None, 0.0, state=State.RUNNING)

    async def states() -> list[str]:
        found = []
        async for event in _events(job):
            found.append(json.loads(event.removeprefix("data:"))["state"])
            job.state = State.DONE
        return found

    assert asyncio.run(states()) == ["running", "done"]


def test_every_phase_of_a_job_reports_progress(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Noted(Job):
        def progress(self, finished: int, total: int) -> None:
            seen.append((self.phase, finished, total))
            super().progress(finished, total)

    monkeypatch.setattr("dim_runtime.serve.jobs.Job", Noted)
    client = start(alpha=lambda image, trimap: (image[..., 0] > 128).astype(np.float64))
    image, marks = disc_and_scribbles()
    files = {"image": io.BytesIO(png(image)), "scribbles": io.BytesIO(png(marks))}
    identity = client.post("/v1/jobs", files=files).json()["id"]
    assert client.get(f"/v1/jobs/{identity}/result").status_code == 200
    assert seen == [
        *[(Phase.TRIMAP, *each) for each in ((0, 0), (0, 1), (1, 1))],
        *[(Phase.MATTE, *each) for each in ((0, 0), (0, 1), (1, 1))],
        *[(Phase.OUTPUTS, *each) for each in ((0, 0), (0, 2), (1, 2))],
    ]


def test_a_job_that_runs_is_stopped(
    start: Start, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Any] = []
    monkeypatch.setattr("dim_runtime.serve.work.render", rendered.append)
    gate = Gate()
    client = start(alpha=gate.alpha)
    identity = client.post("/v1/jobs", files=files).json()["id"]
    assert gate.entered.acquire(timeout=30)
    assert client.get(f"/v1/jobs/{identity}").json()["phase"] == "matte"
    assert client.delete(f"/v1/jobs/{identity}").status_code == 204
    gate.open.set()
    queue = client.app.state.service.queue  # type: ignore[attr-defined]
    queue.close()
    assert (queue.kept, rendered) == (0, [])


def test_results_that_no_request_fetches_are_dropped_without_another_request(
    start: Start, files: dict[str, Any]
) -> None:
    client = start(keep_seconds=0.05)
    assert client.post("/v1/jobs", files=files).status_code == 202
    queue = client.app.state.service.queue  # type: ignore[attr-defined]
    for _ in range(3000):
        if not queue.kept:
            break
        time.sleep(0.01)
    assert queue.kept == 0


def test_a_job_that_fails_says_why(start: Start, files: dict[str, Any]) -> None:
    files["trimap"] = ("t.png", io.BytesIO(b"no image"))
    client = start()
    identity = client.post("/v1/jobs", files=files).json()["id"]
    with client.stream("GET", f"/v1/jobs/{identity}/events") as events:
        states = [json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:")]
    assert states[-1]["state"] == "failed"
    assert "trimap" in states[-1]["error"]["problem"]
    refused(client.get(f"/v1/jobs/{identity}/result"), 422)


def test_an_error_that_is_not_ours_gives_away_its_kind_only(start: Start, files: dict[str, Any]) -> None:
    def broken(image: UInt8, trimap: UInt8) -> Floating:
        raise ZeroDivisionError("secret")

    answer = start(alpha=broken).post("/v1/matte", files=files)
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_a_fault_of_a_route_is_counted_and_has_the_headers_of_every_response(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    broken = Mock(side_effect=ZeroDivisionError("secret"))
    monkeypatch.setattr("dim_runtime.serve.jobs.JobQueue.require_room", broken)
    answer = client.get("/ready")
    assert answer.status_code == 500
    assert answer.json() == {"problem": "the server failed", "why": "ZeroDivisionError"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert 'route="/ready",status="500"' in client.get("/metrics").text


def test_paths_of_a_temporary_folder_with_a_space_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/srv/my tmp")
    error = InputError("cannot read the image /srv/my tmp/dim-serve-ab12/cd34/image", got="no such file")
    assert describe(error) == {"problem": "cannot read the image", "got": "no such file"}


def test_a_job_that_takes_too_long(start: Start, files: dict[str, Any]) -> None:
    gate = Gate()
    client = start(alpha=gate.alpha, job_seconds=0.3)
    parts = refused(client.post("/v1/matte", files=files), 503)
    assert "in time" in parts["problem"]
    gate.open.set()


def test_a_stopping_server_finishes_and_refuses(start: Start, files: dict[str, Any], pair: Pair) -> None:
    client = start()
    identity = client.post("/v1/jobs", files=files).json()["id"]
    client.app.state.service.queue.stop()  # type: ignore[attr-defined]
    refused(client.post("/v1/jobs", files={"image": png(pair[0]), "trimap": png(pair[1])}), 503)
    answer = client.get(f"/v1/jobs/{identity}/result", params={"output": "alpha"})
    np.testing.assert_array_equal(decode(answer.content), library_alpha(pair))


def test_a_token_is_required_where_there_is_one(start: Start, files: dict[str, Any]) -> None:
    client = start(token="secret")
    refused(client.post("/v1/matte", files=files), 401)
    refused(client.get("/metrics", headers={"Authorization": "Bearer other"}), 401)
    assert client.get("/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("token", ["", "sécret", "two words", "line\n"])
def test_a_token_that_no_header_can_carry(start: Start, token: str) -> None:
    with pytest.raises(InputError, match=r"visible ASCII(.*\n)*  fix: .*unset it"):
        start(token=token)


def test_foreign_host_names_are_refused(start: Start) -> None:
    client = start()
    for name in (
        "evil.example",
        "localhost.evil.example:80",
        "",
        "127.0.0.1.evil.example",
        "1:1",
        "[x]",
        "[]:1",
    ):
        refused(client.get("/health", headers={"Host": name}), 400)
    # What follows a name can be rebound; an address cannot.
    for name in (
        "localhost",
        "LocalHost:8000",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8000",
        "10.1.2.3:8000",
        "[::2]",
    ):
        assert client.get("/health", headers={"Host": name}).status_code == 200


def test_a_server_with_a_name_takes_probes_by_address(start: Start) -> None:
    client = start(hosts=["matte.example"])
    for name in ("matte.example", "Matte.Example:443", "localhost:8000", "127.0.0.1:8000", "10.1.2.3:8000"):
        assert client.get("/health", headers={"Host": name}).status_code == 200
    refused(client.get("/health", headers={"Host": "evil.example"}), 400)


def test_levels_that_are_mapped_are_a_warning(start: Start, files: dict[str, Any]) -> None:
    """A true alpha in place of a trimap is used, as on the command line, and the response has the warning."""
    client = start()
    ramp = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (90, 1))
    for route in ("/v1/matte", "/v1/trimap"):
        done = client.post(route, files=files | {"trimap": ("t.png", png(ramp))})
        assert done.status_code == 200, done.text
        assert "are not 0, 128 or 255" in done.headers["dim-warning"]


def test_a_request_for_a_part_gets_the_whole_result(start: Start, files: dict[str, Any], pair: Pair) -> None:
    """The result is dropped once it is fetched, so a part alone would lose the rest."""
    client = start()
    identity = client.post("/v1/jobs", files=files).json()["id"]
    for part in ("bytes=0-9", "bytes=nonsense", "bytes=99999999-"):
        found = client.get(f"/v1/jobs/{identity}/result", params={"output": "alpha"}, headers={"Range": part})
        assert found.status_code == 200
        np.testing.assert_array_equal(decode(found.content), library_alpha(pair))


def test_metrics_count(start: Start, files: dict[str, Any]) -> None:
    client = start()
    client.post("/v1/matte", files=files)
    text = client.get("/metrics").text
    assert 'dim_requests_total{route="/v1/matte",status="200"} 1.0' in text
    assert "dim_job_seconds_count 1.0" in text
    assert "dim_jobs_unfinished 0.0" in text


def test_the_description_names_every_route(start: Start) -> None:
    client = start()
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/matte", "/v1/trimap", "/v1/jobs", "/health", "/ready", "/metrics"} <= set(paths)


def test_the_page_needs_nothing_from_elsewhere(start: Start, page: Path) -> None:
    client = start()
    for file in page.iterdir():
        answer = client.get(f"/{file.name}")
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        outside = [word for word in ("http://", "https://", "//cdn") if word in answer.text]
        assert not [word for word in outside if "w3.org/2000/svg" not in answer.text], file
    assert client.get("/../api.py").status_code == 404


def test_a_trimap_of_a_mask(start: Start, pair: Pair) -> None:
    mask = np.where(pair[1] == 255, 255, 0).astype(np.uint8)
    data = {"inside": "3", "outside": "5"}
    answer = start().post("/v1/trimap", files={"mask": png(mask)}, data=data)
    found = decode(answer.content)
    assert set(np.unique(found)) == {0, 128, 255}
    assert (found[45, 60], found[45, 60 + 18], found[45, 60 + 23], found[0, 0]) == (255, 128, 128, 0)


def test_a_band_is_changed(start: Start, pair: Pair) -> None:
    client = start()
    shares = []
    for band in ("-4", "0", "4"):
        answer = client.post("/v1/trimap", files={"trimap": png(pair[1])}, data={"band": band})
        shares.append((decode(answer.content) == 128).mean())
    assert shares[0] < shares[1] < shares[2]


def test_a_proposal_needs_the_image(start: Start) -> None:
    answer = start().post("/v1/trimap", files={"box": (None, "10,10,20,20")})
    assert "image" in refused(answer, 422)["problem"]


def test_a_16_bit_image_gives_a_16_bit_cutout(start: Start, pair: Pair) -> None:
    image = cv2.resize(pair[0].astype(np.uint16) * 257, None, fx=1, fy=1)
    answer = start().post(
        "/v1/matte", files={"image": png(image), "trimap": png(pair[1])}, data={"foreground": "image"}
    )
    found = decode(answer.content)
    assert found.dtype == np.uint16
    visible = found[..., 3] > 0
    np.testing.assert_array_equal(found[..., :3][visible], image[visible])


def test_the_library_is_what_render_makes(start: Start, files: dict[str, Any], pair: Pair) -> None:
    """A premise of the tests above: the server adds nothing to :func:`render`."""
    from dim_runtime.outputs.spec import Output
    from dim_runtime.serve.work import spec_of

    with Matting.from_backend(FakeBackend()) as matting:
        alpha = matting(*pair)
    spec = spec_of(Output.CUTOUT, kind="png", foreground="estimated", max_pixels=10**6)
    pytest.importorskip("pymatting")
    answer = start().post("/v1/matte", files=files)
    np.testing.assert_array_equal(decode(answer.content), render(pair[0], alpha, spec))


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("dim_runtime.serve.jobs.tempfile.mkdtemp", id="folder"),
        pytest.param("dim_runtime.serve.service._store", id="upload"),
        pytest.param("dim.images.files.write_bytes", id="result"),
        pytest.param("starlette.formparsers.SpooledTemporaryFile.write", id="form"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_request(
    start: Start, files: dict[str, Any], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    with monkeypatch.context() as patch:
        patch.setattr(place, full if place != "dim.images.files.write_bytes" else unwritable)
        answer = client.post("/v1/matte", files=files, data={"output": "alpha"})
        assert answer.status_code == 507, answer.text
        assert set(answer.json()) <= PARTS
        assert "No space left on device" in answer.json()["why"]
        assert answer.headers["retry-after"] == "60"
    for file in files.values():
        file[1].seek(0)
    assert client.post("/v1/matte", files=files, data={"output": "alpha"}).status_code == 200


def unwritable(path: Path, data: bytes) -> None:
    with os_errors(path):
        full()


def test_a_server_whose_folder_was_cleaned_up_makes_another(start: Start, files: dict[str, Any]) -> None:
    client = start()
    assert client.post("/v1/matte", files=files).status_code == 200
    shutil.rmtree(client.app.state.service.queue._root.path)  # type: ignore[attr-defined]
    for file in files.values():
        file[1].seek(0)
    assert client.post("/v1/matte", files=files).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("PUT", "/v1/matte"), ("POST", "/main.js")]
)
def test_errors_of_the_protocol_have_parts(start: Start, method: str, path: str) -> None:
    answer = start().request(method, path)
    assert answer.status_code in (404, 405)
    assert {"problem", "got"} < set(answer.json()) <= PARTS
