"""Composition-1k from a miniature archive: names, pixels, refusals, and what survives an interruption."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from dim.arrays import UInt8
from dim.errors import DimError, InputError
from dim_training.data import annotations
from dim_training.prepare.comp1k.files import write_png
from dim_training.prepare.comp1k.layout import TEST, TRAINING
from dim_training.prepare.comp1k.pixels import composite, fit_background
from dim_training.prepare.comp1k.prepare import Summary, prepare
from dim_training.processes import crew

FEW_TRAINING, FEW_TEST = TRAINING._replace(per_foreground=3), TEST._replace(per_foreground=2)
ADOBE, OTHER = "Adobe-licensed images", "Other"


class Archive(NamedTuple):
    """Folders with blanks in their names, as users have them."""

    root: Path
    coco: Path
    voc: Path

    def prepare(self, **options: Any) -> Summary:
        options = {"workers": 1, "progress": False, "training": FEW_TRAINING, "test": FEW_TEST, **options}
        return prepare(*self, **options)

    def outputs(self) -> dict[str, bytes]:
        """Everything in the generated folders, by relative path."""
        folders = [
            self.root / part / name for part in ("Training_set", "Test_set") for name in ("bg", "merged")
        ]
        files = [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in (*files, *self.lists())}

    def lists(self) -> list[Path]:
        return sorted(self.root.glob("*_list.json"))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return _make_archive(tmp_path)


@pytest.fixture
def prepared(archive: Archive) -> Archive:
    archive.prepare(composite=True)
    return archive


def _make_archive(folder: Path, *, coco_year: int = 2014, scale: int = 1) -> Archive:
    """Three training foregrounds × 3 and two test foregrounds × 2, from 30 × 20 px on, times ``scale``."""
    made = Archive(folder / "Composition 1k", folder / "co co", folder / "VOC devkit")
    draw = np.random.default_rng(0)
    training = [(ADOBE, "a tree.jpg", (30, 20)), (OTHER, "glass.png", (41, 33)), (ADOBE, "cat.jpg", (25, 60))]
    test = [(ADOBE, "net.png", (30, 20)), (ADOBE, "hair.png", (50, 31))]
    for subset, foregrounds in ((FEW_TRAINING, training), (FEW_TEST, test)):
        for source, name, (width, height) in foregrounds:
            shape = (height * scale, width * scale)
            _save(made.root / subset.folder / source / "fg" / name, _noise(draw, *shape, 3))
            _save(made.root / subset.folder / source / "alpha" / name, _noise(draw, *shape))
            for i in range(subset.per_foreground if subset.trimaps else 0):
                trimap = Path(ADOBE, "trimaps", f"{Path(name).stem}_{i}.png")
                _save(made.root / subset.folder / trimap, _noise(draw, *shape))
        _write_lines(made.root / subset.names_file("fg"), [name for _, name, _ in foregrounds])
    _write_photographs(made, draw, coco_year)
    return made


def _write_photographs(made: Archive, draw: np.random.Generator, coco_year: int) -> None:
    coco = [f"COCO_train2014_{i:012d}.jpg" for i in (581921, 9, 25, 30, 34, 36, 49, 61, 64)]
    voc = [f"2008_{i:06d}.jpg" for i in (34, 2, 8, 15)]
    _write_lines(made.root / FEW_TRAINING.names_file("bg"), coco)
    _write_lines(made.root / FEW_TEST.names_file("bg"), voc)
    for i, name in enumerate(coco):
        found_as = name.removeprefix("COCO_train2014_" if coco_year == 2017 else "")
        channels = () if i == 1 else (3,)
        _save(made.coco / f"train{coco_year}" / found_as, _noise(draw, 24 + 5 * i, 64 - 4 * i, *channels))
    for name in voc:
        _save(made.voc / "VOC2012" / "JPEGImages" / name, _noise(draw, 40, 45, 3))


def _noise(draw: np.random.Generator, *shape: int) -> UInt8:
    return draw.integers(0, 256, shape, dtype=np.uint8)


def _save(path: Path, array: UInt8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_bytes("\r\n".join([*lines, ""]).encode())


def _read(path: Path) -> UInt8:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_annotations_have_the_published_names_and_order(prepared: Archive) -> None:
    training, test = (
        json.loads((prepared.root / name).read_text()) for name in ("training_list.json", "test_list.json")
    )
    assert [Path(entry["merged_path"]).stem for entry in training] == [
        f"{stem}_{i}" for stem in ("a tree", "glass", "cat") for i in range(3)
    ]
    assert training[4] == {
        "alpha_path": "Training_set/Other/alpha/glass.png",
        "fg_path": "Training_set/Other/fg/glass.png",
        "bg_path": "Training_set/bg/glass_1.png",
        "merged_path": "Training_set/merged/glass_1.png",
    }
    assert training[0]["fg_path"] == "Training_set/Adobe-licensed images/fg/a tree.jpg"
    assert len(test) == 4
    assert test[3] == {
        "alpha_path": "Test_set/Adobe-licensed images/alpha/hair.png",
        "fg_path": "Test_set/Adobe-licensed images/fg/hair.png",
        "bg_path": "Test_set/bg/hair_1.png",
        "merged_path": "Test_set/merged/hair_1.png",
        "trimap_path": "Test_set/Adobe-licensed images/trimaps/hair_1.png",
    }


def test_every_image_is_what_the_specification_says(prepared: Archive) -> None:
    names = (prepared.root / "Training_set/training_bg_names.txt").read_text().split()
    for entry, name in zip(
        json.loads((prepared.root / "training_list.json").read_text()), names, strict=True
    ):
        foreground, alpha, background, merged = (
            _read(prepared.root / entry[f"{key}_path"]) for key in ("fg", "alpha", "bg", "merged")
        )
        with Image.open(prepared.coco / "train2014" / name) as photograph:
            rgb = photograph.convert("RGB")
        height, width = alpha.shape[:2]
        ratio = max(width / rgb.width, height / rgb.height, 1)
        if ratio > 1:
            size = (int(np.ceil(rgb.width * ratio)), int(np.ceil(rgb.height * ratio)))
            rgb = rgb.resize(size, Image.Resampling.BICUBIC)
        assert np.array_equal(background, np.asarray(rgb)[:height, :width])
        a = alpha / 255.0
        assert np.array_equal(merged, (foreground * a + background * (1.0 - a)).astype(np.uint8))


def test_composites_are_truncated_float64_for_every_value() -> None:
    colours, alphas = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    for behind in (0, 1, 128, 255):
        found = composite(colours[..., None], np.full((256, 256, 1), behind, np.uint8), alphas[..., None])
        expected = [
            [int(float(f) * (a / 255) + behind * (1 - a / 255)) for f in range(256)] for a in range(256)
        ]
        assert np.array_equal(found[..., 0], expected)


@pytest.mark.parametrize("size", [(20, 10), (40, 30), (90, 30), (41, 90), (123, 77)])
def test_backgrounds_are_enlarged_only_as_far_as_needed(size: tuple[int, int]) -> None:
    ramp = np.add.outer(3 * np.arange(30), 2 * np.arange(40)).astype(np.uint8)
    photograph = Image.fromarray(np.dstack([ramp] * 3))
    found = fit_background(photograph, size)
    assert found.size == size
    if size[0] <= 40 and size[1] <= 30:
        assert found.tobytes() == photograph.crop((0, 0, *size)).tobytes()
    else:
        assert np.abs(np.asarray(found)[0, 0].astype(int) - ramp[0, 0]).max() <= 1


def test_coco_2017_gives_the_same_files(prepared: Archive, tmp_path: Path) -> None:
    other = _make_archive(tmp_path / "other", coco_year=2017)
    other.prepare(composite=True)
    assert other.outputs() == prepared.outputs()


@pytest.mark.parametrize("inside", ["", "VOC2012"])
def test_voc_is_found_around_and_inside_of_voc2012(archive: Archive, inside: str) -> None:
    other = archive._replace(voc=archive.voc / inside)
    assert other.prepare(skip_train=True).test.compositions == 4


def test_training_composites_are_optional_and_named_all_the_same(archive: Archive) -> None:
    summary = archive.prepare()
    assert (summary.training, summary.test) == (
        (archive.root / "training_list.json", 3, 9),
        (archive.root / "test_list.json", 2, 4),
    )
    assert (summary.written, summary.kept) == (9 + 2 * 4, 0)
    assert not (archive.root / "Training_set" / "merged").exists()
    entry = json.loads((archive.root / "training_list.json").read_text())[0]
    assert entry["merged_path"] == "Training_set/merged/a tree_0.png"
    assert archive.prepare(composite=True)[2:] == (9, 9 + 2 * 4)


def test_skip_train_needs_no_coco(archive: Archive) -> None:
    summary = archive._replace(coco=Path("absent")).prepare(skip_train=True)
    assert summary.training is None
    assert archive.lists() == [archive.root / "test_list.json"]
    assert not (archive.root / "Training_set" / "bg").exists()


def test_outputs_have_no_profile(archive: Archive) -> None:
    photograph = archive.voc / "VOC2012/JPEGImages/2008_000034.jpg"
    with Image.open(photograph) as image:
        image.save(photograph, icc_profile=b"a profile")
    archive.prepare(skip_train=True)
    with Image.open(archive.root / "Test_set/bg/net_0.png") as image:
        assert "icc_profile" not in image.info


def test_prepared_lists_can_be_read(prepared: Archive) -> None:
    found = annotations.read(prepared.root / "training_list.json", prepared.root, composed=True)
    assert [item.background.name for item in found[:2]] == ["a tree_0.png", "a tree_1.png"]
    assert len(annotations.read_test(prepared.root / "test_list.json", prepared.root)) == 4


def test_wrong_counts_are_refused_with_the_numbers(archive: Archive) -> None:
    names = archive.root / "Training_set/training_bg_names.txt"
    _write_lines(names, names.read_text().split()[:-1])
    (archive.root / "Test_set/test_fg_names.txt").write_text("net.png\nhair.png\nnet.png\n../etc/x.png\n")
    with pytest.raises(InputError) as error:
        archive.prepare()
    text = str(error.value)
    assert "Training_set: 3 foregrounds × 3 = 9, but 8 backgrounds" in text
    assert "'../etc/x.png' is no file name" in text
    assert "431 foregrounds and 1293 backgrounds" in text
    assert not archive.outputs()


def test_lists_that_are_missing_or_repeat_a_name(archive: Archive) -> None:
    (archive.root / "Training_set/training_bg_names.txt").unlink()
    (archive.root / "Test_set/test_fg_names.txt").write_text("net.png\nnet.jpg\n")
    with pytest.raises(InputError, match="net is there 2 times") as error:
        archive.prepare()
    assert "training_bg_names.txt: No such file" in str(error.value)


@pytest.mark.parametrize("field", ["coco", "voc"])
def test_photographs_that_are_nowhere(archive: Archive, field: str) -> None:
    with pytest.raises(InputError, match="background photographs"):
        archive._replace(**{field: archive.root}).prepare()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_missing_and_damaged_files_are_listed_together_before_any_work(archive: Archive) -> None:
    _truncate(archive.coco / "train2014/COCO_train2014_000000000025.jpg")
    _truncate(archive.root / "Test_set" / ADOBE / "trimaps/hair_1.png")
    (archive.voc / "VOC2012/JPEGImages/2008_000008.jpg").write_text("no image")
    (archive.coco / "train2014/COCO_train2014_000000000061.jpg").unlink()
    (archive.root / "Training_set" / OTHER / "fg/glass.png").unlink()
    _save(archive.root / "Training_set" / ADOBE / "alpha/cat.jpg", np.zeros((9, 8), np.uint8))
    deep = archive.root / "Test_set" / ADOBE / "alpha/net.png"
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(deep)
    with pytest.raises(InputError) as error:
        archive.prepare(workers=2)
    text = str(error.value)
    for part in (
        "7 files",
        "025.jpg: image file is truncated",
        "hair_1.png: ",
        "2008_000008.jpg: not an image",
        "061.jpg: no such file",
        "fg/glass.png: no such file",
        "cat.jpg: 8 × 9 px, but ",
        "alpha/net.png: more than 8 bits a channel",
    ):
        assert part in text
    assert not archive.outputs()


def test_long_lists_of_missing_files_are_cut(archive: Archive) -> None:
    for path in archive.root.rglob("*.*g"):
        path.unlink()
    for path in archive.voc.rglob("*.jpg"):
        path.unlink()
    for path in archive.coco.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match=r"… and 7 more; 27 in all"):
        archive.prepare()


def test_a_second_run_keeps_what_is_complete_and_remakes_the_rest(prepared: Archive) -> None:
    before = prepared.outputs()
    damaged, lost = prepared.root / "Training_set/bg/cat_2.png", prepared.root / "Test_set/merged/net_0.png"
    _truncate(damaged)
    lost.unlink()
    kept = prepared.root / "Training_set/bg/cat_1.png"
    os.utime(kept, (1, 1))
    # A background that is there needs no photograph.
    (prepared.coco / "train2014/COCO_train2014_000000581921.jpg").unlink()
    assert prepared.prepare(composite=True)[2:] == (2, 24)
    assert prepared.outputs() == before
    assert kept.stat().st_mtime == 1


def test_processes_give_the_files_of_one(prepared: Archive, tmp_path: Path) -> None:
    other = _make_archive(tmp_path / "other")
    other.prepare(composite=True, workers=2, progress=True)
    assert other.outputs() == prepared.outputs()


def test_workers_that_cannot_be_or_are_killed(archive: Archive) -> None:
    with pytest.raises(InputError, match="1 or more"):
        archive.prepare(workers=0)
    with pytest.raises(DimError, match="worker process was killed"), crew(2, progress=False) as hands:
        hands.map(os._exit, [3], "dying")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*x\.png"):
        write_png(tmp_path / "x.png", np.zeros((2, 3, 3), np.uint8))
    assert list(tmp_path.iterdir()) == [tmp_path / "x.png"]


_SCRIPT = """
import sys
from pathlib import Path
from dim_training.prepare.comp1k.prepare import prepare
from dim_training.prepare.comp1k.layout import TEST, TRAINING
print("ready", flush=True)
prepare(*map(Path, sys.argv[2:]), workers=int(sys.argv[1]), composite=True, progress=False,
        training=TRAINING._replace(per_foreground=3), test=TEST._replace(per_foreground=2))
"""


def _start(archive: Archive, workers: int) -> subprocess.Popen[str]:
    """Start a preparation in its own process group; return when it has read its modules."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(workers), *map(str, archive)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _wait_for_outputs(process: subprocess.Popen[str], archive: Archive, count: int) -> None:
    """Return when so many further files were written, or when the process has ended."""
    before = _count_outputs(archive)
    while process.poll() is None and _count_outputs(archive) < before + count:
        time.sleep(0.001)


def _count_outputs(archive: Archive) -> int:
    return len(_images(archive))


def _images(archive: Archive) -> list[Path]:
    """Return the images with a final name; a killed process leaves hidden partial ones."""
    return [path for part in ("bg", "merged") for path in archive.root.glob(f"*/{part}/[!.]*.png")]


@pytest.mark.slow
def test_killed_twenty_times_at_random_nothing_is_unreadable(tmp_path: Path) -> None:
    whole, torn = (_make_archive(tmp_path / name, scale=12) for name in ("whole", "torn"))
    whole.prepare(composite=True)
    most = _count_outputs(whole) // 3
    draw, kills, kills_with_files = random.Random(7), 0, 0
    while kills < 20:
        workers = 1 + (draw.random() < 0.3)
        process = _start(torn, workers)
        _wait_for_outputs(process, torn, draw.randrange(most))
        if process.poll() is None:
            # The process alone, so that its workers must notice; or all of them at once.
            draw.choice((os.kill, os.killpg))(process.pid, signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        kills += killed
        kills_with_files += killed and bool(_assert_readable(torn))
        if not killed:
            _forget_some(torn, draw)
    assert kills_with_files > 5
    torn.prepare(composite=True)
    assert torn.outputs() == whole.outputs()
    assert not list(torn.root.rglob(".*"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    process = _start(_make_archive(tmp_path, scale=24), 2)
    deadline = time.monotonic() + 60
    while len(_alive(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)


def _alive(group: int) -> list[str]:
    """Return the processes of a group that are neither gone nor waiting to be reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of, *_ = path.read_text().rpartition(")")[2].split()
            found += [path.parent.name] if int(of) == group and state != "Z" else []
    return found


def _assert_readable(archive: Archive) -> list[Path]:
    """Decode every file with a final name; the lists must name nothing that is not there."""
    images = _images(archive)
    for path in images:
        assert _read(path).any()
    for path in archive.lists():
        annotations.read(path, archive.root, composed=True)
    return images


def _forget_some(archive: Archive, draw: random.Random) -> None:
    for path in archive.lists():
        path.unlink()
    for folder in ("bg", "merged"):
        for path in sorted(archive.root.glob(f"*/{folder}/*.png")):
            if draw.random() < 0.7:
                path.unlink()
