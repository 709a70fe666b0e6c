"""The temporary folder of a server that was killed is removed by the next one, and no other folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fcntl")

from dim.errors import InputError
from dim_runtime.serve import folders
from dim_runtime.serve.folders import FOLDER_PREFIX, LOCK_NAME, ServerFolder, remove_abandoned

PROGRAM = """
import time
from dim_runtime.serve.folders import ServerFolder
folder = ServerFolder()
(folder.path / "upload").write_bytes(b"image")
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def server(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Return a process that holds a folder, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()


def test_the_folder_of_a_killed_server_is_removed(server: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = server
    remove_abandoned()
    assert (folder / "upload").exists(), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.wait()
    remove_abandoned()
    assert not folder.exists()


def test_a_folder_is_left_while_this_process_has_it(temporary: Path) -> None:
    folder = ServerFolder()
    assert folder.path.parent == temporary
    remove_abandoned()
    assert folder.path.exists()
    folder.close()
    assert not list(temporary.iterdir())


def test_links_and_folders_of_others_are_left(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / LOCK_NAME).touch()
    (temporary / f"{FOLDER_PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{FOLDER_PREFIX}without-a-lock").mkdir()
    (temporary / f"{FOLDER_PREFIX}file").touch()
    linked, piped, others = (
        temporary / f"{FOLDER_PREFIX}{name}" for name in ("linked-lock", "pipe", "others")
    )
    for folder in (linked, piped, others):
        folder.mkdir()
    (linked / LOCK_NAME).symlink_to(elsewhere / LOCK_NAME)
    os.mkfifo(piped / LOCK_NAME)
    (others / LOCK_NAME).touch()
    if os.geteuid() == 0:
        os.chown(others, 12345, 12345)
    else:
        (others / LOCK_NAME).unlink()
    before = set(temporary.iterdir())
    remove_abandoned()
    assert set(temporary.iterdir()) == before
    assert (elsewhere / LOCK_NAME).exists()


def test_a_starting_application_removes_them(temporary: Path) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    from dim_runtime import Matting
    from dim_runtime.backends.fake import FakeBackend
    from dim_runtime.serve.api import create_app

    left = temporary / f"{FOLDER_PREFIX}left"
    left.mkdir()
    (left / LOCK_NAME).touch()
    with Matting.from_backend(FakeBackend()) as matting, testclient.TestClient(create_app(matting)):
        assert not left.exists()


def test_a_folder_without_its_lock_is_not_left(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(lock: int) -> bool:
        raise OSError("no space left")

    monkeypatch.setattr(folders, "_try_lock", full)
    with pytest.raises(OSError, match="no space"):
        ServerFolder()
    assert not list(temporary.glob(f"{FOLDER_PREFIX}*"))


def test_a_system_without_a_temporary_folder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(InputError, match="TMPDIR"):
        folders.require_temporary_folder()
