"""Recipes: reading, overriding, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from dim.errors import InputError
from dim_training import recipes
from dim_training.config import read_config

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text("steps = 10\n[network]\nwidth = 0.25\n")
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    assert read_config(path).steps > 0


def test_overrides_reach_nested_keys(recipe: Path) -> None:
    config = read_config(
        recipe, ["steps=20", "data.kind=procedural", "network.batch_norm=true", "vgg=a/b.npz"]
    )
    assert config.steps == 20
    assert config.network.batch_norm
    assert config.network.width == 0.25
    assert config.vgg == "a/b.npz"


def test_none_takes_a_key_out_of_the_recipe(recipe: Path) -> None:
    assert read_config(recipe, ["network.width=none", "vgg=none"]).network.width == 1
    assert read_config(CONFIGS / "compact.toml", ["ema=none"]).ema is None


def test_unknown_key_names_the_nearest(recipe: Path) -> None:
    with pytest.raises(InputError, match=r"data\.crop_side: unknown key; did you mean data\.crop_sides\?"):
        read_config(recipe, ["data.crop_side=[320]"])


@pytest.mark.parametrize(
    "override",
    [
        "steps",
        "=3",
        "steps.x=1",
        "steps=-1",
        "network.width=0.3",
        "ema=2",
        "learning_rate=inf",
        "learning_rate=nan",
        "data.crop_sides=[]",
        "data.crop_sides=[0]",
        "data.trimap_sizes=[9, 3]",
        "data.weights={a=-1.0}",
        "data.workers=100000",
        "data.size=3200000",
        "data.crop_sides=[320, 100000]",
        "data.trimap_sizes=[1, 1000000]",
        "batch=100000000",
        "steps=10000000000",
        "seed=-1",
        "seed=9223372036854775808",
    ],
)
def test_bad_overrides_are_errors(recipe: Path, override: str) -> None:
    with pytest.raises(InputError):
        read_config(recipe, [override])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot find the recipe"):
        read_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("steps = = 3")
    with pytest.raises(InputError, match="not TOML"):
        read_config(broken)


def test_a_recipe_is_a_name_or_a_file(recipe: Path) -> None:
    assert read_config("compact") == read_config(CONFIGS / "compact.toml")
    assert read_config(str(recipe)).steps == 10
    with pytest.raises(InputError, match="dim-train fit compact"):
        read_config("compakt")


def test_a_folder_whose_name_is_a_number(recipe: Path) -> None:
    assert read_config(recipe, ["data.root=2024"]).data.root == Path("2024")
    assert read_config(recipe, ["data.root=2024-05-01"]).data.root == Path("2024-05-01")


@pytest.mark.parametrize("text", ["steps = " + "[" * 100_000, "steps = " + "9" * 5_000])
def test_recipes_of_endless_depth_or_digits_are_errors_of_ours(tmp_path: Path, text: str) -> None:
    """Found by `make fuzz`: tomllib raises RecursionError and a bare ValueError."""
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="not TOML"):
        read_config(path)


@pytest.mark.parametrize(
    ("overrides", "is_refused"),
    [
        (["batch=1"], True),
        (["batch=4", "accumulate=4"], True),
        (["batch=4", "accumulate=2"], False),
        (["batch=1", "data.size=64"], False),
        (["batch=1", "network.batch_norm=false"], False),
        (["batch=1", "network.stage=2"], False),
        (["batch=1", "network.stage=3"], True),
    ],
)
def test_batch_norm_needs_two_values_of_each_channel(
    recipe: Path, overrides: list[str], is_refused: bool
) -> None:
    settings = ["network.batch_norm=true", "data.size=32", *overrides]
    if is_refused:
        with pytest.raises(InputError, match=r"batch norm has one value.*data\.size=64, or batch="):
            read_config(recipe, settings)
    else:
        assert read_config(recipe, settings).data.size in (32, 64)


def test_shipped_recipes_state_that_they_have_no_validation_photographs() -> None:
    for path in recipes.shipped().values():
        config, text = read_config(path), path.read_text()
        assert config.validation.root is None, "a path of this machine in a shipped recipe"
        assert "validation.root" in text, f"{path.name} must name the setting without which nothing is scored"
