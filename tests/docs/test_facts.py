"""Numbers that documents state about the code are what the code has."""

from __future__ import annotations

import re
from inspect import signature

import pytest

from .documents import TOP, documents, name, table_rows
from .facts import FACTS, nodes_of_stage, wrong_statements

HISTORY = ("CHANGELOG.md", "docs/decisions.md", "docs/models/compact-log.md")
"""Documents that also state what was; only the facts that name them are looked for there."""


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")


@pytest.mark.parametrize(
    "document", [document for document in documents() if name(document) not in HISTORY], ids=name
)
def test_every_number_is_what_the_code_has(document: object) -> None:
    assert list(wrong_statements((TOP / str(document)).read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "fact", [fact for fact in FACTS if fact.document], ids=lambda fact: f"{fact.document}: {fact.pattern}"
)
def test_the_documents_state_the_facts_that_name_them(fact: object) -> None:
    pattern, value, document = fact  # type: ignore[misc]
    stated = re.findall(pattern, (TOP / document).read_text("utf-8"))
    assert [number.strip() for number in stated] == [value()] * len(stated)
    assert stated


def test_a_wrong_node_count_fails() -> None:
    right = f"In fp32 stage 1 has {nodes_of_stage(1)} nodes."
    assert not list(wrong_statements(right))
    (wrong,) = wrong_statements(f"First line.\nIn fp32 stage 1 has {int(nodes_of_stage(1)) + 1} nodes.")
    assert (wrong.line, wrong.expected) == (2, nodes_of_stage(1))


@pytest.mark.parametrize("statement", ["The graph has 12 nodes.", "needs 64 pixels of context"])
def test_a_number_that_no_fact_covers_fails(statement: str) -> None:
    (wrong,) = wrong_statements(statement)
    assert "facts.py" in wrong.expected


def test_the_arguments_of_matting_are_all_in_the_table_with_their_defaults() -> None:
    from dim_runtime import Matting

    text = (TOP / "docs" / "runtime.md").read_text("utf-8")
    rows = {row[0].strip("`"): row[1] for row in table_rows(text, "| argument | default | meaning |")}
    parameters = signature(Matting).parameters
    assert list(rows) == list(parameters)
    for argument, stated in rows.items():
        default = parameters[argument].default
        # None and False are described in words; every other default is written as it is.
        if default is not None and default is not False:
            assert stated.strip("`") == str(default), argument
        else:
            assert not stated.strip("`").isdigit(), argument
