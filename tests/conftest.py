"""Golden texts: `golden(text)` compares with tests/golden/<area>/<file>/<test>.txt.

`pytest --update-golden` rewrites those that differ; the change is then reviewed like code.

`counted["networks"] += 1` counts random cases; the sums stand at the end of pytest's output,
beside how often hypothesis ran the tests of each folder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
COUNTED = "random cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Compares a text with the stored one of this test."""
    test = re.sub(r"[^\w.\[\]-]+", "_", request.node.name)
    file = request.node.path.relative_to(TESTS).with_suffix("")
    path = GOLDEN / file / f"{test}.txt"
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


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Iterator[Counter[str]]:
    """Counts cases by what they are."""
    counts: Counter[str] = Counter()
    yield counts
    record_property(COUNTED, dict(counts))


_examples = 0  # how often hypothesis has called a test function in this process


def _counting(test: Callable[..., object]) -> Callable[..., object]:
    """A test function that counts its calls."""

    @wraps(test)
    def call(*args: object, **named: object) -> object:
        global _examples
        _examples += 1
        return test(*args, **named)

    call.counts = True  # type: ignore[attr-defined]
    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Makes the tests of hypothesis count their examples."""
    for item in items:
        handle = getattr(getattr(item, "obj", None), "hypothesis", None)
        if handle is not None and not hasattr(handle.inner_test, "counts"):
            handle.inner_test = _counting(handle.inner_test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Notes how many examples a test had."""
    before = _examples
    try:
        yield
    finally:
        if _examples > before:
            folder = item.path.parent.relative_to(TESTS).name
            item.user_properties.append((COUNTED, {f"examples in {folder}": _examples - before}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many cases of each kind were tested."""
    total: Counter[str] = Counter()
    for report in terminalreporter.getreports(""):
        # the phase that ends a test carries the properties of all its phases
        if report.when == "teardown":
            for name, counts in report.user_properties:
                if name == COUNTED:
                    total.update(counts)
    if total:
        found = ", ".join(f"{n} {kind}" for kind, n in sorted(total.items()))
        terminalreporter.write_line(f"random cases: {found}")
