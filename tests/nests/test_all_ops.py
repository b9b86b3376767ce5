"""Every op with a loop nest: lowered alone, it computes what its reference does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, dtype_of
from nncc.ir.verify_nests import verify_nest
from nncc.machines import load
from nncc.ops.builder import GraphBuilder
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE
from nncc.passes.fuse import Fuse
from nncc.passes.layout import Layout
from nncc.passes.lower import Lower
from tests.nests.random_networks import run

FEATURES = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "avx512vnni"}
MACHINE = load("cpu-avx512", features=FEATURES)
NAMES = [n for n, op in TABLE.items() if op.nest is not None and op.sample is not None]


def module_of(name, sample):
    """The op alone: floats of rank 1 and more are inputs, everything else constants."""
    builder = GraphBuilder()
    names, feeds = [], {}
    for k, x in enumerate(sample.inputs):
        names.append("" if x is None else f"in{k}")
        if x is None:
            continue
        if x.dtype.kind == "f" and x.ndim and k == 0:
            builder.input(f"in{k}", TensorType(dtype_of(x.dtype), x.shape))
            feeds[f"in{k}"] = x
        else:
            builder.symbols[f"in{k}"] = Symbol("const", Tensor(np.array(x, order="C")))
    outputs = tuple(f"out{k}" for k in range(sample.outputs))
    node = Node(name, tuple(names), outputs, dict(sample.attrs))
    builder.add(node)
    return Module(builder.graph("main", outputs), (), builder.symbols), node, feeds


@pytest.mark.parametrize("name", NAMES)
def test_lowered_ops_equal_their_reference(name):
    @settings(
        max_examples=8, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(TABLE[name].sample())
    def check(sample):
        module, node, feeds = module_of(name, sample)
        for step in (Fuse(), Layout(), Lower()):
            module = step.run(module, MACHINE)
        for nest in module.nests.values():
            verify_nest(nest)
        expected = evaluate(node, sample.inputs)
        for e, g in zip(expected, run(module, feeds, {}), strict=True):
            assert g.dtype == e.dtype
            assert g.shape == e.shape
            if e.dtype.kind != "f":
                np.testing.assert_array_equal(g, e)
                continue
            finite = np.abs(e[np.isfinite(e)])
            scale = max(float(finite.max(initial=0.0)), 1e-3)
            np.testing.assert_allclose(g, e, rtol=2e-4, atol=2e-5 * scale)

    check()
