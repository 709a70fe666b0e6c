"""The words that `make lint` keeps out: every entry finds its example, code is not prose, lines are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import check_words

RULES = check_words.read_rules()


def found(path: Path, text: str) -> list[tuple[int, str]]:
    path.write_text(text, "utf-8")
    return [(finding.line, finding.word) for finding in check_words.check_file(path, RULES)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern.pattern)
def test_every_entry_finds_its_wrong_sentences_and_none_of_its_right_ones(rule: Any) -> None:
    assert rule.wrong
    for sentence in rule.wrong:
        assert list(check_words.find_words(sentence, [rule])), sentence
    for sentence in rule.right:
        assert not list(check_words.find_words(sentence, [rule])), sentence


def test_docstrings_comments_and_strings_are_prose_and_names_are_not(tmp_path: Path) -> None:
    text = '''"""Module.

A word: whoever calls.
"""

def nobody() -> str:  # somebody listens
    """Call `nobody` and ``whoever``."""
    return f"{1} of {2} is asked " f"for"
'''
    assert found(tmp_path / "module.py", text) == [(3, "whoever"), (6, "somebody"), (8, "asked for")]


def test_a_phrase_is_found_across_the_lines_of_a_comment(tmp_path: Path) -> None:
    assert found(tmp_path / "module.py", "x = 1\n# only what is asked\n# for\n") == [(2, "asked for")]


def test_code_in_markdown_is_not_prose(tmp_path: Path) -> None:
    text = "Use `whoever`.\n\n```sh\necho whoever\n```\n\n    whoever\n\nBut whoever\nreads: *anew*.\n"
    assert found(tmp_path / "page.md", text) == [(9, "whoever"), (10, "anew")]


def test_a_word_fails_and_its_replacement_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "page.md").write_text("For nobody.\n", "utf-8")
    assert check_words.main([str(tmp_path)]) == 1
    assert "page.md:1: “nobody”: name the subject" in capsys.readouterr().out
    (tmp_path / "room" / "page.md").write_text("For users.\n", "utf-8")
    assert check_words.main([str(tmp_path)]) == 0


def test_a_folder_that_is_not_there_is_an_error_and_not_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_words.main([str(tmp_path / "missing")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_the_paths_in_the_settings_exist() -> None:
    assert Path(__file__).resolve() in check_words.exempt_paths()


def test_the_repository_is_clean_and_checked_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_words.main([]) == 0
    (count,) = re.findall(r"(\d+) files", capsys.readouterr().out)
    assert int(count) > 350
