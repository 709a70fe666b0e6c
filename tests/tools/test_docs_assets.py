"""Pictures and tables of the documents: what is out of date, and what `docs_assets` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import docs_assets
from context_tables import replaced, table
from dim_export.bench.context import ContextRow
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from docs_assets import ASSETS, Asset, changed, digests, main, read_manifest


def asset(name: str) -> Asset:
    return next(each for each in ASSETS if each.name == name)


def test_the_picture_of_the_readme_belongs_to_the_shipped_weights() -> None:
    assert changed(asset("readme"), read_manifest()) == []
    assert "docs/images/readme.jpg" in (docs_assets.TOP / "README.md").read_text("utf-8")


@pytest.mark.parametrize("each", ASSETS, ids=lambda each: each.name)
def test_every_input_exists_and_is_recorded(each: Asset) -> None:
    assert set(digests(each)) == set(each.inputs)
    assert set(read_manifest()[each.name]) == set(each.inputs)


def test_the_benchmark_is_of_the_shipped_weights() -> None:
    (page, _) = asset("benchmark").outputs
    digest = read_metadata(default_model()).checkpoint_sha256
    assert f"SHA-256 {digest[:12]}" in (docs_assets.TOP / page).read_text("utf-8")
    assert docs_assets.WEIGHTS not in changed(asset("benchmark"), read_manifest())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with one asset: a copy of a file."""
    (tmp_path / "make.py").write_text("import shutil; shutil.copy('in.txt', 'out.txt')")
    (tmp_path / "in.txt").write_text("first")
    monkeypatch.setattr(docs_assets, "TOP", tmp_path)
    monkeypatch.setattr(docs_assets, "MANIFEST", tmp_path / "assets.json")
    only = Asset("copy", ("out.txt",), ("in.txt", "make.py"), ("make.py",))
    monkeypatch.setattr(docs_assets, "ASSETS", (only,))
    return tmp_path


def test_an_asset_is_made_once_and_again_when_an_input_changes(small: Path, capsys: Any) -> None:
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert (small / "out.txt").read_text() == "first"
    assert main(["--check"]) == 0
    (small / "in.txt").write_text("second")
    assert main(["--check"]) == 1
    assert "changed since: in.txt" in capsys.readouterr().out
    assert (small / "out.txt").read_text() == "first"
    assert main([]) == 0
    assert (small / "out.txt").read_text() == "second"


def test_words_alone_do_not_make_an_asset_out_of_date(small: Path) -> None:
    assert main([]) == 0
    code = (small / "make.py").read_text()
    (small / "make.py").write_text(f'"""Other words."""\n# And a comment.\n{code}\n')
    assert main(["--check"]) == 0
    (small / "make.py").write_text(f"{code}; print()")
    assert main(["--check"]) == 1


def test_a_missing_output_is_out_of_date(small: Path) -> None:
    assert main([]) == 0
    (small / "out.txt").unlink()
    assert main(["--check"]) == 1


def test_a_command_that_fails_is_not_recorded(small: Path) -> None:
    (small / "make.py").write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="3"):
        main([])
    assert not (small / "assets.json").exists()


def test_an_unknown_asset_is_an_error(small: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["picture"])


def row(context: int | None, sad: float) -> ContextRow:
    return ContextRow(
        context=context,
        cost=2,
        planned_cost=0.5,
        difference=0 if context is None else 1e-4,
        largest=0.1,
        sad=sad,
    )


def test_a_table_replaces_the_one_between_its_marks() -> None:
    text = (
        "a\n<!-- table: 7 -->\nold\n<!-- end of table -->\n<!-- table: 8 -->\nkept\n<!-- end of table -->\n"
    )
    made = table([row(None, 4.0), row(64, 3.998)], 320)
    changed_text = replaced(text, "7", made)
    assert "old" not in changed_text
    assert "kept" in changed_text
    assert "| exact (320) | 0.500 | 0 | 0.100 | 4.000 |  |" in changed_text
    assert "| **64** | **0.500** | 1.0e-04 | 0.100 | 3.998 | −0.05 % |" in changed_text
    with pytest.raises(ValueError, match="0 tables are marked 9"):
        replaced(text, "9", made)
