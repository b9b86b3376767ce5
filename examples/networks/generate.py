"""Writes the networks of this folder: `python -m examples.networks.generate`.

Structure, names of layers and counts of parameters are those of the published models, with each
BatchNormalization folded into its convolution; batch 1. The weights are random, with deviations
that keep values at about the same size from layer to layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from examples.networks.program import Program, Value
from examples.networks.transformer import bert_base

IMAGE = "image: f32[1,3,224,224]"
LOGITS = "logits: f32[1,1000]"
COMMENT = """{title}
{source}; BatchNormalization folded, random weights.
Written by generate.py of this folder."""


def program(name: str, title: str, source: str) -> tuple[Program, Value]:
    """An empty program that classifies an image, and the image."""
    comment = COMMENT.format(title=title, source=source)
    return Program(name, IMAGE, comment), Value("image", 3)


def relu(p: Program, x: Value) -> Value:
    """Relu of a layer's value, named after the layer."""
    return p.op(f"{x.name}.relu", "Relu", x)


def silu(p: Program, x: Value) -> Value:
    """x * sigmoid(x)."""
    return p.op(f"{x.name}.silu", "Mul", x, p.op(f"{x.name}.sigmoid", "Sigmoid", x))


def max_pool(p: Program, name: str, x: Value, kernel: int, attrs: str = "") -> Value:
    """Maximum of windows at stride 2."""
    return p.op(name, "MaxPool", x, attrs=f"kernel_shape=[{kernel},{kernel}], strides=[2,2]{attrs}")


def average(p: Program, x: Value, result: str = "features") -> Value:
    """The mean of each channel, as a matrix."""
    return p.op(result, "Flatten", p.op("average", "GlobalAveragePool", x))


# -- residual networks ------------------------------------------------------------------------
def resnet18() -> str:
    """Two 3x3 convolutions a block."""
    p, x = resnet_stem("resnet18")
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            at = f"layer{stage}.{block}"
            p.heading(at)
            y = relu(p, p.conv(f"{at}.conv1", x, channels, kernel=3, stride=stride, gain=2.0))
            y = p.conv(f"{at}.conv2", y, channels, kernel=3)
            x = residual(p, at, x, y, stride)
    return classified(p, "fc", x)


def resnet50() -> str:
    """1x1, 3x3 and 1x1 convolutions a block; the 3x3 has the stride."""
    p, x = resnet_stem("resnet50")
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            at = f"layer{stage}.{block}"
            p.heading(at)
            y = relu(p, p.conv(f"{at}.conv1", x, width, gain=2.0))
            y = relu(p, p.conv(f"{at}.conv2", y, width, kernel=3, stride=stride, gain=2.0))
            y = p.conv(f"{at}.conv3", y, 4 * width)
            x = residual(p, at, x, y, stride)
    return classified(p, "fc", x)


def resnet_stem(name: str) -> tuple[Program, Value]:
    """The layers before the blocks."""
    source = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2015)"
    p, x = program(name, name.replace("resnet", "ResNet-"), source)
    x = relu(p, p.conv("conv1", x, 64, kernel=7, stride=2, gain=2.0))
    return p, max_pool(p, "maxpool", x, 3, ", pads=[1,1,1,1]")


def residual(p: Program, at: str, x: Value, y: Value, stride: int) -> Value:
    """relu(y + x), with x brought to the shape of y."""
    if stride > 1 or x.features != y.features:
        x = p.conv(f"{at}.downsample.0", x, y.features, stride=stride)
    return relu(p, p.op(f"{at}.add", "Add", y, x))


def classified(p: Program, name: str, x: Value) -> str:
    """The program that ends with the mean of each channel and one layer."""
    p.linear(name, average(p, x), 1000, result="logits")
    return p.text(LOGITS)


# -- VGG, SqueezeNet --------------------------------------------------------------------------
def vgg16() -> str:
    """13 convolutions, 3 fully connected layers."""
    source = "Simonyan, Zisserman: Very Deep Convolutional Networks (2014), configuration D"
    p, x = program("vgg16", "VGG-16", source)
    position = 0
    for channels, layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(layers):
            x = relu(p, p.conv(f"features.{position}", x, channels, kernel=3, gain=2.0))
            position += 2
        x = max_pool(p, f"features.{position}", x, 2)
        position += 1
    x = p.op("flat", "Flatten", x, features=512 * 7 * 7)
    for position in (0, 3):
        x = relu(p, p.linear(f"classifier.{position}", x, 4096, gain=2.0))
    p.linear("classifier.6", x, 1000, result="logits")
    return p.text(LOGITS)


def squeezenet1_1() -> str:
    """Fire modules: a 1x1 convolution into few channels, then 1x1 beside 3x3."""
    source = "Iandola et al.: SqueezeNet (2016), version 1.1"
    p, x = program("squeezenet1_1", "SqueezeNet 1.1", source)
    x = relu(p, p.conv("features.0", x, 64, kernel=3, stride=2, pad=0, gain=2.0))
    squeezed = {3: 16, 4: 16, 6: 32, 7: 32, 9: 48, 10: 48, 11: 64, 12: 64}
    for position in range(2, 13):
        if position in squeezed:
            x = fire(p, f"features.{position}", x, squeezed[position])
        elif position in (2, 5, 8):
            x = max_pool(p, f"features.{position}", x, 3, ", ceil_mode=1")
    average(p, relu(p, p.conv("classifier.1", x, 1000, gain=2.0)), "logits")
    return p.text(LOGITS)


def fire(p: Program, at: str, x: Value, squeezed: int) -> Value:
    """A fire module; its output has eight times the squeezed channels."""
    x = relu(p, p.conv(f"{at}.squeeze", x, squeezed, gain=2.0))
    one = relu(p, p.conv(f"{at}.expand1x1", x, 4 * squeezed, gain=2.0))
    three = relu(p, p.conv(f"{at}.expand3x3", x, 4 * squeezed, kernel=3, gain=2.0))
    return p.op(f"{at}.concat", "Concat", one, three, attrs="axis=1", features=8 * squeezed)


# -- depthwise networks -----------------------------------------------------------------------
def mobilenet_v2() -> str:
    """Inverted residuals: expand, depthwise, project."""
    source = "Sandler et al.: MobileNetV2 (2018)"
    p, x = program("mobilenet_v2", "MobileNet v2", source)
    p.const("zero", "f32[]", "0.0")
    p.const("six", "f32[]", "6.0")
    x = relu6(p, p.conv("features.0.0", x, 32, kernel=3, stride=2, gain=2.0))
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    position = 1
    for expansion, channels, blocks, first_stride in stages:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = inverted(p, f"features.{position}.conv", x, expansion, channels, stride)
            position += 1
    x = relu6(p, p.conv("features.18.0", x, 1280, gain=2.0))
    return classified(p, "classifier.1", x)


def inverted(p: Program, at: str, x: Value, expansion: int, channels: int, stride: int) -> Value:
    """An inverted residual block; where shapes allow, x is added."""
    p.heading(at.removesuffix(".conv"))
    y, wide = x, expansion * x.features
    if expansion > 1:
        y = relu6(p, p.conv(f"{at}.0.0", y, wide, gain=2.0))
    layer = 1 if expansion > 1 else 0
    y = p.conv(f"{at}.{layer}.0", y, wide, kernel=3, stride=stride, groups=wide, gain=2.0)
    y = p.conv(f"{at}.{layer + 1}", relu6(p, y), channels)
    return p.op(f"{at}.add", "Add", x, y) if stride == 1 and x.features == channels else y


def relu6(p: Program, x: Value) -> Value:
    """x limited to 0..6."""
    return p.op(f"{x.name}.relu6", "Clip", x, "zero", "six")


SILU_GAIN = 2.1  # of the layer before silu, which makes values of size 1 somewhat smaller


def efficientnet_b0() -> str:
    """Inverted residuals with squeeze and excitation."""
    source = "Tan, Le: EfficientNet (2019)"
    p, x = program("efficientnet_b0", "EfficientNet-B0", source)
    x = silu(p, p.conv("features.0.0", x, 32, kernel=3, stride=2, gain=SILU_GAIN))
    stages = ((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2),
              (6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1))  # fmt: skip
    for stage, (expansion, kernel, channels, blocks, first_stride) in enumerate(stages, 1):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            at = f"features.{stage}.{block}.block"
            x = excited(p, at, x, expansion, channels, kernel, stride)
    x = silu(p, p.conv("features.8.0", x, 1280, gain=SILU_GAIN))
    return classified(p, "classifier.1", x)


def excited(
    p: Program, at: str, x: Value, expansion: int, channels: int, kernel: int, stride: int
) -> Value:
    """An inverted residual block whose wide channels are weighted by what all of them hold."""
    p.heading(at.removesuffix(".block"))
    y, wide, layer = x, expansion * x.features, 0
    if expansion > 1:
        y, layer = silu(p, p.conv(f"{at}.0.0", y, wide, gain=SILU_GAIN)), 1
    y = p.conv(
        f"{at}.{layer}.0", y, wide, kernel=kernel, stride=stride, groups=wide, gain=SILU_GAIN
    )
    y = silu(p, y)
    mean = p.op(f"{at}.mean", "GlobalAveragePool", y)
    inner = silu(p, p.conv(f"{at}.{layer + 1}.fc1", mean, x.features // 4))
    weight = p.conv(f"{at}.{layer + 1}.fc2", inner, wide)
    weight = p.op(f"{at}.weight", "Sigmoid", weight)
    y = p.op(f"{at}.weighted", "Mul", y, weight)
    # a sigmoid near one half halves the values: a gain of 4 undoes it
    y = p.conv(f"{at}.{layer + 2}.0", y, channels, gain=4.0)
    return p.op(f"{at}.add", "Add", x, y) if stride == 1 and x.features == channels else y


NETWORKS: dict[str, Callable[[], str]] = {
    n.__name__: n
    for n in (
        resnet18, resnet50, vgg16, mobilenet_v2, squeezenet1_1, efficientnet_b0, bert_base,
    )
}  # fmt: skip


if __name__ == "__main__":
    for name, network in NETWORKS.items():
        Path(__file__).with_name(f"{name}.nn").write_text(network(), "utf-8", newline="\n")
