"""Optional packages: the error names the first one that is missing, and the extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dim.errors import MissingExtraError
from dim.extras import require, silence_onnxruntime


def test_packages_that_are_there_are_no_error() -> None:
    require("read", "json", "numpy")
    require("read")


def test_the_first_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gone", None)
    monkeypatch.setitem(sys.modules, "gone_too", None)
    with pytest.raises(MissingExtraError, match="cannot score a photograph") as caught:
        require("score a photograph", "json", "gone", "gone_too", extra="training")
    assert "the package 'gone' is" in str(caught.value)
    assert "[training]" in str(caught.value)


def test_the_reason_why_an_installed_package_does_not_load_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_package.py").write_text("raise ImportError('libcudart.so.13: no such file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match="'broken_package' does not load") as caught:
        require("run a model", "broken_package", extra="cpu")
    assert "why: libcudart.so.13: no such file" in str(caught.value)


def test_importing_onnxruntime_leaves_no_telemetry(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    program = "from dim.extras import require; require('read', 'onnxruntime')"
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program], env=kept | places, check=True)
    assert not list(tmp_path.rglob("*"))


def test_a_users_choice_about_telemetry_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    silence_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
