"""Networks compiled for transport-triggered machines, run on the simulators, equal to the CPU's."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.backends.tta.compiler import Code, compile_code
from nncc.diagnostics import TargetError
from nncc.driver import build, lower
from nncc.frontend.dsl import read_nn
from nncc.ir.expr import Apply, Const, Expr, Name, apply, cast, walk
from nncc.ir.index import evaluate
from nncc.ir.scalar import FUNCTIONS
from nncc.ir.types import i8, i16, i32, i64, u8, u16, u32
from nncc.isa.tta.assembler import assemble
from nncc.isa.tta.binary import decode, encode
from nncc.isa.tta.printer import disassemble, listing
from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.passes.plan import program as program_of
from nncc.runtime.tta.model import SimulatedModel
from tests.levels.float_networks import Case
from tests.levels.integer_networks import integer_networks
from tests.tta.machines import narrowed
from tests.tta.operations import Operations

MACHINES = ("tta", "tta_minimal")


def compiled(case: Case, machine: Machine) -> tuple[Code, object, dict[str, int]]:
    sizes = {
        name: x.shape[k]
        for n, x in case.inputs.items()
        for k, name in enumerate(map(str, case.module.graph.types[n].shape))
        if name in case.module.sizes
    }
    module = lower(case.module, machine, whole=True).module
    program = program_of(module)
    return compile_code(program, machine, sizes), program.signature, sizes


def simulated(case: Case, machine: Machine, *, interpreted: bool = False):
    code, signature, sizes = compiled(case, machine)
    model = SimulatedModel(code.program, machine, code.places, interpreted=interpreted)
    outputs = [
        np.zeros([evaluate(e, sizes) for e in t.shape], t.dtype.numpy) for _, t in signature.outputs
    ]
    inputs = [np.ascontiguousarray(case.inputs[n]) for n, _ in signature.inputs]
    found = model({}, inputs, outputs)
    names = [n for n, _ in signature.outputs]
    return dict(zip(names, outputs, strict=True)), found, code


def check(case: Case, machine: Machine) -> None:
    wanted = build(lower(case.module, "cpu")).run(case.inputs)
    made, found, code = simulated(case, machine)
    for name, x in wanted.items():
        np.testing.assert_array_equal(made[name], x)
    assert found.cycles > 0
    assert decode(encode(code.program, machine), machine).instructions == code.program.instructions


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=5, deadline=None)
@given(case=integer_networks())
def test_networks(name, case):
    check(case, load(name))


@settings(max_examples=6, deadline=None)
@given(case=integer_networks(), seed=st.integers(0, 1 << 30))
def test_networks_on_other_machines(case, seed):
    check(case, narrowed(random.Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=400, deadline=None)
@given(case=integer_networks())
def test_many_networks(name, case):
    check(case, load(name))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(case=integer_networks(), seed=st.integers(0, 1 << 30))
def test_many_machines(case, seed):
    check(case, narrowed(random.Random(seed)))


@settings(max_examples=1, deadline=None)
@given(case=integer_networks())
def test_both_simulators_agree(case):
    machine = load("tta")
    made, found, _ = simulated(case, machine)
    again, counts, _ = simulated(case, machine, interpreted=True)
    assert counts == found
    for name, x in made.items():
        np.testing.assert_array_equal(again[name], x)


# -- scalars -------------------------------------------------------------------------------

_W = {t: (Name("a", t), Name("b", t)) for t in (i8, u8, i16, u16, i32, u32, i64)}
_PAIRS = ("add", "sub", "mul", "min", "max", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor")


def _expressions() -> list[Expr]:
    found: list[Expr] = [apply(fn, a, b) for a, b in _W.values() for fn in _PAIRS]
    a, b = _W[i32]
    wide = apply("mul", cast(i64, a), cast(i64, b))
    shift = Name("s", i64)
    found += [wide, apply("shr", wide, shift), apply("shl", _W[i64][0], shift)]
    found += [apply("shr", _W[i64][0], Const(n, i64)) for n in (1, 31, 32, 40)]
    found += [apply("shl", _W[i64][0], Const(n, i64)) for n in (1, 31, 32, 40)]
    found += [apply(fn, a, Const(d, i32)) for fn in ("floordiv", "mod", "div") for d in (3, 10, 16)]
    found += [Apply("cast", (_W[i64][0],), t) for t in _W if t is not i64]
    found += [Apply("cast", (x,), t) for (x, _) in _W.values() for t in (i8, u8, i32, i64)]
    found.append(apply("select", apply("lt", a, b), *_W[i64]))
    found += [apply(fn, x) for (x, _) in _W.values() for fn in ("neg", "not", "abs")]
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_scalar_expressions(name):
    operations = Operations(load(name))
    rng = np.random.default_rng(0)
    for e in _expressions():
        names = {x.name: x.dtype for x in walk(e) if isinstance(x, Name)}
        code = operations.expression(e, names)
        for _ in range(12):
            values = {n: _number(rng, n, t) for n, t in names.items()}
            assert code(values) == _meaning(e, values), (e, values)


def _number(rng, name, dtype) -> int:
    lo, hi = (1, 62) if name == "s" else dtype.limits
    near = [v for v in (0, 1, -1, lo, hi) if lo <= v <= hi]
    return int(rng.choice([*near, *rng.integers(lo, hi, 4, dtype.numpy, endpoint=True).tolist()]))


def _meaning(e: Expr, values: dict[str, int]) -> int:
    def at(x: Expr) -> np.ndarray:
        if isinstance(x, Const):
            return np.array([x.value]).astype(x.dtype.numpy)
        if isinstance(x, Name):
            return np.array([values[x.name]]).astype(x.dtype.numpy)
        assert isinstance(x, Apply)
        args = [at(a) for a in x.args]
        if x.fn == "cast":
            return args[0].astype(x.dtype.numpy)
        with np.errstate(all="ignore"):
            return FUNCTIONS[x.fn].numpy(np, *args).astype(x.dtype.numpy)

    return int(at(e)[0])


# -- what does not fit ---------------------------------------------------------------------


def test_memory_that_is_too_small_is_refused():
    from tests.tta.networks import convolution

    machine = load("tta")
    a = machine.architecture
    spaces = tuple(replace(s, max_address=4095) if s.name == "dmem" else s for s in a.spaces)
    small = replace(machine, architecture=replace(a, spaces=spaces))
    with pytest.raises(
        TargetError, match=r"needs \d+ bytes of memory 'dmem'; machine 'tta' has 4096"
    ):
        compiled(convolution(32, 32, 1, 16), small)


@pytest.mark.parametrize("name, space", [("tta", "dmem"), ("tta_minimal", "data")])
def test_the_listing_names_nodes_and_tensors(name: str, space: str) -> None:
    module = read_nn("""nncc 1
        param w: i8[32,4,3,3] = 1
        graph g(image: i8[1,4,5,5]) -> (y: i32[1,32,3,3]) {
          y = IntConv(image, w) at "conv\\nA"
        }""")
    machine = load(name)
    case = Case(module, None, {"image": np.zeros((1, 4, 5, 5), np.int8)})
    program = compiled(case, machine)[0].program
    lines = listing(program, machine).splitlines()
    assert "-- conv\\nA" in lines
    reads = [line for line in lines if re.search(rf"# .*{space}: image\b(?!\.)", line)]
    assert reads and all(".ld" in line for line in reads)
    found = assemble(disassemble(program, machine), machine)
    assert found.instructions == program.instructions
