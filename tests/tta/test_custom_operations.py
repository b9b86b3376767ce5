"""Operations that a machine file adds are found by the compiler wherever they compute the same.

One operation, one piece of code in index notation that says it in other words; the operation must
stand in the program, take cycles off it, and give what the CPU gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nncc.driver import build, lower
from nncc.frontend.dsl import read_nn
from nncc.ir.graph import Module
from nncc.machines import load

UNIT = '''
[[operation]]
name = "{name}"
semantics = """
{semantics}"""

[[architecture.unit]]
name = "extra"
width = {width}
operations = ["{name}"]
ports = {{ {ports} }}
bind = {{ {bind} }}
'''


def elementwise(expression: str, *names: str, dtype: str = "i32", count: int = 64) -> str:
    """A graph that computes an expression of `names` at [n,k]."""
    declared = ", ".join(f"{n}: {dtype}[N,K]" for n in names)
    inputs = ", ".join(f"{n}: {dtype}[2,{count}]" for n in names)
    for n in names:
        expression = re.sub(rf"\b{n}\b", f"{n}[n,k]", expression)
    return (
        f"nncc 1\ndef f({declared}) -> (y: {dtype}[N,K]) {{ y[n,k] = {expression} }}\n"
        f"graph g({inputs}) -> (y: {dtype}[2,{count}]) {{ y = f({', '.join(names)}) }}"
    )


def product(term: str) -> str:
    """A graph that sums a term of a row of x and a row of w."""
    term = term.replace("x", "cast(i32, x[n,c])").replace("w", "cast(i32, w[m,c])")
    return (
        "nncc 1\ndef f(x: i8[N,C], w: i8[M,C]) -> (y: i32[N,M]) "
        f"{{ y[n,m] = sum(c)({term}) }}\n"
        "graph g(x: i8[2,16], w: i8[4,16]) -> (y: i32[2,4]) { y = f(x, w) }"
    )


SCALAR = {
    "satadd": ("a, b", "y[] = min(max(a[] + b[], -128), 127)",
               elementwise("min(127, max(-128, v + u))", "u", "v")),
    "field": ("a, b, c", "y[] = (a[] >> b[]) & c[]", elementwise("15 & (u >> 5)", "u")),
    "add3": ("a, b, c", "y[] = a[] + b[] + c[]", elementwise("u + (v + t)", "u", "v", "t")),
    "clamp": ("a, b, c", "y[] = min(max(a[], b[]), c[])",
              elementwise("min(100, max(u, -9))", "u")),
    "average": ("a, b", "y[] = (a[] + b[] + 1) >> 1", elementwise("(1 + v + u) >> 1", "u", "v")),
    "leaky_max": ("a", "y[] = max(a[], (a[] * 13) >> 7)",
                  elementwise("max((13 * u) >> 7, u)", "u")),
    "leaky_less": ("a, b", "y[] = select(a[] < 0, (a[] * b[]) >> 7, a[])",
                   elementwise("select(0 > u, (u * 13) >> 7, u)", "u")),
    "leaky_not_less": ("a, b", "y[] = select(a[] >= 0, a[], (a[] * b[]) >> 7)",
                       elementwise("select(u < 0, (u * 13) >> 7, u)", "u")),
    "mac": ("y.old, a, b", "y[] sum= a[] * b[]", product("w * x")),
    "sad": ("y.old, a, b", "y[] sum= abs(a[] - b[])", product("abs(x - w)")),
    "squares": ("y.old, a, b", "y[] sum= (a[] - b[]) * (a[] - b[])", product("(x - w) * (x - w)")),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALAR)
def test_scalar_operation_is_selected(name: str, tmp_path: Path) -> None:
    operands, statement, program = SCALAR[name]
    inputs = ", ".join(f"in {n}: i32[]" for n in operands.split(", ") if n != "y.old")
    semantics = f"nest {name}(out y: i32[], {inputs}) {{ s: {{ {statement} }} }}"
    ports = [*operands.split(", "), "y"]
    check("tta_minimal", name, semantics, ports, ["B1"] * len(ports), read_nn(program), tmp_path)


VECTOR = {
    "satadd8x32": (
        "y: i8[32], in a: i8[32], in b: i8[32]",
        "y[m] = cast(i8, min(max(cast(i32, a[m]) + cast(i32, b[m]), -128), 127))",
        elementwise("cast(i8, min(max(cast(i32, u) + cast(i32, v), -128), 127))", "u", "v",
                    dtype="i8"),
    ),
    "leaky8x32": (
        "y: i8[32], in a: i8[32], in b: i32[]",
        "y[m] = cast(i8, max(cast(i32, a[m]), (cast(i32, a[m]) * b[]) >> 7))",
        elementwise("cast(i8, max(cast(i32, u), (cast(i32, u) * 13) >> 7))", "u", dtype="i8"),
    ),
    "field32": (
        "y: i32[32], in a: i32[32], in b: i32[], in c: i32[]", "y[m] = (a[m] >> b[]) & c[]",
        elementwise("(u >> 5) & 15", "u"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTOR)
def test_vector_operation_is_selected(name: str, tmp_path: Path) -> None:
    operands, statement, program = VECTOR[name]
    semantics = f"nest {name}(out {operands}) {{ s: for m in 0..32 {{ {statement} }} }}"
    operation = dict(re.findall(r"(\w+): i\d+\[(32)?\]", operands))
    ports = [n for n in operation if n != "y"] + ["y"]
    buses = ["v" if operation[n] else "s" for n in ports]
    check("tta", name, semantics, ports, buses, read_nn(program), tmp_path)


def check(
    base: str, name: str, semantics: str, ports: Sequence[str], buses: Sequence[str],
    module: Module, folder: Path,
) -> None:  # fmt: skip
    """Compiles for the base machine and for one with the operation; results equal the CPU's."""
    spelled = {p: "acc" if p == "y.old" else p for p in ports}
    trigger = next(p for p in ports if p not in ("y.old", "y"))
    declared = ", ".join(
        f'{spelled[p]} = {{ reaches = ["{bus}"]{", triggers = true" if p == trigger else ""}'
        f"{', width = 32' if bus == 's' else ''} }}"
        for p, bus in zip(ports, buses, strict=True)
    )
    unit = UNIT.format(
        name=name, semantics=semantics, ports=declared, width=1024 if "v" in buses else 32,
        bind=", ".join(f'"{p}" = "{s}"' for p, s in spelled.items()),
    )  # fmt: skip
    file = folder / "custom.toml"
    file.write_text(load(base).file[1] + unit, "utf-8")
    rng = np.random.default_rng(0)
    inputs = {}
    for n in module.graph.inputs:
        t = module.graph.types[n]
        inputs[n] = rng.integers(-100, 100, t.static_shape, t.dtype.numpy)
    expected = build(lower(module)).run(inputs)["y"]
    cycles = []
    for target in (load(base), load(file)):
        program = build(lower(module, target))
        np.testing.assert_array_equal(program.run(inputs)["y"], expected)
        assert program.statistics is not None
        cycles.append(program.statistics.cycles)
    assert program.statistics.operations[name].count > 0
    assert cycles[1] < cycles[0]
