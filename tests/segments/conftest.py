from __future__ import annotations

import importlib
import sys

import pytest

from nncc.machines.machine import Machine
from tests.segments.devices import FLOATS, INTEGERS, device


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of the back end in `toy`, which is known as `nncc.backends.toy` meanwhile."""
    for part in ("", ".compiler"):
        found = importlib.import_module(f"tests.segments.toy{part}")
        monkeypatch.setitem(sys.modules, f"nncc.backends.toy{part}", found)
    return device((*INTEGERS, *FLOATS), lacks=("Softmax",), backend="toy")
