"""Random small networks as ONNX models, for the property tests."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.onnx.onnx_models import floats, model, node

UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "HardSwish", "LeakyRelu", "Identity")


def random_model(data: st.DataObject) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A graph of convolutions, pools, sums, joins and activations over x[N,C,H,W]."""
    pick = data.draw
    channels, size = pick(st.integers(1, 3)), pick(st.integers(4, 7))
    batch = pick(st.integers(1, 3))
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    values = {"x": (channels, size, size)}
    for k in range(pick(st.integers(1, 6))):
        source = pick(st.sampled_from(sorted(values)))
        c, h, w = values[source]
        out = f"v{k}"
        kind = pick(st.sampled_from(("conv", "unary", "add", "pool", "concat", "scale", "softmax")))
        shape = (c, h, w)
        if kind == "conv":
            filters, kernel = pick(st.integers(1, 4)), pick(st.integers(1, 3))
            group = c if pick(st.booleans()) else 1
            filters = filters * group
            weights[f"w{k}"] = floats(filters, c // group, kernel, kernel, seed=k)
            weights[f"b{k}"] = floats(filters, seed=k + 50)
            pad = kernel // 2
            nodes.append(node("Conv", f"{source} w{k} b{k}", out, pads=[pad] * 4, group=group))
            reduced = 2 * pad - kernel + 1
            shape = (filters, h + reduced, w + reduced)
        elif kind == "add":
            other = pick(st.sampled_from([v for v, s in values.items() if s == shape]))
            nodes.append(node("Add", f"{source} {other}", out))
        elif kind == "pool" and min(h, w) >= 2:
            op = pick(st.sampled_from(("MaxPool", "AveragePool")))
            nodes.append(node(op, source, out, kernel_shape=[2, 2], strides=[2, 2]))
            shape = (c, h // 2, w // 2)
        elif kind == "concat":
            others = [v for v, s in values.items() if s[1:] == shape[1:]]
            other = pick(st.sampled_from(others))
            nodes.append(node("Concat", f"{source} {other}", out, axis=1))
            shape = (c + values[other][0], h, w)
        elif kind == "scale":
            weights[f"s{k}"] = floats(c, 1, 1, seed=k)
            nodes.append(node("Mul", f"{source} s{k}", out))
        elif kind == "softmax":
            nodes.append(node("Softmax", source, out, axis=1))
        else:
            nodes.append(node(pick(st.sampled_from(UNARY)), source, out))
        values[out] = shape
    last = f"v{len(nodes) - 1}"
    used = {i for n in nodes for i in n.input}
    outputs = [v for v in values if v not in used and v != "x"] or [last]
    m = model(
        nodes, {"x": ["N", channels, size, size]}, {o: ["N", *values[o]] for o in outputs}, weights
    )
    return m, {"x": floats(batch, channels, size, size, seed=99)}
