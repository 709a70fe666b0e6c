"""Byte counts, what the system reports of this process, and the promise of a memory limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dim.errors import InputError
from dim_runtime.memory import available_bytes, format_bytes, parse_bytes, peak_resident_bytes, resident_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("800mb", 8 * 10**8), ("123", 123), (" 1 KiB ", 1024)],
)
def test_amounts_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "2 apples", "-1GB", "1e9", "2GB2"])
def test_other_texts_are_errors(text: str) -> None:
    with pytest.raises(InputError, match="2GB"):
        parse_bytes(text)


@given(st.integers(0, 10**13))
def test_a_printed_amount_is_never_too_small(count: int) -> None:
    assert count <= parse_bytes(format_bytes(count)) <= count + max(count // 50, 10**6)


def test_resident_memory_grows_with_what_is_touched() -> None:
    before = resident_bytes()
    block = np.ones(100 * 2**20, np.uint8)
    assert resident_bytes() - before > 0.9 * block.nbytes
    assert peak_resident_bytes() >= before + 0.9 * block.nbytes


@pytest.mark.parametrize(
    ("limit", "expected"), [("1000000", 700_000), ("max", None), ("300000", 0)], ids=["limit", "none", "full"]
)
def test_files_that_a_container_caches_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None
) -> None:
    monkeypatch.setattr("dim_runtime.memory.CGROUP", tmp_path)
    whole = available_bytes()
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("800000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 500000\nactive_file 0\n")
    found = available_bytes()
    assert found == expected if expected is not None else abs(found - whole) < 2**30


LARGE_IMAGE = """
import cv2, numpy as np
from dim_runtime import Matting
from dim_runtime.memory import peak_resident_bytes

LIMIT, HEIGHT, WIDTH = {limit}, {height}, {width}
image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
image[::7, :, 1] = 200
trimap = np.zeros((HEIGHT, WIDTH), np.uint8)
middle, axes = (WIDTH // 2, HEIGHT // 2), (WIDTH * 29 // 80, HEIGHT * 22 // 60)
cv2.ellipse(trimap, middle, axes, 0, 0, 360, 255, -1)
cv2.ellipse(trimap, middle, axes, 0, 0, 360, 128, WIDTH * 45 // 800)
unknown = int((trimap == 128).sum())
assert 0.14 < unknown / trimap.size < 0.16
matting = Matting(memory_limit=LIMIT)
plan = matting.plan(trimap)
alpha = matting(image, trimap)
assert alpha.shape == trimap.shape and alpha.dtype == np.float32
for rows in range(0, HEIGHT, 500):
    part, known = alpha[rows : rows + 500], trimap[rows : rows + 500]
    assert (part >= 0).all() and (part <= 1).all()
    assert (part[known == 0] == 0).all() and (part[known == 255] == 1).all()
print(plan.peak_bytes, peak_resident_bytes(), plan.tile, Matting().plan(trimap).tile)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "limit", "lowered"),
    [(6000, 8000, 2 * 10**9, False), (1500, 2000, 45 * 10**7, True)],
    ids=["48 megapixels in 2 GB", "3 megapixels in 450 MB"],
)
def test_the_limit_is_kept(height: int, width: int, limit: int, lowered: bool) -> None:
    """15 % unknown; the caller's arrays and the checks are in the same process."""
    code = LARGE_IMAGE.format(height=height, width=width, limit=limit)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    planned, peak, tile, unlimited = map(int, done.stdout.split())
    assert peak < planned <= limit
    assert (tile < unlimited) is lowered
