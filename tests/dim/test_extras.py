"""Optional packages: the error names the first one that is missing, and the extra."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dim.errors import MissingExtraError
from dim.extras import require


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
