"""Progress: the user's callback, a bar, or nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dim_runtime.progress import counting, reporting


def test_a_callback_is_used_as_it_is() -> None:
    seen: list[tuple[int, int]] = []

    def callback(done: int, total: int) -> None:
        seen.append((done, total))

    with reporting(callback) as progress:
        assert progress is callback
    with reporting(progress=False) as nothing:
        assert nothing is None


def test_a_bar_is_removed_when_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(progress=True) as progress:
        assert progress is not None
        for done in range(3):
            progress(done, 2)
    assert capsys.readouterr().out == ""


def test_a_batch_counts_items_and_megapixels(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    # Two megapixels in what the clock calls four seconds.
    monkeypatch.setattr("dim_runtime.progress.time.monotonic", iter([0.0, 2.0, 4.0]).__next__)
    with counting(2, shown=True) as advance:
        advance(0.5)
        advance(1.5)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "0.50 megapixels/s" in printed.err
    assert "2/2" in printed.err


def test_nothing_is_shown_and_no_bar_is_loaded() -> None:
    program = (
        "import sys; from dim_runtime.progress import counting, reporting\n"
        "with counting(2, shown=False) as advance, reporting(False): advance(1.0)\n"
        "assert not any(name.startswith('rich') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.filterwarnings("ignore:install")  # rich's own, where the package is not installed
@pytest.mark.parametrize("widgets", [None, object()])
def test_a_notebook_without_ipywidgets_shows_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], widgets: object | None
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("dim_runtime.progress.find_spec", lambda name: widgets)
    with reporting(True) as report:
        assert report is not None
        for done in (0, 1):
            report(done, 1)
    assert ("\rmatting: 1 of 1 windows" in capsys.readouterr().err) == (widgets is None)
