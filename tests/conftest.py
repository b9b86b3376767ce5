"""Golden texts: `golden(text)` compares with tests/golden/<file>/<test>.txt.

`pytest --update-golden` rewrites those that differ; the change is then reviewed like code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Compares a text with the stored one of this test."""
    test = re.sub(r"[^\w.\[\]-]+", "_", request.node.name)
    path = GOLDEN / request.node.path.stem / f"{test}.txt"
    update = request.config.getoption("--update-golden")

    def compare(text: str) -> None:
        text = text.rstrip("\n") + "\n"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_text("utf-8") != text:
                path.write_text(text, "utf-8", newline="\n")
            return
        assert path.is_file(), f"{path} is missing: run with --update-golden"
        assert text == path.read_text("utf-8")

    return compare
