"""How soft alpha is: what is compared, and the table of a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dim.errors import InputError
from dim.images.files import write_image
from soft_pixels import compare, main, table


def test_a_hard_alpha_of_a_soft_truth() -> None:
    truth = np.array([[0.0, 0.3, 0.7, 1.0]], np.float32)
    found = compare(
        np.array([[0.9, 0.0, 1.0, 1.0]], np.float32), truth, np.array([[False, True, True, True]])
    )
    assert found.sad == pytest.approx(0.0006)
    assert found.error == pytest.approx(0.0, abs=1e-6)
    assert (found.found, found.true) == (0.0, pytest.approx(2 / 3))
    assert "| a | 0.00 | +0.000 | 0.000 | 0.667 |" in table([("a", found)]).replace("-0.000", "+0.000")


def test_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    for folder, pixels in (
        ("images", np.full((32, 32, 3), 80, np.uint8)),
        ("trimaps", np.full((32, 32), 128, np.uint8)),
        ("alphas", np.full((32, 32), 128, np.uint8)),
    ):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "gray.png", pixels)
    monkeypatch.setattr(sys, "argv", ["soft_pixels.py", str(tmp_path), "dim-clean", "dim-compact"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["dim-clean:", "dim-compact:"]
    assert sum(line.startswith("| gray | ") and line.endswith(" | 1.000 |") for line in lines) == 2
    (tmp_path / "alphas" / "gray.png").unlink()
    with pytest.raises(InputError):
        main()
