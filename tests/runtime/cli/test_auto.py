"""``dim-matte auto`` and the sources of ``dim-matte trimap``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dim.errors import InputError
from dim_runtime import Matting
from dim_runtime.backends.fake import FakeBackend
from dim_runtime.cli.app import app

typer_testing = pytest.importorskip("typer.testing")


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dim_runtime.matting.Matting.from_options",
        classmethod(lambda cls, options, progress=False: Matting.from_backend(FakeBackend())),
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a red disc over blue, 160 × 200."""
    distance = np.hypot(*np.ogrid[-80:80, -100:100])
    image = np.where(distance[..., None] < 50, (30, 60, 230), (150, 80, 20)).astype(np.float64)
    image += np.random.default_rng(0).normal(0, 6, image.shape)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8))
    return path


def run(*arguments: object) -> str:
    """Run the command; its errors are raised."""
    done = typer_testing.CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return str(done.output)


def test_a_box_gives_a_cutout(photo: Path, tmp_path: Path) -> None:
    out, trimap = tmp_path / "cutout.png", tmp_path / "trimap.png"
    run(
        *("auto", photo, "-o", out, "--box", "40,20,120,120", "--foreground", "image"),
        *("--save-trimap", trimap),
    )
    cutout = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    levels = cv2.imread(str(trimap), cv2.IMREAD_UNCHANGED)
    assert cutout.shape == (160, 200, 4)
    assert (cutout[..., 3][levels == 255] == 255).all()
    assert (cutout[..., 3][levels == 0] == 0).all()
    assert levels[80, 100] == 255
    assert levels[0, 0] == 0


def test_the_background_is_not_replaced(photo: Path, tmp_path: Path) -> None:
    background = tmp_path / "background.png"
    background.write_bytes(photo.read_bytes())
    options = ("--out", "composite", "--background", background, "--box", "40,20,120,120")
    with pytest.raises(InputError, match="one of the inputs"):
        run("auto", photo, "-o", background, *options)
    assert background.read_bytes() == photo.read_bytes()


def test_a_mask_gives_an_alpha(photo: Path, tmp_path: Path) -> None:
    mask = np.zeros((160, 200), np.uint8)
    cv2.circle(mask, (100, 80), 50, 255, -1)
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    run("auto", photo, "-o", tmp_path / "a.png", "--out", "alpha", "--mask", tmp_path / "mask.png")
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[80, 100] == 255


def test_a_mask_model_gives_a_cutout(photo: Path, tmp_path: Path) -> None:
    """A network of rembg's layout, whose mask is where red is strong."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    floats, weights = onnx.TensorProto.FLOAT, np.reshape([20, 0, 0], (1, 3, 1, 1)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["input", "weights"], ["logits"]),
            onnx.helper.make_node("Sigmoid", ["logits"], ["mask"]),
        ],
        "red",
        [onnx.helper.make_tensor_value_info("input", floats, [1, 3, "side", "side"])],
        [onnx.helper.make_tensor_value_info("mask", floats, [1, 1, "side", "side"])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "red.onnx")
    out = tmp_path / "cutout.png"
    run("auto", photo, "-o", out, "--mask-model", tmp_path / "red.onnx", "--foreground", "image")
    alpha = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)[..., 3]
    assert alpha.shape == (160, 200)
    assert (alpha[70:90, 90:110] == 255).all()
    assert (alpha[:10] == 0).all()
    boxed = run("auto", photo, "-o", out, "--mask-model", tmp_path / "red.onnx", "--box", "30,10,140,140")
    assert "A box alone" not in boxed
    alpha = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)[..., 3]
    assert (alpha[70:90, 90:110] == 255).all()
    assert (alpha[:10] == 0).all()


def test_scribbles_give_a_trimap(photo: Path, tmp_path: Path) -> None:
    strokes = np.zeros((160, 200, 4), np.uint8)
    cv2.line(strokes, (90, 80), (110, 80), (255, 255, 255, 255), 7)
    cv2.line(strokes, (5, 5), (195, 5), (0, 0, 0, 255), 7)
    cv2.line(strokes, (5, 155), (195, 155), (0, 0, 0, 255), 7)
    cv2.imwrite(str(tmp_path / "s.png"), strokes)
    out = tmp_path / "trimap.png"
    printed = run("trimap", "--image", photo, "--scribbles", tmp_path / "s.png", "-o", out)
    assert "unknown" in printed
    assert set(np.unique(cv2.imread(str(out), cv2.IMREAD_UNCHANGED))) == {0, 128, 255}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], r"nothing that separates .*\n  expected: one of: --mask, --scribbles, .*\n  fix: --box X,Y,W,H"),
        (["--box", "1,2,3,4", "--mask", "photo.png"], "--mask and --box"),
        (["--scribbles", "gray.png"], "export that layer alone as PNG with transparency"),
        (["--box", "1,2"], "x,y,width,height"),
        (["--mask-model", "none.onnx"], "no such file"),
    ],
)
def test_wrong_use(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("gray.png", np.zeros((160, 200), np.uint8))
    with pytest.raises(InputError, match=part):
        run("auto", photo, "-o", tmp_path / "out.png", "--foreground", "image", *options)
    assert not (tmp_path / "out.png").exists()


def test_a_photograph_in_the_place_of_a_mask_names_the_option(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MASK and --box\n(.*\n)*.*is the mask; .* with --image"):
        run("trimap", photo, "-o", tmp_path / "t.png", "--box", "1,2,30,40")
    with pytest.raises(InputError, match=r"of --box without the image\n(.*\n)*.*--image PHOTO"):
        run("trimap", "-o", tmp_path / "t.png", "--box", "1,2,30,40")


def test_the_photograph_is_not_overwritten(photo: Path) -> None:
    before = photo.read_bytes()
    with pytest.raises(InputError):
        run("auto", photo, "-o", photo, "--box", "40,20,120,120", "--foreground", "image")
    assert photo.read_bytes() == before


def test_a_mask_of_another_size_is_named(photo: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.pad(np.full((20, 20), 255, np.uint8), 15))
    out, trimap = tmp_path / "out.png", tmp_path / "trimap.png"
    with pytest.raises(
        InputError,
        match=r"photo\.png with \S+mask\.png\n.*200×160 px, mask 50×50 px(\n.*)*\n  fix: make the mask",
    ):
        run("auto", photo, "-o", out, "--mask", mask, "--save-trimap", trimap)
    assert not out.exists()
    assert not trimap.exists()
    with pytest.raises(InputError, match=r"photo\.png with \S+mask\.png"):
        run("trimap", mask, "--image", photo, "-o", trimap)
    assert not trimap.exists()


def test_a_mask_of_a_turned_photograph_is_used_upright(photo: Path, tmp_path: Path) -> None:
    image = Image.open(photo)
    exif = Image.Exif()
    exif[0x112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    mask = np.zeros((200, 160), np.uint8)
    mask[50:150, 30:130] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    out = tmp_path / "out.png"
    run("auto", tmp_path / "turned.jpg", "-o", out, "--mask", tmp_path / "mask.png", "--out", "alpha")
    assert cv2.imread(str(out), cv2.IMREAD_UNCHANGED).shape == (200, 160)


def test_trimap_and_result_are_two_files(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    with pytest.raises(InputError, match="it is the result as well"):
        run("auto", photo, "-o", out, "--box", "40,20,120,120", "--save-trimap", tmp_path / "." / "out.png")
    assert not out.exists()
