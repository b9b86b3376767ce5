"""The single layers that `python -m benchmarks kernels` measures, as programs of one layer.

A convolution follows a small one that makes its input, so that both compilers keep the input as
they do inside a network; a stem reads the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass

WEIGHT = "layer.weight"  # the parameter by which the layer is found in the compiled module
BEFORE = "before"  # the node that makes its input


@dataclass(frozen=True)
class Layer:
    """One layer.

    Args:
        text: a program in the nncc language whose node reads the parameter WEIGHT.
        macs: multiply-accumulates whose operands are elements of the input: taps of a filter
            that lie in the padding are not counted.
    """

    label: str
    text: str
    macs: int


def conv(
    label: str, size: int, channels: int, filters: int, kernel: int, stride: int = 1,
    groups: int = 1, stem: bool = False,
) -> Layer:  # fmt: skip
    """A convolution with bias, padded by kernel // 2, of a square input."""
    pad = kernel // 2
    out = (size + 2 * pad - kernel) // stride + 1
    first = f"{BEFORE} = Conv(x, before.weight)"
    shape = f"{filters},{channels // groups},{kernel},{kernel}"
    text = f"""nncc 1
        {"" if stem else f"param before.weight: f32[{channels},1,1,1] = random(seed=1, std=0.1)"}
        param {WEIGHT}: f32[{shape}] = random(seed=1, std=0.1)
        param layer.bias: f32[{filters}] = random(seed=1, std=0.1)
        graph layer({BEFORE if stem else "x"}: f32[1,{channels if stem else 1},{size},{size}])
            -> (layer: f32[1,{filters},{out},{out}]) {{
          {"" if stem else first}
          layer = Conv({BEFORE}, {WEIGHT}, layer.bias)
            {{pads=[{pad},{pad},{pad},{pad}], strides=[{stride},{stride}], group={groups}}}
        }}"""
    inside = sum(
        0 <= stride * position + tap - pad < size
        for position in range(out)
        for tap in range(kernel)
    )
    return Layer(label, text, filters * channels // groups * inside**2)


def matmul(label: str, rows: int, inner: int, columns: int) -> Layer:
    """x w + b."""
    text = f"""nncc 1
        param {WEIGHT}: f32[{inner},{columns}] = random(seed=1, std=0.1)
        param layer.bias: f32[{columns}] = random(seed=1, std=0.1)
        graph layer(x: f32[{rows},{inner}]) -> (y: f32[{rows},{columns}]) {{
          layer = MatMul(x, {WEIGHT})
          y = Add(layer, layer.bias)
        }}"""
    return Layer(label, text, rows * inner * columns)


def gemv(label: str, inner: int, features: int) -> Layer:
    """A fully connected layer for one vector; as fast as memory gives the weights."""
    text = f"""nncc 1
        param {WEIGHT}: f32[{features},{inner}] = random(seed=1, std=0.1)
        param layer.bias: f32[{features}] = random(seed=1, std=0.1)
        graph layer(x: f32[1,{inner}]) -> (layer: f32[1,{features}]) {{
          layer = Gemm(x, {WEIGHT}, layer.bias) {{transB=1}}
        }}"""
    return Layer(label, text, inner * features)


LAYERS = (
    conv("3x3 64 @56", 56, 64, 64, 3),
    conv("3x3 128 @28", 28, 128, 128, 3),
    conv("3x3 256 @14", 14, 256, 256, 3),
    conv("3x3 512 @7", 7, 512, 512, 3),
    conv("3x3/2 128 @56", 56, 128, 128, 3, stride=2),
    conv("3x3/2 256 @28", 28, 256, 256, 3, stride=2),
    conv("1x1 64-256 @56", 56, 64, 256, 1),
    conv("1x1 256-64 @56", 56, 256, 64, 1),
    conv("1x1 512-128 @28", 28, 512, 128, 1),
    conv("1x1 1024-256 @14", 14, 1024, 256, 1),
    conv("1x1 512-2048 @7", 7, 512, 2048, 1),
    conv("1x1/2 256-512 @56", 56, 256, 512, 1, stride=2),
    conv("7x7/2 3-64 @224", 224, 3, 64, 7, stride=2, stem=True),
    conv("3x3/2 3-32 @224", 224, 3, 32, 3, stride=2, stem=True),
    conv("dw 3x3 32 @112", 112, 32, 32, 3, groups=32),
    conv("dw 3x3 144 @56", 56, 144, 144, 3, groups=144),
    conv("dw 3x3/2 144 @56", 56, 144, 144, 3, stride=2, groups=144),
    conv("dw 5x5 240 @28", 28, 240, 240, 5, groups=240),
    conv("dw 3x3 512 @14", 14, 512, 512, 3, groups=512),
    conv("3x3 32 x 4 @56", 56, 128, 128, 3, groups=32),
    conv("3x3 32 x 8 @28", 28, 256, 256, 3, groups=32),
    conv("3x3 32 x 16 @14", 14, 512, 512, 3, groups=32),
    matmul("matmul 128x768x768", 128, 768, 768),
    matmul("matmul 128x768x3072", 128, 768, 3072),
    matmul("matmul 128x3072x768", 128, 3072, 768),
    gemv("gemv 2048-1000", 2048, 1000),
    gemv("gemv 4096-4096", 4096, 4096),
)
