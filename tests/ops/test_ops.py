"""Every op of the table on random instances: inference, references and nest agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import helper

import nncc.ops  # noqa: F401  (fills the table)
from nncc.diagnostics import VerifyError
from nncc.frontend.onnx.tensors import ELEM_TYPES
from nncc.ir.graph import Node
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import DTYPES, TensorType, dtype_of, f32
from nncc.ops.reference import by_onnx, evaluate
from nncc.ops.table import TABLE, Site
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


@pytest.mark.parametrize("name", [n for n in SAMPLED if TABLE[n].domain == "ai.onnx"])
def test_no_dtype_is_taken_that_onnx_does_not_take(name):
    """Each dtype for every operand of the first operand's type variable."""
    op = TABLE[name]
    schema = onnx.defs.get_schema(name)
    if not schema.inputs or name == "ConstantOfShape":  # whose operand is a shape
        return
    variable = schema.inputs[0].type_str
    constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    allowed = constraints.get(variable, [variable])

    @settings(QUICK, max_examples=3)
    @given(op.sample())
    def check(sample):
        node = node_of(op, sample)
        for dtype in DTYPES.values():
            types = []
            for k, x in enumerate(sample.inputs):
                formal = schema.inputs[min(k, len(schema.inputs) - 1)].type_str
                own = None if x is None else TensorType(dtype_of(x.dtype), x.shape)
                types.append(replace(own, dtype=dtype) if own and formal == variable else own)
            try:
                op.infer(Site(node, tuple(types), sample.inputs))
            except VerifyError:
                continue
            spelled = helper.tensor_dtype_to_string(ELEM_TYPES[dtype]).split(".")[1].lower()
            assert f"tensor({spelled})" in allowed, f"{name} takes {dtype}"

    check()


def test_attributes_and_operands_of_the_table_are_those_of_onnx():
    """Defaults and what must be given; only what is stated otherwise on purpose may differ."""
    for op in TABLE.values():
        if op.domain != "ai.onnx":
            continue
        schema = onnx.defs.get_schema(op.name, op.since, "")
        for name, attr in op.attrs.items():
            stated = schema.attributes[name]
            assert attr.required == stated.required, f"{op.name}.{name}"
            default = helper.get_attribute_value(stated.default_value)
            if stated.default_value.name and (op.name, name) not in DEFAULT_IN_CODE:
                default = default.decode() if isinstance(default, bytes) else default
                assert attr.default == pytest.approx(default), f"{op.name}.{name}"
        needed = [p.option.name != "Optional" for p in schema.inputs]
        assert [not i.optional for i in op.inputs] == needed[: len(op.inputs)], op.name


DEFAULT_IN_CODE = {("QuantizeLinear", "output_dtype")}  # 0: what the zero point says


def test_odd_attributes_are_refused():
    gelu = Node("Gelu", ("x",), ("y",), {"approximate": "fast"})
    with pytest.raises(VerifyError, match="neither none nor tanh"):
        TABLE["Gelu"].infer(Site(gelu, (TensorType(f32, (2,)),), (None,)))
    w = TensorType(f32, (2, 1, 3, 3))
    image = TensorType(f32, (1, 2, 8, 8))
    for attrs, said in (
        ({"strides": (0, 1)}, "must be at least 1"),
        ({"dilations": (1, -1)}, "must be at least 1"),
        ({"pads": (0, 0, -1, 0)}, "must not be negative"),
        ({"group": -2}, "group=-2"),
    ):
        node = Node("Conv", ("x", "w"), ("y",), {"group": 2, **attrs})
        with pytest.raises(VerifyError, match=said):
            TABLE["Conv"].infer(Site(node, (image, w), (None, None)))


def test_the_reference_of_max_pool_knows_every_float():
    import ml_dtypes

    x = np.arange(-9, 7, dtype=np.float32).reshape(1, 1, 4, 4).astype(ml_dtypes.bfloat16)
    node = Node("MaxPool", ("x",), ("y",), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)})
    (y,) = evaluate(node, [x])
    assert y.dtype == x.dtype and float(y[0, 0, 0, 0]) == -4.0


def test_integers_to_negative_powers_are_truncated():
    a, b = np.array([2, 1, -1, -1, 0, -3]), np.array([-1, -5, -3, -2, -1, 3])
    (y,) = evaluate(Node("Pow", ("a", "b"), ("y",)), [a, b])
    assert y.tolist() == [0, 1, -1, 1, 0, -27]
    assert FUNCTIONS["pow"].numpy(np, a, b).tolist() == y.tolist()
    (y,) = evaluate(
        Node("Pow", ("a", "b"), ("y",)), [np.array([4, 9, 2]), np.float32([0.5, 2, 0.5])]
    )
    assert y.tolist() == [2, 81, 1]
