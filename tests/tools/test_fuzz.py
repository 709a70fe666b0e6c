"""The fuzzing harness: it finds planted faults, repeats them, and finds none in a short run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tifffile")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processor time and memory are limited on Linux"
)

from fuzz import child, command, seeds, targets  # noqa: E402

SHORT = 3_000
"""Inputs of the short run, over all targets: a number and not a time, so that every machine runs the same."""


@pytest.mark.slow
def test_a_short_run_over_all_readers_finds_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--inputs", str(SHORT), "--output", str(tmp_path)]) == 0, capfd.readouterr().out
    counts = json.loads((tmp_path / "progress.json").read_text())
    assert set(counts) == set(targets.TARGETS)
    for name, count in counts.items():
        # Rounded up: no target sees fewer than its share.
        assert count["done"] == -(-SHORT // len(counts))
        # Readers see valid files too, and mutations that damage nothing; and they refuse some.
        assert count["read"] > 0, name
        assert count["refused"] > 0, name


@pytest.mark.parametrize("name", targets.TARGETS)
def test_an_input_is_the_same_each_time(name: str) -> None:
    if name == "onnx":
        pytest.importorskip("onnx")
    if name == "grpc":
        pytest.importorskip("tritonclient.grpc", reason="extra kserve")
    numbers = (0, 40, 41)
    first = [child.make_input(name, number) for number in numbers]
    assert [child.make_input(name, number) for number in numbers] == first
    assert first[0][1] == targets.TARGETS[name].seeds()[first[0][0]]
    assert first[1] != first[2]


FAULTS: dict[str, tuple[str, str]] = {
    "raises": ("raise KeyError('x')", "KeyError"),
    "hangs": ("while True: pass", "more than 5 s of processor time"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "takes memory": ("global kept; kept = bytearray(b'1') * 400_000_000", "resident memory rose by 4"),
    "leaves a file": ("path.with_name('left').touch()", "files are left: left"),
    "ends": ("raise SystemExit(3)", "exit code 3"),
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], command.Count]:
    """Run 10 inputs of a target whose reader has a fault at some of the mutated files."""

    def run(fault: str) -> command.Count:
        (tmp_path / "planted.py").write_text(
            "from fuzz import targets\n"
            "def read(path):\n"
            "    if path.read_bytes() == b'b!':\n"
            f"        {fault}\n"
            "def made(): return {'a.bin': b'a', 'b.bin': b'b', 'c.bin': b'c'}\n"
            "def mutate(draw, content): return content + b'!'\n"
            "targets.TARGETS['planted'] = targets.Target(made, mutate, read)\n"
        )
        script = "import planted; from fuzz import child; child.main()"
        monkeypatch.setattr(command, "CHILD", ["-c", script])
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setitem(
            targets.TARGETS,
            "planted",
            targets.Target(_made, lambda draw, content: content + b"!", _read_nothing),
        )
        count = command.Count()
        command.run_piece("planted", count, 10, tmp_path)
        return count

    return run


def _made() -> seeds.Files:
    return {"a.bin": b"a", "b.bin": b"b", "c.bin": b"c"}


def _read_nothing(path: Path) -> None:
    """Read nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    planted: Callable[[str], command.Count], fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, expected = FAULTS[fault]
    count = planted(code)
    hit = [number for number in range(10) if child.make_input("planted", number)[1] == b"b!"]
    assert [found.number for found in count.faults] == hit
    assert len(hit) > 1
    assert all(expected in found.text for found in count.faults)
    assert (count.done, count.read) == (10, 10 - len(hit))
    assert (tmp_path / "faults" / f"planted-{hit[0]}-b.bin").read_bytes() == b"b!"
    assert f'make fuzz FUZZ="--repeat planted {hit[0]}"' in capfd.readouterr().out


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for inputs in ("10", "20", "20"):
        assert command.main(["--target", "table", "--inputs", inputs, "--output", str(tmp_path)]) == 0
        assert json.loads((tmp_path / "progress.json").read_text())["table"]["done"] == int(inputs)


def test_one_input_is_repeated_in_this_process(tmp_path: Path) -> None:
    from dim.errors import DimError

    assert command.main(["--repeat", "table", "0"]) == 0
    damaged = tmp_path / "table.csv"
    damaged.write_bytes(b"nothing\n")
    with pytest.raises(DimError):
        command.main(["--file", "table", str(damaged)])
