"""Whole models: memory plan, main function, calls from Python."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nncc.backends.cpu import compiler
from nncc.diagnostics import NnccError, PassError, TargetError
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import evaluate
from nncc.ir.interpreter.loops import interpret
from nncc.ir.program import MAIN, RESET
from nncc.ir.tensor import Tensor
from nncc.ir.types import TensorType, f32
from nncc.ir.verify_loops import verify_functions
from nncc.machines import load
from nncc.passes.plan import memory_plan, program
from tests.cpu.models import WEIGHTS, WIDTH, N, add, compiled, planned, running_sum, scale


def expected_y(x: np.ndarray) -> np.ndarray:
    a = x * WEIGHTS
    return np.asarray(a + a * WEIGHTS)


def image(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, WIDTH)).astype(np.float32)


def test_one_compilation_runs_every_batch() -> None:
    net = compiled(running_sum())
    for batch in (1, 7, 256, 3):
        net.reset()
        total = np.full((batch, WIDTH), 0.5, np.float32)
        for call in range(3):
            x = image(batch, call)
            result = net.run({"x": x})
            total = total + expected_y(x)
            np.testing.assert_allclose(result["y"], expected_y(x), rtol=1e-6)
            np.testing.assert_allclose(result["next"], total, rtol=1e-5)


def test_interpreter_runs_the_main_function() -> None:
    module = planned(running_sum())
    verify_functions(module.functions)
    plan = program(module)
    batch, x = 3, image(3)
    size = {"N": batch}
    state = np.zeros(evaluate(plan.memory.state_bytes, size), np.uint8)
    arena = np.zeros(evaluate(plan.memory.arena_bytes, size), np.uint8)
    weights = plan.weights_block()
    interpret(module.functions, RESET, [weights, state], [batch])
    y, following = np.zeros_like(x), np.zeros_like(x)
    for call in (1, 2):
        interpret(module.functions, MAIN, [x, y, following, weights, state, arena], [batch])
        np.testing.assert_allclose(y, expected_y(x), rtol=1e-6)
        np.testing.assert_allclose(following, 0.5 + call * expected_y(x), rtol=1e-5)


def test_state_belongs_to_its_sizes() -> None:
    net = compiled(running_sum())
    net.run({"x": image(2)})
    with pytest.raises(NnccError, match="state is that of calls with N = 2"):
        net.run({"x": image(3)})
    net.reset()
    assert net.run({"x": image(3)})["y"].shape == (3, WIDTH)


def test_run_into_writes_the_given_arrays() -> None:
    net = compiled(running_sum())
    x = image(4)
    out = {"y": np.empty_like(x), "next": np.empty_like(x)}
    for _ in range(2):
        net.run_into({"x": x}, out)
    np.testing.assert_allclose(out["y"], expected_y(x), rtol=1e-6)
    np.testing.assert_allclose(out["next"], 0.5 + 2 * expected_y(x), rtol=1e-5)
    with pytest.raises(NnccError, match="output 'y' shares memory"):
        net.run_into({"x": x}, {**out, "y": x})
    with pytest.raises(NnccError, match="output 'next' is float64"):
        net.run_into({"x": x}, {**out, "next": x.astype(np.float64)})
    with pytest.raises(NnccError, match="output 'next' is missing"):
        net.run_into({"x": x}, {"y": out["y"]})
    with pytest.raises(NnccError, match="output 'next' is no array but of type list"):
        net.run_into({"x": x}, {**out, "next": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(NnccError, match="outputs are given as arrays by name, not as ndarray"):
        net.run_into({"x": x}, x)  # type: ignore[arg-type]
    for wrong in (np.empty((WIDTH, 4), np.float32).T, np.broadcast_to(x[:1], x.shape)):
        with pytest.raises(NnccError, match="output 'next' is not a writable C-contiguous array"):
            net.run_into({"x": x}, {**out, "next": wrong})


def test_threads_may_call_one_executable() -> None:
    """Each call sees its own inputs and outputs, and no call of a state is lost."""
    net = compiled(running_sum())
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = image(5, seed)
        expected = expected_y(x)
        for call in range(50):
            if not np.allclose(net.run({"x": x})["y"], expected, rtol=1e-6):
                wrong.append(call)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    zero = np.zeros((5, WIDTH), np.float32)
    total = 0.5 + 50 * sum(expected_y(image(5, seed)) for seed in range(4))
    np.testing.assert_allclose(net.run({"x": zero})["next"], total, rtol=1e-3, atol=1e-3)


def test_arrays_may_lie_at_any_address() -> None:
    net = compiled(running_sum())
    x = image(3)
    room = np.zeros(x.nbytes + 1, np.uint8)
    odd = room[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    np.testing.assert_allclose(net.run({"x": odd})["y"], expected_y(x), rtol=1e-6)


def test_arrays_that_change_their_place_are_noticed() -> None:
    net = compiled(running_sum())
    for k in range(20):  # freed arrays' addresses come again
        x = image(2, k)
        net.reset()
        np.testing.assert_allclose(net.run({"x": x})["y"], expected_y(x), rtol=1e-6)


def test_strided_inputs_are_copied() -> None:
    net = compiled(running_sum())
    wide = np.random.default_rng(0).standard_normal((4, 2 * WIDTH)).astype(np.float32)
    np.testing.assert_allclose(
        net.run({"x": wide[:, ::2]})["y"], expected_y(wide[:, ::2]), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        (image(1), "inputs are given as arrays by name, not as ndarray"),
        ([image(1)], "inputs are given as arrays by name, not as list"),
        (None, "inputs are given as arrays by name, not as NoneType"),
        ({"x": [[1], [1, 2]]}, "input 'x' is no array"),
        ({"x": None}, "input 'x' has dtype object"),
        ({"x": image(1).astype(">f4")}, "input 'x' has dtype >f4, not float32"),
        ({"X": image(1)}, "there is no input 'X'"),
        ({"x": image(1), "w": image(1)}, "there is no input 'w'"),
        ({"x": image(1).astype(np.float64)}, "input 'x' has dtype float64, not float32"),
        ({"x": image(1)[0]}, "input 'x' has 1 dimensions, not 2"),
        ({"x": image(2).reshape(4, 5)}, r"input 'x' has shape \[4, 5\], not \[4, 10\]"),
        ({"x": np.zeros((0, WIDTH), np.float32)}, "dimension 0 of input 'x' is 0"),
    ],
)
def test_wrong_inputs(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(NnccError, match=message):
        compiled(running_sum()).run(inputs)


def test_absurd_sizes_are_refused_before_memory_is_taken() -> None:
    net = compiled(running_sum())
    huge = np.broadcast_to(np.float32(0), (1 << 38, WIDTH))
    with pytest.raises(NnccError, match=r"needs .* GiB|too large"):
        net.run({"x": huge})


def test_threads_are_refused() -> None:
    with pytest.raises(TargetError, match="threads=2"):
        compiler.compile_program(program(planned(running_sum())), load("cpu"), threads=2)


def test_outputs_that_no_call_writes() -> None:
    """An input, a constant, a repeated output and an alias as outputs."""
    full = TensorType(f32, (N, WIDTH))
    flat = TensorType(f32, (WIDTH * N,))
    nodes = (
        Node("Call", ("x", "w"), ("a",), {"callee": "scale"}),
        Node("Reshape", ("a", "shape"), ("flat",)),
        Node("Call", ("flat", "a"), ("b",), {"callee": "add"}),
    )
    types = {"x": full, "a": full, "flat": flat, "b": full}
    graph = Graph("main", ("x",), ("x", "w", "b", "flat", "a"), nodes, types)
    symbols = {"w": Symbol("param", Tensor(WEIGHTS))}
    module = Module(graph, ("N",), symbols, functions={"scale": scale(), "add": add()})
    x = image(5)
    result = compiled(module).run({"x": x})
    np.testing.assert_array_equal(result["x"], x)
    np.testing.assert_array_equal(result["w"], WEIGHTS)
    np.testing.assert_allclose(result["a"], x * WEIGHTS, rtol=1e-6)
    np.testing.assert_allclose(result["flat"], (x * WEIGHTS).reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(result["b"], 2 * x * WEIGHTS, rtol=1e-6)


def test_states_that_exchange_their_values() -> None:
    full = TensorType(f32, (WIDTH,))
    graph = Graph("main", ("x",), ("p", "q"), (), {"x": full}, (("p", "q"), ("q", "p")))
    one, two = (np.full(WIDTH, v, np.float32) for v in (1, 2))
    symbols = {"p": Symbol("state", Tensor(one)), "q": Symbol("state", Tensor(two))}
    net = compiled(Module(graph, (), symbols))
    seen = [net.run({"x": one})["p"][0] for _ in range(4)]
    assert seen == [1, 2, 1, 2]


def test_plan_wants_calls() -> None:
    full = TensorType(f32, (1,))
    graph = Graph("main", ("x",), ("y",), (Node("Relu", ("x",), ("y",)),), {"x": full, "y": full})
    with pytest.raises(PassError, match="Relu is no call yet"):
        planned(Module(graph))
    with pytest.raises(PassError, match="no main function"):
        program(Module(graph))


def test_memory_plan_shares_places() -> None:
    memory = memory_plan(running_sum())
    a, b = memory.of("a"), memory.of("b")
    assert a is not None and b is not None and a.offset != b.offset
    # the scratch memory of the last call lies where a or b was
    last = memory.of("t of call 3")
    assert last is not None and last.offset in (a.offset, b.offset)
    weight = memory.of("w")
    assert weight is not None and (weight.space, weight.offset) == ("weights", 0)
