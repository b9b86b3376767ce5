"""Every op that has a nest, scheduled and emitted, computes what its nest means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nncc.ops  # noqa: F401  (fills the table)
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.ops.table import TABLE, bind
from nncc.passes import tensorize, vectorize
from tests.emission.scheduled import check
from tests.ops.op_instances import site_of

NESTED = sorted(name for name, op in TABLE.items() if op.nest is not None and op.sample)
MACHINE = load("cpu")
SETTINGS = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def narrow() -> Machine:
    """The host's machine with vectors of four lanes, so that small samples fill some."""
    operations = {k: o for k, o in MACHINE.operations.items() if k in ("fma4", "fma4v")}
    return replace(MACHINE, vector_bytes=16, vector_registers=16, operations=operations)


@pytest.mark.parametrize("name", NESTED)
@SETTINGS
@given(data=st.data())
def test_emitted_op_equals_its_nest(name: str, data: st.DataObject) -> None:
    op = TABLE[name]
    sample = data.draw(op.sample())
    site = site_of(op, sample)
    nest = op.nest(site)
    machine = data.draw(st.sampled_from([MACHINE, narrow()]))
    names = bind(site.node)
    arrays = {f"in{k}": x for k, x in enumerate(sample.inputs) if x is not None}
    inputs = {p.name: arrays[names[p.name]] for p in nest.inputs}
    how = data.draw(st.sampled_from(["default", "scheduled"]))
    if how == "scheduled":
        found = tensorize.find_contraction(nest, machine)
        tree = (
            tensorize.build_tree(found, tensorize.register_tile(found, machine))
            if found
            else vectorize.build_tree(nest, machine)
        )
        nest = replace(nest, schedule=tree)
    check(nest, inputs, {}, machine)
