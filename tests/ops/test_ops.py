"""Every op of the table on random instances: inference, references and nest agree."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

import nncc.ops  # noqa: F401  (fills the table)
from nncc.diagnostics import VerifyError
from nncc.ir.types import TensorType, dtype_of
from nncc.ops.reference import by_onnx, evaluate
from nncc.ops.table import TABLE
from tests.ops.op_instances import assert_close, node_of, run_nest, run_onnxruntime, site_of

SAMPLED = sorted(name for name, op in TABLE.items() if op.sample is not None)
QUICK = settings(
    max_examples=25, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(TABLE))
def test_declaration_is_complete(name):
    op = TABLE[name]
    assert len(op.doc) > 3
    assert op.nest or op.decompose or op.no_nest, "neither nest nor decomposition nor a reason"
    assert op.sample or op.no_nest
    if op.domain == "nncc":
        assert op.reference or op.no_nest
    for attr in op.attrs.values():
        assert not (attr.required and attr.default is not None)


@pytest.mark.parametrize("name", SAMPLED)
def test_agreement(name):
    op = TABLE[name]

    @QUICK
    @given(op.sample())
    def check(sample):
        node = node_of(op, sample)
        expected = evaluate(node, sample.inputs)
        site = site_of(op, sample)
        types = [TensorType(dtype_of(y.dtype), y.shape) for y in expected]
        assert list(site.outputs) == types, f"inference says {site.outputs}"

        if op.domain == "ai.onnx":
            if op.reference is not None and not op.deviation:
                for a, b in zip(by_onnx(node, op, sample.inputs), expected, strict=True):
                    assert_close(a, b, "onnx.reference")
            witness = run_onnxruntime(op, sample)
            for a, b in zip(witness or expected, expected, strict=True):
                assert_close(a, b, "onnxruntime")

        if op.nest is None:
            return
        for a, b in zip(run_nest(site, sample.inputs), expected, strict=True):
            assert_close(a, b, "nest with every constant known")
        try:
            unknown = site_of(op, sample, [None] * len(sample.inputs))
            values = run_nest(unknown, sample.inputs)
        except VerifyError as e:
            assert "must be known at compile time" in str(e)
            return
        for a, b in zip(values, expected, strict=True):
            assert_close(a, b, "nest")

    check()
