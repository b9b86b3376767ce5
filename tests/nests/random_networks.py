"""Small networks built with the op table, and a plain evaluation of graphs for comparison."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import nncc.ops
from nncc.ir.graph import Module, Node, Symbol
from nncc.ir.index import evaluate as size_value
from nncc.ir.index import var
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32, i8
from nncc.ops.builder import GraphBuilder
from nncc.ops.integer import quantize_multipliers
from nncc.ops.reference import evaluate

N = var("N")
assert nncc.ops


class Network:
    """A graph under construction with random weights."""

    def __init__(self, seed=0):
        self.builder = GraphBuilder()
        self.random = np.random.default_rng(seed)
        self.count = 0

    def input(self, name, *shape, dtype=f32):
        self.builder.input(name, TensorType(dtype, shape))
        return name

    def weight(self, *shape, kind="param", scale=0.4):
        name = f"w{len(self.builder.symbols)}"
        data = self.random.standard_normal(shape) * scale
        self.builder.symbols[name] = Symbol(kind, Tensor(data.astype(np.float32)))
        return name

    def constant(self, array):
        name = f"k{len(self.builder.symbols)}"
        self.builder.symbols[name] = Symbol("const", Tensor(np.asarray(array)))
        return name

    def add(self, op, *inputs, **attrs):
        self.count += 1
        name = f"{op.lower()}{self.count}"
        self.builder.add(Node(op, inputs, (name,), attrs))
        return name

    def conv(self, x, filters, kernel, stride=1, group=1, bias=True):
        channels = self.builder.type(x).shape[1]
        w = self.weight(filters, channels // group, kernel, kernel)
        operands = (x, w, self.weight(filters)) if bias else (x, w)
        pad = (kernel - 1) // 2
        attrs = {"pads": (pad,) * 4, "strides": (stride, stride), "group": group}
        return self.add("Conv", *operands, **attrs)

    def channels(self, x):
        return self.builder.type(x).shape[1]

    def module(self, *outputs):
        return Module(self.builder.graph("main", outputs), ("N",), self.builder.symbols)


def run(module, inputs, sizes):
    """The outputs of the main graph; groups, calls and relayouts included."""
    values = {k: s.data.array for k, s in module.symbols.items()} | dict(inputs)
    _run(module, module.graph, values, sizes)
    return [values[o] for o in module.graph.outputs]


def _run(module, graph, values, sizes):
    for node in graph.nodes:
        given = [values[i] if i else None for i in node.inputs]
        if node.op == "Group":
            (body,) = node.regions
            inner = dict(zip(body.inputs, given, strict=True))
            _run(module, body, inner, sizes)
            made = [inner[o] for o in body.outputs]
        elif node.op == "Call":
            nest = module.nests[node.attrs["callee"]]
            feeds = {}
            for p, x in zip(nest.inputs, given, strict=True):
                feeds[p.name] = x.reshape([size_value(s, sizes) for s in p.type.shape])
            results = interpret_nest(nest, feeds, sizes)
            made = [
                results[p.name].reshape([size_value(s, sizes) for s in graph.types[o].shape])
                for p, o in zip(nest.outputs, node.outputs, strict=True)
            ]
        else:
            made = evaluate(node, given)
        values.update((o, v) for o, v in zip(node.outputs, made, strict=False) if o)


@st.composite
def conv_networks(draw):
    """Convolutions of all kinds with residuals, activations, pooling, squeeze and excitation."""
    net = Network(draw(st.integers(0, 99)))
    x = net.input("x", draw(st.sampled_from([N, 1])), draw(st.sampled_from([1, 3, 16])),
                  draw(st.sampled_from([8, 1])), 7)  # fmt: skip
    for _ in range(draw(st.integers(1, 5))):
        c = net.channels(x)
        kind = draw(
            st.sampled_from(
                ["conv", "depthwise", "pool", "residual", "swish", "excite", "norm", "affine",
                 "concat", "transpose"]
            )
        )  # fmt: skip
        if kind == "conv":
            x = net.conv(x, draw(st.sampled_from([4, 8, 16, 24, 40])),
                         draw(st.sampled_from([1, 3])), draw(st.integers(1, 2)))  # fmt: skip
            if draw(st.booleans()):
                x = net.add("Relu", x)
        elif kind == "depthwise":
            x = net.conv(x, c, 3, 1, group=c, bias=draw(st.booleans()))
            x = net.add("Clip", x, net.constant(np.float32(0)), net.constant(np.float32(6)))
        elif kind == "pool" and net.builder.type(x).shape[2] > 2:
            x = net.add("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        elif kind == "residual":
            y = net.add("Relu", net.conv(x, c, 3))
            other = net.conv(x, c, 1) if draw(st.booleans()) else x
            x = net.add("Relu", net.add("Add", net.conv(y, c, 3), other))
        elif kind == "swish":
            y = net.conv(x, c, 1)
            x = net.add("Mul", y, net.add("Sigmoid", y))
        elif kind == "excite":
            s = net.conv(net.add("GlobalAveragePool", x), c, 1)
            x = net.add("Mul", x, net.add("Sigmoid", s))
        elif kind == "norm":
            y = net.conv(x, c, 1, bias=False)
            spread = net.add("Abs", net.weight(c, scale=1.0))
            x = net.add(
                "BatchNormalization", y, net.weight(c), net.weight(c), net.weight(c), spread
            )
        elif kind == "affine":
            x = net.add("Mul", net.add("Add", x, net.weight(1, c, 1, 1)), net.weight(c, 1, 1))
        elif kind == "concat":
            x = net.add("Concat", net.conv(x, 16, 1), net.conv(x, 16, 3), axis=1)
        elif kind == "transpose":
            y = net.add("Transpose", x, perm=(0, 1, 3, 2))
            x = net.add("Transpose", net.add("Relu", y), perm=(0, 1, 3, 2))
    ends = draw(st.sampled_from(["image", "both", "classes"]))
    pooled = net.add("Flatten", net.add("GlobalAveragePool", x))
    classes = net.add("Gemm", pooled, net.weight(10, net.channels(x)), net.weight(10), transB=1)
    probabilities = net.add("Softmax", classes)
    if x == "x":
        ends = "classes"
    return net.module(*{"image": [x], "both": [probabilities, x], "classes": [probabilities]}[ends])


def attention(seed=0, heads=2, length=5, width=8):
    """A transformer block: projections, attention by heads, layer normalization, GELU."""
    net = Network(seed)
    x = net.input("x", N, length, width)
    size = width // heads

    def linear(value, out):
        rows = net.builder.type(value).shape[-1]
        return net.add("Add", net.add("MatMul", value, net.weight(rows, out)), net.weight(out))

    def split(value, perm):
        shape = net.constant(np.array([0, length, heads, size], np.int64))
        return net.add("Transpose", net.add("Reshape", value, shape), perm=perm)

    q, k, v = (split(linear(x, width), p) for p in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)))
    scaled = net.add("Mul", net.add("MatMul", q, k), net.constant(np.float32(size**-0.5)))
    weights = net.add("Softmax", scaled, axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", weights, v), perm=(0, 2, 1, 3))
    joined = net.add("Reshape", mixed, net.constant(np.array([0, length, width], np.int64)))
    added = net.add("Add", linear(joined, width), x)
    normal = net.add("LayerNormalization", added, net.weight(width), net.weight(width), axis=-1)
    hidden = linear(normal, 2 * width)
    half = net.add("Mul", hidden, net.constant(np.float32(2**-0.5)))
    gate = net.add("Add", net.add("Erf", half), net.constant(np.float32(1)))
    gelu = net.add("Mul", net.add("Mul", hidden, gate), net.constant(np.float32(0.5)))
    return net.module(net.add("Add", linear(gelu, width), normal))


@st.composite
def integer_networks(draw):
    """int8 convolutions with one rounding each, residual adds, lookups, average pooling."""
    net = Network(draw(st.integers(0, 99)))
    x = net.input("x", draw(st.sampled_from([N, 1])), draw(st.sampled_from([1, 3, 6, 16])), 6, 5,
                  dtype=i8)  # fmt: skip

    def whole(shape, lo, hi, dtype):
        return net.constant(net.random.integers(lo, hi, shape, dtype, endpoint=True))

    def multipliers(filters):
        scales = net.random.uniform(1e-4, 4e-3, filters)
        m, s = quantize_multipliers(scales)
        return net.constant(m), net.constant(s)

    def conv(x, filters, kernel, group=1):
        c = net.channels(x)
        w = whole((filters, c // group, kernel, kernel), -127, 127, np.int8)
        pad = (kernel - 1) // 2
        zero = draw(st.sampled_from([-128, 0, 5]))
        sums = net.add("IntConv", x, w, whole((filters,), -1000, 1000, np.int32),
                       pads=(pad,) * 4, group=group, zx=zero)  # fmt: skip
        return net.add("Requantize", sums, *multipliers(filters), z=draw(st.integers(-20, 20)))

    for _ in range(draw(st.integers(1, 4))):
        c = net.channels(x)
        kind = draw(st.sampled_from(["conv", "depthwise", "lookup", "pool", "pointwise"]))
        if kind == "conv":
            x = conv(x, draw(st.sampled_from([8, 16, 40])), 3)
        elif kind == "pointwise":
            x = conv(x, draw(st.sampled_from([5, 32])), 1)
        elif kind == "depthwise":
            x = conv(x, c, 3, group=c)
        elif kind == "lookup":
            x = net.add("Lookup", x, whole((256,), -128, 127, np.int8))
        elif kind == "pool":
            x = net.add("MaxPool", x, kernel_shape=(2, 2))
            if net.builder.type(x).shape[2] < 3:
                break
    return net.module(x if x != "x" else conv(x, 4, 1))
