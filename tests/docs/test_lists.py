"""The tables of rooms in the packages' READMEs are complete and true, and so are the lists of extras."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from .documents import TOP, code_blocks, commands, documents, inline_code, table_rows

ROOMS = {
    "dim/README.md": "dim/dim",
    "export/README.md": "export/dim_export",
    "runtime/README.md": "runtime/dim_runtime",
    "training/README.md": "training/dim_training",
}


def rooms(package: Path) -> set[str]:
    """Return the names of the sub-packages and modules at a package's top."""
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    return folders | {path.stem for path in package.glob("*.py") if not path.name.startswith("__")}


def stated_rooms(text: str, package: str) -> list[str]:
    """Return the first column of the tables of rooms and modules: `name/`, `name.py` or dotted names."""
    found = []
    for header in re.findall(r"^\| (?:room|module)s? \|.*$", text, re.MULTILINE):
        for row in table_rows(text, header):
            found += [name.removeprefix(f"{package}.") for name in re.findall(r"`([^`]+)`", row[0])]
    return [name.removesuffix(".py").removesuffix("/") for name in found]


@pytest.mark.parametrize("readme", ROOMS)
def test_the_tables_name_each_room_and_module_once(readme: str) -> None:
    package = TOP / ROOMS[readme]
    stated = stated_rooms((TOP / readme).read_text("utf-8"), package.name)
    assert sorted(stated) == sorted(rooms(package))


@pytest.mark.parametrize("readme", ROOMS)
def test_a_list_of_a_rooms_modules_is_complete(readme: str) -> None:
    package, text = TOP / ROOMS[readme], (TOP / readme).read_text("utf-8")
    for header in re.findall(r"^\| room \|.*\| modules \|$", text, re.MULTILINE):
        for row in table_rows(text, header):
            (room,) = stated_rooms(f"| room |\n|---|\n| {row[0]} |", package.name)
            modules = {path.stem for path in (package / room).glob("*.py") if path.stem[:2] != "__"}
            assert modules <= set(re.findall(r"`([^`]+)`", row[-1])), room


def test_a_missing_and_an_invented_room_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "hall").mkdir()
    (tmp_path / "hall" / "__init__.py").touch()
    (tmp_path / "door.py").touch()
    assert rooms(tmp_path) == {"hall", "door"}
    text = "| room | what |\n|---|---|\n| `hall/`, `attic/` | two |\n\n| module |\n|---|\n| `p.door` |\n\n`x`"
    assert stated_rooms(text, "p") == ["hall", "attic", "door"]


def extras() -> set[str]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    return set(project["optional-dependencies"])


def test_every_extra_that_is_installed_in_a_document_exists() -> None:
    found = set()
    for document in documents():
        for bracket in re.findall(r"(?:dim-matting|\.)\[([a-z,-]+)\]", document.read_text("utf-8")):
            found |= set(bracket.split(","))
    assert found
    assert found <= extras()


def test_the_table_of_extras_is_complete() -> None:
    text = (TOP / "docs" / "install.md").read_text("utf-8")
    rows = table_rows(text, "| extra | brings | for |")
    assert {inline_code(row[0])[0] for row in rows} == extras()


def test_make_targets_and_scripts_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text("utf-8"), re.MULTILINE))
    for block in code_blocks("sh"):
        for line, words in commands(block):
            if words[0] == "make":
                assert set(words[1:2]) <= targets, f"{block.document}:{line}"
            if words[0] == "python" and words[1].endswith(".py"):
                places = (TOP / words[1], TOP / Path(block.document).parent / words[1])
                assert any(place.is_file() for place in places), f"{block.document}:{line}"


def test_the_table_of_folders_in_the_readme_is_complete() -> None:
    rows = table_rows((TOP / "README.md").read_text("utf-8"), "| folder | what |")
    found = [re.findall(r"`([^`]+)`", row[0])[0] for row in rows]
    assert {folder for folder in found if not (TOP / folder).exists()} == set()
    top = {f"{path.name}/" for path in TOP.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert top - {"out/", "site/", "work/"} <= set(found)


FOLDERS_OF_PROGRAMS = {"examples": "examples/README.md", "tools": "CONTRIBUTING.md"}


@pytest.mark.parametrize("folder", FOLDERS_OF_PROGRAMS)
def test_every_program_of_a_folder_is_listed(folder: str) -> None:
    listed = set(inline_code((TOP / FOLDERS_OF_PROGRAMS[folder]).read_text("utf-8")))
    programs = {path.name for path in (TOP / folder).glob("*.py")}
    packages = {f"{path.parent.name}/" for path in (TOP / folder).glob("*/*.py")}
    assert programs
    assert programs | packages <= listed


def test_every_shipped_recipe_is_described() -> None:
    recipes = {path.name for path in (TOP / "training/dim_training/recipes").glob("*.toml")}
    assert recipes
    assert recipes <= set(inline_code((TOP / "docs" / "training.md").read_text("utf-8")))


def test_the_benchmark_page_has_every_line_of_its_template() -> None:
    """A sentence that was changed on the page alone is lost when the page is made again."""
    folder = TOP / "docs" / "models"
    template = re.sub(r"\{#.*?#\}", "", (folder / "benchmark.md.j2").read_text("utf-8"), flags=re.DOTALL)
    page = (folder / "benchmark.md").read_text("utf-8").splitlines()
    constant = [line for line in template.splitlines() if not re.search(r"\{[{%]", line)]
    assert len(constant) > 80
    assert [line for line in constant if line not in page] == []
