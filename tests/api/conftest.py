from __future__ import annotations

from collections.abc import Iterator

import pytest

from nncc import passes
from tests.api import toy_passes


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy passes are known for the time of a test."""
    monkeypatch.setattr(passes, "_registered", {})
    for cls in toy_passes.ALL:
        passes.register(cls)
    yield
