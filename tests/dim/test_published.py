"""Checkpoint arguments: paths, URLs and published names, with a server in a thread in place of the web."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from urllib.request import build_opener

import pytest
import typer
from typer.testing import CliRunner

from dim import cli_support, published
from dim.cli_support import CHECKPOINT_HELP, checkpoint_file
from dim.download import DownloadError
from dim.errors import CheckpointError, InputError
from dim.published import PUBLISHED, locate

CONTENT = b"a checkpoint" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = "openmmlab/dim_stage1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def publish(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve the first published file on the local server."""
    monkeypatch.setattr(published, "PUBLISHED", {NAME: f"{address}/dim_stage1-{DIGEST[:8]}.pth"})
    return


def test_the_published_files_are_openmmlabs_three() -> None:
    assert list(PUBLISHED) == [f"openmmlab/dim_stage{stage}" for stage in (1, 2, 3)]
    for name, url in PUBLISHED.items():
        stage = name[-1]
        assert re.fullmatch(
            rf"https://download\.openmmlab\.com/mmediting/mattors/dim/dim_stage{stage}_v16_(pln_)?1x1_1000k_"
            r"comp1k_SAD-\d\d\.\d_202006\d\d_\d{6}-[0-9a-f]{8}\.pth",
            url,
        )
    assert [url[-12:-4] for url in PUBLISHED.values()] == ["979a420f", "d83c4775", "647f24b6"]


@pytest.mark.usefixtures("publish")
def test_a_name_is_downloaded_once_and_checked(tmp_path: Path) -> None:
    path = locate(NAME, cache=tmp_path, opener=build_opener())
    assert path.read_bytes() == CONTENT
    assert tmp_path in path.parents
    changed = path.stat().st_mtime_ns
    assert locate(NAME, cache=tmp_path, opener=build_opener(), sha256=DIGEST).stat().st_mtime_ns == changed


def test_a_file_that_is_not_the_published_one_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(published, "PUBLISHED", {NAME: f"{address}/dim_stage1-00000000.pth"})
    with pytest.raises(DownloadError, match="not the published file"):
        locate(NAME, cache=tmp_path, opener=build_opener())
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.usefixtures("publish")
def test_a_digest_that_contradicts_the_published_one_is_reported_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another SHA-256"):
        locate(NAME, cache=tmp_path, opener=build_opener(), sha256="ff" * 32)
    assert not list(tmp_path.iterdir())


def test_a_url_needs_a_digest(address: str, tmp_path: Path) -> None:
    url = f"{address}/weights.pth"
    with pytest.raises(InputError, match="unchecked"):
        locate(url, cache=tmp_path, opener=build_opener())
    assert locate(url, cache=tmp_path, opener=build_opener(), sha256=DIGEST).read_bytes() == CONTENT
    named = locate(f"{url}#sha256={DIGEST}", cache=tmp_path, opener=build_opener())
    assert named.name == "weights.pth"
    with pytest.raises(DownloadError, match="not the published file"):
        locate(f"{url}#sha256={'0' * 64}", cache=tmp_path, opener=build_opener())


def test_http_is_refused_for_names_and_urls_alike(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="https"):
        locate(f"{address}/weights.pth", cache=tmp_path, sha256=DIGEST)


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    assert locate(path) == path  # the reader raises
    path.write_bytes(CONTENT)
    assert locate(str(path), sha256=DIGEST[:12]) == path
    assert locate(f"{path}#sha256={DIGEST}") == path
    with pytest.raises(InputError, match="does not match"):
        locate(path, sha256="0" * 8)
    with pytest.raises(InputError, match="does not match"):
        locate(f"{path}#sha256={'0' * 64}")


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openmmlab").mkdir()
    (tmp_path / NAME).write_bytes(CONTENT)
    assert locate(NAME) == Path(NAME)


@pytest.mark.parametrize("text", ["openmmlab/dim_stage4", "openmmlab/stage3", "openmmlab/"])
def test_a_misspelt_name_names_the_nearest(text: str) -> None:
    with pytest.raises(InputError, match="openmmlab/dim_stage"):
        locate(text)


def test_a_path_below_a_folder_called_openmmlab_is_a_path() -> None:
    assert locate("openmmlab/mine.pth") == Path("openmmlab/mine.pth")


def _command() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def show(
        checkpoint: Annotated[Path, typer.Argument(parser=checkpoint_file, help=CHECKPOINT_HELP)],
        init: Annotated[Path | None, typer.Option(parser=checkpoint_file)] = None,
    ) -> None:
        typer.echo(f"{checkpoint} {init}")

    return app


@pytest.mark.usefixtures("publish")
def test_on_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = partial(locate, cache=tmp_path, opener=build_opener())
    monkeypatch.setattr(cli_support, "locate", local)
    done = CliRunner().invoke(_command(), [NAME, "--init", "mine.pth"])
    path, init = done.output.split()
    assert Path(path).read_bytes() == CONTENT
    assert init == "mine.pth"


def test_errors_on_a_command_line_keep_their_four_parts() -> None:
    done = CliRunner().invoke(_command(), ["openmmlab/dim_stage4"])
    assert isinstance(done.exception, CheckpointError)
    assert done.exception.fix == "openmmlab/dim_stage3?"
    done = CliRunner().invoke(_command(), ["http://example.org/dim-00000000.pth"])
    assert isinstance(done.exception, CheckpointError)
    assert done.exception.expected == "https://"
