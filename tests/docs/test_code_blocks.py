"""Code blocks of the documents: Python runs, commands and options exist, and the fast commands really run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import typer

from dim_runtime import Matting
from dim_runtime.images.samples import sample_paths

from .documents import TOP, Block, code_blocks, commands, documents, inline_code, name

TOOLS = {"dim-matte": "dim_runtime.cli", "dim-export": "dim_export.cli", "dim-train": "dim_training.cli"}
OTHERS = {
    ".",
    ".venv/bin/pre-commit",
    "bash",
    "cat",
    "cd",
    "cp",
    "curl",
    "docker",
    "ffmpeg",
    "git",
    "gunicorn",
    "make",
    "node",
    "npm",
    "pip",
    "python",
    "python3",
    "tar",
    "torchrun",
    "uvicorn",
}
"""Programs that documents may call beside ours."""


def command_of(tool: str) -> Any:
    """Return the click command of one of our tools."""
    module = import_module(TOOLS[tool])
    app = getattr(module, "app", None)
    return typer.main.get_command(app if isinstance(app, typer.Typer) else module.app.app)


def problems(words: list[str]) -> Iterator[str]:
    """Yield what is wrong with a command line of one of our tools: unknown commands, options and choices."""
    command = command_of(words[0])
    rest = words[1:]
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            yield f"unknown command {' '.join(words[:2])}"
            return
        command, rest = command.commands[rest[0]], rest[1:]
    options = {
        option: parameter
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    positional = 0
    while rest:
        word, rest = rest[0], rest[1:]
        if not word.startswith("-") or word == "-":
            positional += 1
            continue
        option, equals, value = word.partition("=")
        if option == "--help":
            continue
        if option not in options:
            yield f"unknown option {option} of {' '.join(words[:2])}"
            continue
        parameter = options[option]
        if getattr(parameter, "is_flag", False):
            continue
        values = [value] if equals else rest[:1]
        rest = rest if equals else rest[1:]
        if not values:
            yield f"{option} needs a value"
        choices = choices_of(parameter)
        if choices and values and values[0] not in choices:
            yield f"{option} {values[0]}: not one of {', '.join(map(str, choices))}"
    variadic = any(argument.nargs == -1 for argument in arguments) or "set" in {
        option.strip("-") for option in options
    }
    if not variadic and positional > len(arguments):
        yield f"{positional} arguments for {len(arguments)}"
    if positional < sum(argument.required for argument in arguments):
        yield f"only {positional} arguments"


def choices_of(parameter: Any) -> list[str]:
    """Return the values that an option admits, if its type or its metavar lists them."""
    described = getattr(parameter, "type_descriptor", None)
    found = [*_literals(described.annotation)] if described else []
    listed = getattr(getattr(parameter, "type", None), "choices", None) or found
    metavar = parameter.metavar or ""
    if not listed and re.fullmatch(r"[a-z0-9-]+(\|[a-z0-9-]+)+", metavar):
        listed = metavar.split("|")
    return [str(getattr(choice, "value", choice)) for choice in listed]


def _literals(annotation: Any) -> Iterator[str]:
    """Yield the strings of a ``Literal``, or of one inside a union."""
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        else:
            yield from _literals(part)


def our_commands() -> list[tuple[str, list[str]]]:
    """Return (place, words) of every command line of our tools in shell blocks."""
    found = []
    for block in code_blocks("sh", "bash", "console", "shell"):
        for line, words in commands(block):
            if words[0] in TOOLS:
                found.append((f"{block.document}:{line}", words))
    return found


@pytest.mark.parametrize(("place", "words"), our_commands(), ids=[place for place, _ in our_commands()])
def test_commands_and_options_exist(place: str, words: list[str]) -> None:
    assert list(problems(words)) == []


def test_wrong_commands_options_and_choices_are_found() -> None:
    assert list(problems(shlex.split("dim-matte run a.png t.png -o b.png --out cutout"))) == []
    assert list(problems(["dim-matte", "rum", "a.png"])) == ["unknown command dim-matte rum"]
    assert list(problems(shlex.split("dim-matte run a.png t.png -o b.png --tyle 64"))) != []
    assert list(problems(shlex.split("dim-matte run a.png t.png c.png d.png -o b.png"))) != []
    assert list(problems(shlex.split("dim-export onnx a.pth -o b.onnx --precision int4"))) != []


def test_shell_blocks_call_only_known_programs() -> None:
    for block in code_blocks("sh", "bash", "console", "shell"):
        for line, words in commands(block):
            assert words[0] in TOOLS or words[0] in OTHERS, f"{block.document}:{line}: {words[0]}"


HISTORY = ("CHANGELOG.md", "docs/decisions.md", "docs/models/compact-log.md")


def all_options() -> set[str]:
    found = {"--help"}
    for tool in TOOLS:
        waiting = [command_of(tool)]
        while waiting:
            command = waiting.pop()
            waiting += getattr(command, "commands", {}).values()
            for parameter in command.params:
                found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize(
    "document", [document for document in documents() if name(document) not in HISTORY], ids=name
)
def test_options_in_prose_exist(document: Path) -> None:
    known = all_options() | OPTIONS_OF_OTHERS
    named = {
        option
        for code in inline_code(document.read_text("utf-8"))
        if not code.startswith(("python ", "docker ", "uv ", "pip "))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)
    }
    assert named <= known


OPTIONS_OF_OTHERS = {
    "--enable-unsafe-webgpu",  # Chromium
    "--use-webgpu-adapter",
    "--only",  # make hostile
    "--stop-after",  # tools/load_server.py
    "--bench",
    *(
        "--user",
        "--gpus",
        "--backend-config",
        "--nproc_per_node",
        "--nproc",
        "--largest",
        "--check",
        "--without-torch",
        "--minutes",
    ),
    *("--resolution", "--json"),
}
"""Options of Docker, Triton, torchrun and our scripts that documents name."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the files that the documents' commands name: small pictures, and folders of them."""
    image = cv2.imread(str(sample_paths()[0]))[60:220, 100:300]
    trimap = cv2.imread(str(sample_paths()[1]), cv2.IMREAD_GRAYSCALE)[60:220, 100:300]
    trimap[:40], trimap[40:90], trimap[90:] = 0, 128, 255
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    cv2.imwrite(str(tmp_path / "background.jpg"), image[::-1])
    for file in ("trimap.png", "trimap.tif"):
        cv2.imwrite(str(tmp_path / file), trimap)
    cv2.imwrite(str(tmp_path / "huge.tif"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), np.where(trimap > 100, 255, 0).astype(np.uint8))
    for sample in sample_paths():
        shutil.copy(sample, tmp_path)
    for folder, picture in (("images", image), ("trimaps", trimap)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "one.png"), picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python_blocks() -> list[Block]:
    return code_blocks("python", "py")


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: f"{block.document}:{block.line}")
def test_python_blocks_run(block: Block, place: Path) -> None:
    code = compile(block.code, f"{block.document}:{block.line}", "exec")
    image = cv2.imread("photo.jpg")[..., ::-1].copy()
    trimap = cv2.imread("trimap.png", cv2.IMREAD_GRAYSCALE)
    given = {
        "image": image,
        "trimap": trimap,
        "pairs": [(image, trimap)],
        "out": np.empty(trimap.shape, np.float32),
    }
    if "localhost" in block.code:
        pytest.skip("needs a server; its imports run in the next test")
    if "matting." in block.code and "Matting(" not in block.code:
        given["matting"] = Matting()
    exec(code, {"__name__": "__document__", **given})


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: f"{block.document}:{block.line}")
def test_imports_of_python_blocks_work(block: Block) -> None:
    imports = [line for line in block.code.splitlines() if re.match(r"(from|import) ", line)]
    exec("\n".join(imports), {})


FAST = (
    *(
        "photo.jpg trimap.png -o alpha.png",
        "trimap mask.png",
        "--out cutout",
        "--out composite",
        "dim-matte doctor",
    ),
    *("huge.tif trimap.tif", "dim-matte batch images/ trimaps/ -o alphas/"),
)
"""Parts of command lines that take a few seconds and need nothing but the prepared files."""
SLOW = ("doctor --gpu", "--backend openvino", "--ray", "bench", "docker", "--dry-run", "--device cuda")


def fast_commands() -> list[str]:
    found = {
        shlex.join(words): None
        for _, words in our_commands()
        if words[0] == "dim-matte"
        and any(part in " ".join(words) for part in FAST)
        and not any(part in " ".join(words) for part in SLOW)
    }
    return list(found)


@pytest.mark.parametrize("line", fast_commands())
def test_fast_commands_run(line: str, place: Path) -> None:
    words = shlex.split(line)
    code = f"from {TOOLS[words[0]]} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "-o" in words:
        assert (place / words[words.index("-o") + 1]).exists()


def test_the_readme_has_fast_commands_and_python() -> None:
    assert len(fast_commands()) >= 4
    assert any(block.document == "README.md" for block in python_blocks())
    assert (TOP / "README.md").is_file()
