"""What operations compute: interpreter and translator, against numpy and the graph level."""

import ctypes
import random

import numpy as np
import pytest

from nncc.backends.cpu.emit import attributes
from nncc.backends.cpu.jit import Library
from nncc.backends.cpu.target import host_features, object_code
from nncc.backends.cpu.text import Writer
from nncc.machines import load
from nncc.machines.loader import base_operations
from nncc.machines.machine import ADDRESS
from nncc.ops.integer import requantize, rounding_shift
from nncc.runtime.tta.interpreter import Meaning
from nncc.runtime.tta.translate.meaning import InMemory, computed
from nncc.runtime.tta.translate.meaning import Meaning as TranslatedMeaning
from nncc.runtime.tta.translate.values import Val, type_of

OPERATIONS = {
    name: o
    for name, o in (load("tta").operations | base_operations()).items()
    if o.kind in ("compute", "load", "store")
}


@pytest.fixture(scope="module")
def library():
    """Every operation as functions of pointers to its result and operands: `f_…` with operands in
    memory, `v_…` with values, which have more bits than the operation takes."""
    host = load("cpu", host_features())
    declarations: set[str] = set()
    texts = []
    for name, o in OPERATIONS.items():
        w = Writer(declarations, host.features)
        taken = [p.name for p in inputs(o)]
        pointers = {n: f"%p{k}" for k, n in enumerate(taken)}
        kind, value = TranslatedMeaning(o, w, InMemory(w, pointers)).value()
        w.line(f"store {kind} {value}, ptr %y, align 1")
        texts.append(defined(f"f_{name}", w, len(taken)))
        w = Writer(declarations, host.features)
        values = {}
        for k, p in enumerate(inputs(o)):
            bits = p.bits + 64 if p.bits >= 64 else 64
            values[p.name] = Val(w.define(f"load {type_of(bits)}, ptr %p{k}, align 1"), bits)
        found = computed(o, w, values)
        w.line(f"store {found.type} {found.text}, ptr %y, align 1")
        texts.append(defined(f"v_{name}", w, len(taken)))
    text = "\n".join([*texts, *sorted(declarations), attributes(host), ""])
    return Library(object_code(text, host), [f"{kind}_{n}" for n in OPERATIONS for kind in "fv"])


def defined(name, w, operands):
    w.line("ret void")
    parameters = ", ".join(["ptr %y", *(f"ptr %p{k}" for k in range(operands))])
    return f"define void @{name}({parameters}) #0 {{\nentry:\n{w.text()}\n}}"


def inputs(o):
    if o.kind == "load":
        return (o.memory,)
    return tuple(x for x in o.operands if not x.is_result and x.name != ADDRESS)


def result(o):
    return o.memory if o.kind == "store" else o.operands[-1]


def draw(rng, operand, name):
    if name in ("s", "p") and operand.dtype.name in ("i8", "u8"):
        low, high = (2, 60) if name == "s" else (0, 100)
        return rng.integers(low, high, operand.lanes).astype(operand.dtype.numpy)
    if name == "p" and operand.lanes == 8:
        return np.array([*rng.integers(-9, 9, 2), *rng.integers(0, 2**15, 2),
                         rng.integers(1, 31), 3, -90, 110], np.int32)  # fmt: skip
    bits = rng.bytes(operand.bits // 8)
    return np.frombuffer(bits, operand.dtype.numpy)


@pytest.mark.parametrize("form", ["f", "v"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_translation_equals_the_interpreter(name, form, library):
    o = OPERATIONS[name]
    rng = np.random.default_rng(random.Random(name).randrange(2**32))
    meaning = Meaning(o)
    for _ in range(20):
        arrays = [draw(rng, x, x.name) for x in inputs(o)]
        expected = meaning([int.from_bytes(a.tobytes(), "little") for a in arrays])
        found = np.zeros(256, np.uint8)
        kept = [np.ascontiguousarray(np.pad(a, (0, 64), constant_values=1)) for a in arrays]
        pointers = [found.ctypes.data, *(a.ctypes.data for a in kept)]
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers))
        signature(library[f"{form}_{name}"])(*pointers)
        size = result(o).bits // 8
        assert found[:size].tobytes() == expected.to_bytes(size, "little")


def run(name, *arrays):
    o = load("tta").operations[name]
    bits = Meaning(o)([int.from_bytes(a.tobytes(), "little") for a in arrays])
    kind = result(o)
    return np.frombuffer(bits.to_bytes(kind.bits // 8, "little"), kind.dtype.numpy)


def test_requantize_is_the_graphs():
    rng = np.random.default_rng(1)
    for _ in range(50):
        a = rng.integers(-(2**31), 2**31, 32).astype(np.int32)
        m = rng.integers(2**30, 2**31, 32).astype(np.int32)
        s = rng.integers(2, 63, 32).astype(np.int32)
        lo, z, hi = sorted(rng.integers(-128, 128, 3).tolist())
        p = np.array([z, lo, hi, 0], np.int8)
        expected = requantize(a, m, s, z, lo, hi)
        assert (run("requantize32", a, m, s, p) == expected).all()
        lo, z, hi = lo + 128, z + 128, hi + 128
        p = np.array([z, lo, hi, 0], np.uint8)
        expected = requantize(a, m, s, z, lo, hi)
        assert (run("requantize32u", a, m, s, p) == expected).all()


def test_intadd_is_the_graphs():
    rng = np.random.default_rng(2)
    for _ in range(50):
        a, b = rng.integers(-128, 128, (2, 32)).astype(np.int8)
        za, zb = rng.integers(-128, 128, 2)
        ma, mb = rng.integers(0, 2**15, 2)
        shift = rng.integers(1, 31)
        total = (a.astype(np.int64) - za) * ma + (b.astype(np.int64) - zb) * mb
        expected = np.clip(7 + rounding_shift(total, shift), -100, 120)
        p = np.array([za, zb, ma, mb, shift, 7, -100, 120], np.int32)
        assert (run("intadd32", a, b, p) == expected).all()


def test_products():
    rng = np.random.default_rng(3)
    y = rng.integers(-(2**20), 2**20, 32).astype(np.int32)
    a = rng.integers(-128, 128, 4).astype(np.int8)
    b = rng.integers(-128, 128, (32, 4)).astype(np.int8)
    wide = b.astype(np.int32)
    assert (run("dot4x32", y, a, b) == y + wide @ (a.astype(np.int32) + 128)).all()
    assert (run("dot4x32s", y, a, b) == y + wide @ a.astype(np.int32)).all()
    c = rng.integers(-128, 128, (32, 4)).astype(np.int8)
    assert (run("dot4x32v", y, c, b) == y + (wide * c).sum(axis=1)).all()
    assert (run("mac32v", y, c[:, 0], b[:, 0]) == y + wide[:, 0] * c[:, 0]).all()


def test_packed_products():
    rng = np.random.default_rng(4)
    y = rng.integers(-100, 100, 32).astype(np.int32)
    ternary_a, ternary_b = rng.integers(-1, 2, 16), rng.integers(-1, 2, (32, 16))

    def packed(values):
        return ((values & 3).astype(np.uint64) << np.arange(0, 32, 2, dtype=np.uint64)).sum(
            axis=-1
        ).astype(np.uint32)  # fmt: skip

    found = run("ternary16x32", y, packed(ternary_a), packed(ternary_b))
    assert (found == y + ternary_b @ ternary_a).all()
    bits_a, bits_b = rng.integers(0, 2, 32), rng.integers(0, 2, (32, 32))
    words = (bits_b.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1)
    word = np.array((bits_a.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum())
    found = run("binary32x32", y, word.astype(np.uint32), words.astype(np.uint32))
    assert (found == y + (2 * bits_b - 1) @ (2 * bits_a - 1)).all()


def test_thresholds():
    rng = np.random.default_rng(5)
    a = rng.integers(-50, 50, 32).astype(np.int32)
    t = rng.integers(0, 40, 32).astype(np.int32)
    zero = np.zeros(1, np.uint32)
    (word,) = run("binarize32", zero, a, t)
    assert [int(word) >> k & 1 for k in range(32)] == (a >= t).astype(int).tolist()
    signs = np.where(a > t, 1, np.where(a < -t, -1, 0))
    for half, name in enumerate(("ternarize_low", "ternarize_high")):
        (word,) = run(name, zero, a, t)
        found = [int(word) >> 2 * k & 3 for k in range(16)]
        assert found == (signs[16 * half : 16 * half + 16] & 3).tolist()
