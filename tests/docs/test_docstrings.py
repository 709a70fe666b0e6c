"""A public function names in its docstring every error that it raises itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from .documents import TOP

PACKAGES = ("dim/dim", "runtime/dim_runtime", "export/dim_export", "training/dim_training")
DEFAULT = "NotImplementedError"
"""Raised by the defaults of methods that subclasses replace."""


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Yield the public functions of a module and the public methods of its public classes."""
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]
        for member in members:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                yield member


def makers(tree: ast.Module) -> dict[str, str]:
    """Return the functions of a module that make an error, and the error's name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            name = ast.unparse(node.returns).split(".")[-1]
            if name.endswith("Error"):
                found[node.name] = name
    return found


def raised(node: ast.AST) -> Iterator[str]:
    """Yield the names after ``raise`` in a function; functions inside it are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            yield ast.unparse(error).split(".")[-1]
        yield from raised(child)


def unnamed(text: str) -> list[str]:
    """Return ``function: error`` for each error that a public function raises and does not name."""
    tree = ast.parse(text)
    made = makers(tree)
    found = []
    for function in public_functions(tree):
        errors = {made.get(name, name) for name in raised(function)}
        documented = ast.get_docstring(function) or ""
        found += [
            f"{function.name}: {error}"
            for error in sorted(errors)
            if error.endswith("Error") and error != DEFAULT and error not in documented
        ]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_error_that_is_raised_is_named(package: str) -> None:
    files = [path for path in (TOP / package).rglob("*.py") if "cli" not in path.parts]
    assert files
    found = {str(path.relative_to(TOP)): unnamed(path.read_text("utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_an_error_that_is_not_named_is_found() -> None:
    assert unnamed('def f():\n    """Do it."""\n    raise errors.InputError("x")\n') == ["f: InputError"]
    assert unnamed('def f():\n    """Do it; InputError for x."""\n    raise InputError("x")\n') == []
    made = "def _bad() -> InputError: ...\ndef f():\n    if 1:\n        raise _bad()\n"
    assert unnamed(made) == ["f: InputError"]
    assert unnamed(
        "class C:\n    def _f(self):\n        raise KeyError\n    def g(self):\n        raise KeyError\n"
    ) == ["g: KeyError"]
