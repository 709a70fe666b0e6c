"""``--report``: an earlier report is replaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dim.cli_support import publish, require_report
from dim.errors import InputError


@pytest.mark.parametrize("content", [None, b"", b'{"done": 3}\n'])
def test_a_report_is_written_over_an_earlier_one(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "folder" / "report.json"
    assert require_report(path) == path
    if content is not None:
        path.write_bytes(content)
    publish('{"done": 4}', as_json=False, report=path)
    assert path.read_text() == '{"done": 4}\n'


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n", b"a.png,b.png\n", b'[{"merged_path": "a"}]', b'{"a": 1}\n{"a": 2}\n']
)
def test_a_photograph_a_table_and_a_journal_are_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for attempt in (lambda: require_report(path), lambda: publish("{}", as_json=False, report=path)):
        with pytest.raises(InputError, match="no report"):
            attempt()
    assert path.read_bytes() == content
