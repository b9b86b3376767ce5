"""Programs with state: a hundred calls of native code equal those of the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncc.check import check
from nncc.driver import build, load_module, lower
from nncc.ir.interpreter.graph import interpret
from nncc.ops.reference import evaluate
from nncc.tolerance import compare

EXAMPLES = Path(__file__).parents[2] / "examples"
CALLS = 100


@pytest.mark.parametrize(
    ("name", "shape", "scale"), [("iir", (32,), 1.0), ("lif", (3, 16), 0.5)], ids=["iir", "lif"]
)
def test_a_hundred_calls(name: str, shape: tuple[int, ...], scale: float) -> None:
    module = load_module(EXAMPLES / f"{name}.nn")
    compilation = lower(module)
    executable = build(compilation)
    rng = np.random.default_rng(5)
    blocks = [(scale * rng.standard_normal(shape)).astype(np.float32) for _ in range(CALLS)]
    check(compilation, executable, {"x": blocks[0]})

    first: list[np.ndarray] = []
    state: dict[str, np.ndarray] = {}
    executable.reset()
    for k, x in enumerate(blocks):
        expected = interpret(module, {"x": x}, evaluate, state=state)
        state = dict(expected.state)
        (value,) = executable.run({"x": x}).values()
        (wanted,) = expected.outputs.values()
        assert compare(value, wanted, reduction=CALLS) is None, f"call {k}"
        first.append(value)
    assert any(np.any(v != 0) for v in first)

    # Without a reset the state goes on from where it is; after one it is as at first.
    later = [next(iter(executable.run({"x": x}).values())) for x in blocks]
    assert any(not np.array_equal(a, b) for a, b in zip(later, first, strict=True))
    executable.reset()
    for x, value in zip(blocks, first, strict=True):
        (again,) = executable.run({"x": x}).values()
        np.testing.assert_array_equal(again, value)
