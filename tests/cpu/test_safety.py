"""Nothing that a user gives makes native code touch memory outside of its buffers, or be wrong."""

from __future__ import annotations

import numpy as np
import pytest

import nncc
from nncc.diagnostics import NnccError
from nncc.frontend.dsl import read_nn
from tests.levels.harness import machines

GATHER = """nncc 1
size N
graph main(x: f32[8,33], i: i64[N]) -> (y) { y = Gather(x, i) }
"""


@pytest.fixture(scope="module")
def gather() -> nncc.Executable:
    return nncc.compile(read_nn(GATHER))


def test_indices_count_from_both_ends(gather) -> None:
    x = np.random.default_rng(0).random((8, 33)).astype(np.float32)
    i = np.array([0, 7, -1, -8])
    np.testing.assert_array_equal(gather.run({"x": x, "i": i})["y"], x[i])


@pytest.mark.parametrize("wrong", [8, -9, 1 << 40, -(1 << 63), (1 << 63) - 1])
def test_an_index_out_of_range_is_told(gather, wrong: int) -> None:
    x = np.zeros((8, 33), np.float32)
    with pytest.raises(NnccError, match=r"'y': an index in '\w+' is not in -8..8"):
        gather.run({"x": x, "i": np.array([1, wrong, 2])})
    gather.run({"x": x, "i": np.array([1])})


def test_an_artifact_tells_it_too(gather, tmp_path) -> None:
    gather.save(tmp_path / "gather")
    assert "is not in -8..8" in next((tmp_path / "gather").glob("*.h")).read_text()
    with pytest.raises(NnccError, match=r"is not in -8\.\.8"):
        nncc.load(tmp_path / "gather").run({"x": np.zeros((8, 33), np.float32), "i": np.array([9])})


def test_declared_bounds_of_definitions_are_checked() -> None:
    net = nncc.compile(read_nn(
        "nncc 1\nsize N\n"
        "def pick(x: f32[4,C], k: i32[N]) -> (y: f32[N,C]) { y[i,j] = x[(k[i] in 0..4), j] }\n"
        "graph main(x: f32[4,3], k: i32[N]) -> (y) { y = pick(x, k) }\n"
    ))  # fmt: skip
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(
        net.run({"x": x, "k": np.array([3, 0], np.int32)})["y"], x[[3, 0]]
    )
    with pytest.raises(NnccError, match=r"is not in 0\.\.4"):
        net.run({"x": x, "k": np.array([0, -1], np.int32)})


LAYOUTS = {
    "(0 : 1)": "share a place",
    "(d0 : 0)": "not surely in",
    "(d0 : 1)": "not surely in",
    "(d0 // 2, d0 % 2 : 8, 1)": "not surely in",
    "(d0 // 4, d0 % 2 : 4, 2)": "share a place",
    "(d0 + 1 : 17)": "cannot be proved",
    "(d0 : N)": "not surely in",
}


def layout(text: str) -> str:
    return (
        "nncc 1\nsize N\ngraph main(x: f32[16], n: f32[N]) -> (y, m) {\n"
        f"z: f32[16] @ {text} = Relu(x)\ny = Exp(z)\nm = Relu(n)\n}}\n"
    )


@pytest.mark.parametrize("text", LAYOUTS)
def test_layouts_are_proved(text: str) -> None:
    with pytest.raises(NnccError, match=LAYOUTS[text]):
        read_nn(layout(text))


@pytest.mark.parametrize("text", ["(d0 : 16)", "(d0 // 4, d0 % 4 : 4, 4)", "(d0 : N + 15)"])
def test_right_layouts(text: str) -> None:
    read_nn(layout(text))


def test_hand_written_nests_write_all_of_their_outputs() -> None:
    nest = (
        "nncc 1\ngraph main(x: f32[4]) -> (y) { y = Relu(x) }\n"
        "nest n(in x: f32[4], out y: f32[4]) {\n  s: for i in 0..%d { y[i] = x[i] }\n}\n"
    )
    read_nn(nest % 4)
    with pytest.raises(NnccError, match="not all of it is surely written"):
        read_nn(nest % 3)


NARROWED = """nncc 1
size N
graph main(a: i8[N,6,3,2], b: u8[N,6,3,2]) -> (y: i8[N,6,3,2]) {
  y = IntAdd(a, b) {za=-128, zb=0, ma=7246, mb=23868, s=1, z=66, lo=48, hi=127, to=i8}
}"""


@pytest.mark.parametrize("machine", machines())
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_last_elements_of_a_vector_are_stored_alone(machine: str, n: int) -> None:
    """Not with bytes behind the output, as a masked store of one narrowed lane did."""
    net = nncc.compile(read_nn(NARROWED), machine)
    rng = np.random.default_rng(n)
    a = rng.integers(-128, 128, (n, 6, 3, 2)).astype(np.int8)
    b = rng.integers(0, 256, (n, 6, 3, 2)).astype(np.uint8)
    room = np.full(a.size + 128, 77, np.int8)
    net.run_into({"a": a, "b": b}, {"y": room[64:-64].reshape(a.shape)})
    assert (room[:64] == 77).all() and (room[-64:] == 77).all()
    np.testing.assert_array_equal(room[64:-64].reshape(a.shape), net.run({"a": a, "b": b})["y"])
