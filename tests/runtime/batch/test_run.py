"""``dim-matte batch``: tables and folders, errors of single items, resuming, and kill -9 at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dim.errors import InputError
from dim.files import temporary_path
from dim.images.files import read_alpha, write_image
from dim_runtime import Matting
from dim_runtime.backends.open import default_model
from dim_runtime.batch import run as batch_run
from dim_runtime.batch import storage
from dim_runtime.batch.items import Item, read_items
from dim_runtime.batch.journal import Journal, LocalLog
from dim_runtime.batch.run import fingerprint, remove_leftovers, run_items, split
from dim_runtime.cli import main
from dim_runtime.images.samples import lemur
from dim_runtime.outputs import pair, stream_tiff
from dim_runtime.outputs.spec import Output, OutputSpec
from dim_runtime.settings import MattingOptions

ALWAYS = ["--threads", "1"]


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def batch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Return a function that calls ``dim-matte batch``."""
    pytest.importorskip("onnxruntime")

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["dim-matte", "batch", *map(str, arguments), *ALWAYS])
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        assert code is None or isinstance(code, int)
        return Done(code or 0, *capsys.readouterr())

    return call


def make_folder(root: Path, count: int) -> Path:
    """Pieces of the lemur around its outline."""
    image, trimap = lemur()
    for number in range(count):
        y, x = 60 + 8 * number % 240, 200 + 6 * number % 150
        rows, columns = slice(y, y + 60 + number % 7), slice(x, x + 70 - number % 5)
        write_image(root / "images" / f"{number:02d}.png", image[rows, columns])
        write_image(root / "trimaps" / f"{number:02d}.png", trimap[rows, columns])
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "set", 4)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything but the journal."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".dim-batch.jsonl")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_table(batch: Any, folder: Path, tmp_path: Path, suffix: str) -> None:
    rows = [
        {"image": "images/00.png", "trimap": "trimaps/00.png"},
        {"image": str(folder / "images/01.png"), "trimap": "trimaps/01.png", "output": "deep/er/x.tif"},
        {"image": "images/none.png", "trimap": "trimaps/01.png"},
    ]
    table = folder / f"pairs.{suffix}"
    if suffix == "csv":
        lines = ["image,trimap,output", *(",".join([*row.values(), ""][:3]) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    table.write_text("\n".join(lines))
    done = batch(table, "-o", tmp_path / "out", "--report", tmp_path / "report.json")
    assert done.returncode == 1
    assert "2 done, 0 skipped, 1 failed" in done.stdout
    assert "failed none.png: cannot read" in done.stderr
    assert sorted(contents(tmp_path / "out")) == ["00.png", "deep/er/x.tif"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["done"], report["failed"]) == (2, 1)
    assert [item["status"] for item in report["items"]] == ["done", "done", "failed"]
    assert report["items"][0]["megapixels"] > 0


def test_folders_give_what_run_gives_and_one_bad_file_stops_nothing(
    batch: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "images/01.png").write_bytes(b"no image")
    (folder / "trimaps/02.png").unlink()
    done = batch(folder / "images", folder / "trimaps", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "2 done, 0 skipped, 2 failed" in done.stdout
    image, trimap = folder / "images/03.png", read_alpha(folder / "trimaps/03.png")
    alpha = read_alpha(tmp_path / "out/03.png")
    assert (alpha[trimap == 255] == 255).all()
    with Matting(threads=1) as matting:
        from dim_runtime.outputs.pair import run_pair

        run_pair(matting, image, folder / "trimaps/03.png", tmp_path / "alone.png", OutputSpec())
    np.testing.assert_array_equal(alpha, read_alpha(tmp_path / "alone.png"))


@pytest.mark.parametrize("limit", [(), ("--memory-limit", "100GB")], ids=["overlapping", "limited"])
def test_what_is_done_is_not_done_again(batch: Any, folder: Path, tmp_path: Path, limit: Any) -> None:
    out = tmp_path / "out"
    assert batch(folder, "-o", out, *limit).returncode == 0
    first = {file: file.stat().st_mtime_ns for file in out.glob("*.png")}
    write_image(folder / "trimaps/02.png", np.full_like(read_alpha(folder / "trimaps/02.png"), 255))
    (out / "03.png").unlink()
    done = batch(folder, "-o", out, *limit)
    assert "2 done, 2 skipped, 0 failed" in done.stdout
    again = {file.name: file.stat().st_mtime_ns != first[file] for file in out.glob("*.png")}
    assert again == {"00.png": False, "01.png": False, "02.png": True, "03.png": True}
    assert (read_alpha(out / "02.png") == 255).all()


def test_an_output_of_another_size_is_done_again(batch: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert batch(folder, "-o", out).returncode == 0
    before = contents(out)
    (out / "01.png").write_bytes(b"junk")
    assert "1 done, 3 skipped, 0 failed" in batch(folder, "-o", out).stdout
    images = {name: content for name, content in before.items() if str(name).endswith(".png")}
    assert images.items() <= contents(out).items()


def test_a_journal_that_is_no_file_is_refused(batch: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / ".dim-batch.jsonl")
    done = batch(folder, "-o", out)
    assert done.returncode == 2
    assert "not a regular file" in done.stderr
    assert [path.name for path in out.iterdir()] == [".dim-batch.jsonl"]


@pytest.mark.parametrize("column", ["image", "trimap", "output"])
def test_a_lone_surrogate_in_a_table_is_an_error_of_its_line(batch: Any, tmp_path: Path, column: str) -> None:
    row = {"image": "a.png", "trimap": "b.png", "output": "c.png"} | {column: "\ud800.png"}
    (tmp_path / "table.jsonl").write_text(json.dumps(row))
    done = batch(tmp_path / "table.jsonl", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "table.jsonl, line 1" in done.stderr
    assert "surrogates not allowed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_outputs_made_in_another_way_are_refused(batch: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert batch(folder, "-o", out).returncode == 0
    before = contents(out)
    done = batch(folder, "-o", out, "--tile", 1024)
    assert done.returncode == 2
    assert "tile=1024" in done.stderr
    assert "--overwrite" in done.stderr
    assert contents(out) == before
    assert "4 done, 0 skipped" in batch(folder, "-o", out, "--tile", 1024, "--overwrite").stdout
    assert "0 done, 4 skipped" in batch(folder, "-o", out, "--tile", 1024).stdout


def test_files_of_somebody_else_are_not_replaced(batch: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_image(out / "01.png", np.zeros((2, 2), np.uint8))
    before = contents(out)
    done = batch(folder, "-o", out)
    assert done.returncode == 2
    assert "01.png" in done.stderr
    assert contents(out) == before
    assert not (out / ".dim-batch.jsonl").exists()
    assert batch(folder, "-o", out, "--overwrite").returncode == 0
    assert len(contents(out)) == 4


def test_an_object_store(batch: Any, folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/batch", recursive=True)
    rows = [{"image": f"images/{n:02d}.png", "trimap": f"trimaps/{n:02d}.png"} for n in (0, 1, 9)]
    store.pipe_file("/batch/pairs.jsonl", "\n".join(map(json.dumps, rows)).encode())
    arguments = ("memory://batch/pairs.jsonl", "-o", "memory://out")
    try:
        first = batch(*arguments)
        assert "2 done, 0 skipped, 1 failed" in first.stdout, first.stderr
        assert "memory://batch/images/09.png" in first.stderr
        names = sorted(name.rsplit("/", 1)[1] for name in store.find("/out") if name.endswith(".png"))
        assert names == ["00.png", "01.png"]
        assert "0 done, 2 skipped, 1 failed" in batch(*arguments).stdout
        store.cp_file("/batch/images/00.png", "/batch/images/09.png")
        store.cp_file("/batch/trimaps/00.png", "/batch/trimaps/09.png")
        assert "1 done, 2 skipped, 0 failed" in batch(*arguments).stdout
        assert store.cat_file("/out/09.png") == store.cat_file("/out/00.png")
        refused = batch(*arguments, "--tile", "1024")
        assert (refused.returncode, "tile=1024" in refused.stderr) == (2, True)
    finally:
        store.rm("/batch", recursive=True)
        store.rm("/out", recursive=True)


TABLES = {
    "no such file": None,
    "nothing for 'trimap'": "image\na.png",
    "nothing to do": "image,trimap\n",
    "inside the output folder": "image,trimap,output\na.png,b.png,../c.png",
    "inside the output folder ": "image,trimap,output\na.png,b.png,/c.png",
    "the output c.xyz": "image,trimap,output\na.png,b.png,c.xyz",
    "one file": "image,trimap\nx/a.png,b.png\ny/a.jpg,b.png",
}


@pytest.mark.parametrize("message", TABLES)
def test_unusable_tables(tmp_path: Path, message: str) -> None:
    if TABLES[message] is not None:
        (tmp_path / "pairs.csv").write_text(TABLES[message])
    with pytest.raises(InputError, match=message.strip()):
        read_items(str(tmp_path / "pairs.csv"))


@pytest.mark.parametrize("line", ["[1]", "{", '{"image": 3, "trimap": "t.png"}'])
def test_unusable_lines_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(f'{{"image": "i.png", "trimap": "t.png"}}\n\n{line}\n')
    with pytest.raises(InputError, match="line 3"):
        read_items(str(tmp_path / "pairs.jsonl"))


def test_a_fingerprint_is_of_what_decides_the_outputs(tmp_path: Path) -> None:
    model = tmp_path / "copy.onnx"
    model.write_bytes(default_model().read_bytes())
    own = fingerprint(MattingOptions(), OutputSpec())
    assert fingerprint(MattingOptions(model, threads=3, memory_limit=10**9), OutputSpec(max_pixels=9)) == own
    model.write_bytes(b"other")
    different = [
        fingerprint(MattingOptions(model), OutputSpec()),
        fingerprint(MattingOptions(tile=1024), OutputSpec()),
        fingerprint(MattingOptions(device="cuda:1"), OutputSpec()),
        fingerprint(MattingOptions(), OutputSpec(output=Output.COMPOSITE)),
        fingerprint(MattingOptions(), OutputSpec(depth=16)),
        fingerprint(MattingOptions(context=64), OutputSpec()),
        fingerprint(MattingOptions(context=64, memory_limit=10**9), OutputSpec()),
    ]
    assert len({json.dumps(made) for made in [own, *different]}) == 8


def test_large_tiff_files_are_streamed_between_the_others(
    identity: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tifffile")
    streamed: list[str] = []
    run = stream_tiff.run_streamed
    monkeypatch.setattr(stream_tiff, "STREAMED_PIXELS", 1000)
    monkeypatch.setattr(pair, "run_streamed", lambda *args: (streamed.append(args[3].name), run(*args))[1])
    image, trimap = lemur()
    for name, part in (("image", image[:90, 200:330]), ("trimap", trimap[:90, 200:330])):
        write_image(tmp_path / f"{name}.tif", part)
    large = Item(str(tmp_path / "image.tif"), str(tmp_path / "trimap.tif"), "large.tif")
    first, second, *_ = read_items(str(folder))
    items = [first, large, second, replace(large, output="again.tif", trimap=first.trimap)]
    with Matting.from_backend(identity) as matting:
        results = list(run_items(matting, items, str(tmp_path / "out"), OutputSpec()))
    assert [result.status for result in results] == ["done", "done", "done", "failed"]
    assert [result.output for result in results] == [item.output for item in items]
    assert streamed == ["large.tif"]
    hints = trimap[:90, 200:330]
    expected = np.where(hints == 128, image[:90, 200:330, 0], hints)
    np.testing.assert_array_equal(read_alpha(tmp_path / "out/large.tif"), expected)


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), {})
    with pytest.raises(InputError, match="another process"):
        Journal(str(tmp_path), {})
    journal.close()
    Journal(str(tmp_path), {}).close()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_cut_off_is_nothing(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), {"a": 1})
    journal.claim(["x.png", "y.png"])
    journal.finish("x.png", "1")
    journal.finish("y.png", "2")
    journal.close()
    file = tmp_path / ".dim-batch.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    journal = Journal(str(tmp_path), {"a": 1})
    assert (journal.done, journal.claimed) == ({"x.png": "1"}, {"x.png", "y.png"})
    journal.finish("y.png", "3")
    journal.close()
    journal = Journal(str(tmp_path), {"a": 1})
    assert journal.done == {"x.png": "1", "y.png": "3"}
    journal.close()


def test_leftovers_of_these_outputs_are_removed(tmp_path: Path) -> None:
    others = [temporary_path(tmp_path / "b.png"), tmp_path / ".a.png.txt", tmp_path / "a.png"]
    for path in (temporary_path(tmp_path / "a.png"), temporary_path(tmp_path / "a.png"), *others):
        path.touch()
    remove_leftovers(str(tmp_path), [Item("", "", "a.png")])
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_an_output_is_complete_when_its_result_comes(identity: Any, folder: Path, tmp_path: Path) -> None:
    items = read_items(str(folder))
    with Matting.from_backend(identity) as matting:
        for result in run_items(matting, items, str(tmp_path), OutputSpec()):
            assert result.status == "done"
            assert read_alpha(tmp_path / result.output).size > 0


def test_inputs_that_changed_are_done_again(tmp_path: Path, folder: Path) -> None:
    items = read_items(str(folder))
    journal = Journal(str(tmp_path), {})
    for item in items:
        (tmp_path / item.output).touch()
    with pytest.raises(InputError, match="not of this batch"):
        split(items, str(tmp_path), journal)
    journal.claim(item.output for item in items)
    assert split(items, str(tmp_path), journal).todo == items
    journal.finish(items[1].output, "other")
    assert split(items, str(tmp_path), journal).todo == items
    journal.close()


def test_names_of_stores() -> None:
    assert storage.join("s3://b/f", "x/y.png") == "s3://b/f/x/y.png"
    assert storage.join("s3://b/f", "gs://c/y.png") == "gs://c/y.png"
    assert storage.join("file:///f", "y.png") == storage.join("/f", "y.png") == "/f/y.png"
    assert not storage.is_remote("file:///f")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_ten_times(tmp_path: Path) -> None:
    """At random moments of its work: after resuming, the outputs are those of an uninterrupted run."""
    pytest.importorskip("onnxruntime")
    folder, rng = make_folder(tmp_path / "set", 60), random.Random(7)
    expected = tmp_path / "expected"
    assert start(folder, expected).wait() == 0
    whole, out = contents(expected), tmp_path / "out"
    for _ in range(10):
        process = start(folder, out, killed_after=(rng.randint(1, 4), rng.uniform(0, 0.02)))
        assert process.wait() == -signal.SIGKILL
        # Whatever has its name is complete, at any moment; a hidden name is of a file not yet written whole.
        written = [file for file in out.glob("*.png") if not file.name.startswith(".")]
        assert all(file.read_bytes() == whole[file.name] for file in written)
    assert 10 <= done_items(out) < 60
    assert start(folder, out).wait() == 0
    assert contents(out) == whole


def start(
    folder: Path, out: Path, *, killed_after: tuple[int, float] | None = None
) -> subprocess.Popen[bytes]:
    """Run the batch in a process, which kills itself so many seconds after so many items or at the next.

    From outside, on a busy machine, the blow may come when all is done.
    """
    code = "from dim_runtime.cli import main; main()"
    if killed_after is not None:
        code = f"{DEADLY}\n\ndie({killed_after[0]}, {killed_after[1]})\n{code}"
    command = [sys.executable, "-c", code, "batch", str(folder), "-o", str(out), *ALWAYS]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


DEADLY = """
import os, signal, threading
from dim_runtime.batch.journal import Journal, LocalLog

def die(items, seconds):
    finish, finished = Journal.finish, []

    def finish_and_die(*arguments):
        finish(*arguments)
        finished.append(None)
        if len(finished) == items:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if len(finished) > items:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.finish = finish_and_die
""".strip()


def done_items(out: Path) -> int:
    journal = out / ".dim-batch.jsonl"
    return journal.read_bytes().count(b'"done"') if journal.exists() else 0


def test_the_identity_of_inputs_is_taken_before_they_are_read(folder: Path, tmp_path: Path) -> None:
    """A file that changes while it is read counts as changed: it is done again."""
    items = read_items(str(folder))[:1]
    before = batch_run.inputs_of(items[0])
    task = batch_run.ItemTask(items[0], str(tmp_path), OutputSpec())
    touched = Path(items[0].image)

    def load(*arguments: Any) -> Any:
        os.utime(touched, ns=(1, 1))
        return pair.load(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_run, "load", load)
        task.load()
    assert task.inputs == before != batch_run.inputs_of(items[0])


def test_claims_are_stored_before_the_first_output_exists() -> None:
    """Two journals of one object store: the second one sees the claims of the first, which is still open."""
    fsspec = pytest.importorskip("fsspec")
    first = Journal("memory://claims", {"a": 1})
    try:
        first.claim(["x.png"])
        second = Journal("memory://claims", {"a": 1})
        assert (second.claimed, second.done) == ({"x.png"}, {})
        first.finish("x.png", "1")
        first.close()
        assert Journal("memory://claims", {"a": 1}).done == {"x.png": "1"}
    finally:
        fsspec.filesystem("memory").rm("/claims", recursive=True)


def test_lines_of_another_kind_are_ignored(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), {"a": 1})
    journal.claim(["x.png"])
    journal.finish("x.png", "1")
    journal.close()
    file = tmp_path / ".dim-batch.jsonl"
    lines = [
        '{"made": 3}',
        '{"claimed": 7}',
        '{"claimed": [1]}',
        '{"done": [1], "inputs": "2"}',
        '{"done": "y.png"}',
    ]
    file.write_text(file.read_text() + "\n".join([*lines, "[1]", '"text"', "[" * 10_000]) + "\n")
    journal = Journal(str(tmp_path), {"a": 1})
    assert (journal.done, journal.claimed) == ({"x.png": "1"}, {"x.png"})
    journal.close()


def test_a_start_that_made_nothing_does_not_block_other_options(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), {"tile": 512})
    journal.claim(["x.png"])
    journal.close()
    journal = Journal(str(tmp_path), {"tile": 1536})
    journal.claim(["x.png"])
    journal.finish("x.png", "1")
    journal.close()
    with pytest.raises(InputError, match="tile=512"):
        Journal(str(tmp_path), {"tile": 512})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_typed_error(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), {})
    log = journal._log
    assert isinstance(log, LocalLog)
    log._file.close()
    with Path("/dev/full").open("ab") as log._file:
        with pytest.raises(InputError, match=r"(?s)cannot write .*No space left"):
            journal.claim(["x.png"])
        journal.close()


@pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="names there are always valid UTF-8 or UTF-16"
)
def test_a_name_that_is_no_utf8_is_an_item_like_others(batch: Any, folder: Path, tmp_path: Path) -> None:
    for kind in ("images", "trimaps"):
        os.rename(folder / kind / "00.png", os.fsencode(folder / kind) + b"/\xff\xe4.png")
    done = batch(folder, "-o", tmp_path / "out", "--report", tmp_path / "report.json")
    assert (done.returncode, "4 done" in done.stdout) == (0, True), done.stderr
    assert b"\xff\xe4.png" in os.listdir(os.fsencode(tmp_path / "out"))
    assert "0 done, 4 skipped" in batch(folder, "-o", tmp_path / "out").stdout
    (folder / "trimaps" / os.fsdecode(b"\xff\xe4.png")).write_bytes(b"no image")
    assert "3 skipped, 1 failed" in batch(folder, "-o", tmp_path / "out").stdout


def test_a_name_that_is_too_long_fails_alone(batch: Any, folder: Path, tmp_path: Path) -> None:
    rows = [
        f"images/{n:02d}.png,trimaps/{n:02d}.png,{name}"
        for n, name in ((0, "n" * 300 + ".png"), (1, "n" * 230 + ".png"))
    ]
    (folder / "pairs.csv").write_text("\n".join(["image,trimap,output", *rows]))
    done = batch(folder / "pairs.csv", "-o", tmp_path / "out")
    assert "1 done, 0 skipped, 1 failed" in done.stdout, done.stderr
    assert "File name too long" in done.stderr


@pytest.mark.parametrize("names", [("a.png", "./a.png"), ("s/a.png", "s//a.png"), ("s/./a.png", "s/a.png")])
def test_two_spellings_of_one_output_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [f"i{n}.png,t.png,{name}" for n, name in enumerate(names)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,trimap,output", *rows]))
    with pytest.raises(InputError, match="would be written to one file"):
        read_items(str(tmp_path / "pairs.csv"))


@pytest.mark.parametrize(
    ("names", "forms"),
    [
        (("a.png", "A.PNG"), {"dim-\u00e4": "DIM-\u00c4"}),
        (("\u00e4.png", "a\u0308.png"), {"dim-\u00e4": "dim-a\u0308"}),
    ],
    ids=["case", "normal form"],
)
def test_names_that_the_file_system_folds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str], forms: dict[str, str]
) -> None:
    items = [Item("i.png", "t.png", name) for name in names]
    journal = Journal(str(tmp_path), {})
    if not storage._is_one_file(tmp_path, *next(iter(forms.items()))):
        assert len(split(items, str(tmp_path), journal).todo) == 2
    monkeypatch.setattr(storage, "_is_one_file", lambda _, first, second: forms.get(first) == second)
    with pytest.raises(InputError, match="would be written to one file"):
        split(items, str(tmp_path), journal)
    journal.close()


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_names_may_hold_separators_of_lines(tmp_path: Path, separator: str, suffix: str) -> None:
    row = {"image": f"a{separator}b.png", "trimap": "t.png"}
    text = (
        json.dumps(row, ensure_ascii=False)
        if suffix == "jsonl"
        else "image,trimap\r\n" + ",".join(row.values())
    )
    (tmp_path / f"pairs.{suffix}").write_text(text + "\n", newline="")
    assert read_items(str(tmp_path / f"pairs.{suffix}"))[0].image == str(tmp_path / f"a{separator}b.png")


def test_a_batch_never_replaces_its_inputs(batch: Any, folder: Path) -> None:
    before = contents(folder)
    for arguments in ((folder, "-o", folder / "images"), (folder, "-o", folder / "trimaps", "--overwrite")):
        done = batch(*arguments)
        assert done.returncode == 2
        assert "it is one of the inputs" in done.stderr
    assert contents(folder) == before
