"""Named sizes: what is inferred for N rows is right for any number of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import nncc.ops  # noqa: F401  (fills the table)
from nncc.diagnostics import VerifyError
from nncc.ir.index import substitute, var
from nncc.ir.types import TensorType, dtype_of
from nncc.ops.reference import evaluate
from nncc.ops.table import TABLE, Site
from tests.ops.op_instances import assert_close, node_of, run_nest

N = var("N")
# Ops whose first axis has another meaning, or whose samples rarely leave it free.
NO_BATCH = {"Constant", "ConstantOfShape", "Range", "Group", "Call"}
RARE = {"Slice", "Squeeze"}  # few of whose samples leave the first axis alone
BATCHED = sorted(n for n, op in TABLE.items() if op.sample and op.nest and n not in NO_BATCH)


def symbolic_sites(op, sample):
    """Sites with the first extent N: of the first input, then of all inputs that share it."""
    first = sample.inputs[0]
    if first is None or not first.ndim:
        return
    for everywhere in (False, True):
        types = []
        for k, x in enumerate(sample.inputs):
            if x is None:
                types.append(None)
                continue
            rows = x.ndim and x.shape[0] == first.shape[0] and (k == 0 or everywhere)
            shape = (N, *x.shape[1:]) if rows else x.shape
            types.append(TensorType(dtype_of(x.dtype), shape))
        # what has N rows is no constant of the model
        known = [
            x if t is not None and t.is_static else None
            for x, t in zip(sample.inputs, types, strict=True)
        ]
        site = Site(node_of(op, sample), tuple(types), tuple(known))
        try:
            outputs = tuple(op.infer(site))
        except VerifyError:
            continue
        yield Site(site.node, site.inputs, site.constants, outputs)


@pytest.mark.parametrize("name", BATCHED)
def test_any_number_of_rows(name):
    op, worked = TABLE[name], []

    @settings(
        max_examples=60 if name in RARE else 10, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(op.sample())
    def check(sample):
        for site in symbolic_sites(op, sample):
            expected = evaluate(site.node, sample.inputs)
            sizes = {"N": sample.inputs[0].shape[0]}
            for type, y in zip(site.outputs, expected, strict=True):
                shape = tuple(substitute(e, sizes) for e in type.shape)
                assert shape == y.shape, f"{type} for {y.shape}"
            for a, b in zip(run_nest(site, sample.inputs, sizes), expected, strict=True):
                assert_close(a, b, "nest with N rows")
            worked.append(any("N" in str(t) for t in site.outputs))

    check()
    assert worked, "no instance could be inferred with a named size"
    if not op.traits & {"reduction", "of_shape"}:
        assert any(worked)


def test_sizes_that_cannot_be_compared_are_refused():
    add = TABLE["Add"]
    node = node_of(add, add_sample := _sample(2))
    types = (TensorType(dtype_of(add_sample.inputs[0].dtype), (N,)),) * 2
    assert add.infer(Site(node, types)) == (types[0],)
    other = TensorType(types[0].dtype, (var("M"),))
    with pytest.raises(VerifyError, match="sizes N and M do not broadcast"):
        add.infer(Site(node, (types[0], other)))


def _sample(count):
    from nncc.ops.table import Sample

    return Sample(tuple(np.zeros(3, np.float32) for _ in range(count)))
