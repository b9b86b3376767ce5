"""The grammar itself: it is LALR(1) without conflicts, and the printers know its keywords."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.resources import files

import pytest
from lark import Lark, logger

from nncc.ir.text import names, parser

TEXT = (files("nncc.ir.text") / "grammar.lark").read_text("utf-8")


def test_no_conflicts(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.addHandler(caplog.handler)
    try:
        Lark(TEXT, parser="lalr", start=["module", "definition", "nest", "function"], debug=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert "conflict" not in caplog.text.lower()


def test_it_fits_on_two_screens() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 140
    rules = [line for line in lines if not line.startswith(("//", "%")) and line.strip()]
    assert len(rules) <= 120


def test_keywords_are_what_the_parser_takes_for_them() -> None:
    """A word is reserved if it can stand where a name can."""
    lark = parser._lark()
    words = {
        t.name: t.pattern.value
        for t in lark.terminals
        if t.pattern.type == "str" and t.pattern.value.isidentifier()
    }
    states = lark.parser.parser._parse_table.states.values()
    reserved = {words[t] for row in states if "NAME" in row for t in row if t in words}
    assert reserved | {"inf", "nan", "true", "false"} == names.KEYWORDS


@pytest.mark.parametrize("start", ["nncc.ir.text", "nncc.ir.text.files", "nncc.ir.text.data"])
def test_printing_needs_no_parser(start: str) -> None:
    loads = "data" in start
    code = f"import sys, {start}; sys.exit(('lark' in sys.modules) != {loads})"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert parser._cache_file() is False
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert str(parser._cache_file()).startswith(str(tmp_path / "cache"))


def test_a_broken_cache_is_made_anew(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = parser._lark.__wrapped__()
    path = tmp_path / "nncc" / "grammar.lark.pickle"
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(content)
        again = parser._lark.__wrapped__()
        assert len(again.terminals) == len(made.terminals)
        assert again.parse("nncc 1", start="module").version == "1"
