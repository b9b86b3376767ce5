"""The code of the documents runs, and prints what they say that it prints."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nncc import passes
from nncc.ops import table

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a document adds is gone after the test, and so are the files that it writes."""
    import nncc.ops  # noqa: F401  (fills the table)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(passes, "_registered", {})
    before = dict(table.TABLE)
    yield
    table.TABLE.clear()
    table.TABLE.update(before)


def pattern(shown: str) -> str:
    """What a document shows, as a regular expression: `…` stands for the rest of a line, and
    alone in a line for some lines."""
    lines = [
        ".*" if x == "…" else ".*".join(map(re.escape, x.split("…"))) for x in shown.split("\n")
    ]
    return "\n".join(f"(?s:{x})" if x == ".*" else x for x in lines)


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_document(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "document"}
    printed = ""
    for match in BLOCK.finditer(text):
        kind, code = match.groups()
        if kind == "text":
            if not re.fullmatch(pattern(code.rstrip()), printed.rstrip()):
                assert printed.rstrip() == code.rstrip()
            continue
        # blank lines before the code: errors have the lines of the document
        lines = text.count("\n", 0, match.start(2))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            source = compile("\n" * lines + code, str(DOCS / name), "exec", dont_inherit=True)
            exec(source, names)
        printed = out.getvalue()
