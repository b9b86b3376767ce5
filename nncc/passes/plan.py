"""Lay out the memory of a model and write its main function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np

from nncc.diagnostics import PassError
from nncc.ir.bounds import nonnegative
from nncc.ir.graph import Graph, Module, Node, Symbol
from nncc.ir.index import Size, ceildiv, product, var
from nncc.ir.loops import Buffer, Call, Function, Stmt, View
from nncc.ir.packing import pack
from nncc.ir.program import (
    ALIGNMENT,
    ARENA,
    BLOCKS,
    MAIN,
    RESET,
    STATE,
    WEIGHTS,
    MemoryPlan,
    Placement,
    Program,
    Signature,
)  # fmt: skip
from nncc.ir.types import u8
from nncc.machines.machine import Machine
from nncc.ops.table import TABLE
from nncc.passes.base import Pass
from nncc.passes.copies import COPY, FILL, copy_function, fill_function
from nncc.passes.placement import Interval, aligned, place
from nncc.passes.views import is_view

CALLS = ("Call", "Run")  # the ops that name a function


@dataclass(frozen=True)
class Plan(Pass):
    """Give every tensor its memory and write `main`, which calls the functions of the nests.

    Weights, state and intermediate tensors live in one block of bytes each; intermediates that
    are not alive at the same time share their place.

    y = Call(x, w) {callee="conv1"}  →  function main(x, y, weights, state, arena; N) {
                                            conv1(x, weights + 64, arena + 4096*N; N) … }
    """

    name: ClassVar[str] = "plan"

    def run(self, module: Module, target: Machine) -> Module:
        planner = Planner(module)
        functions = dict(module.functions) | planner.functions()
        return module if functions == module.functions else replace(module, functions=functions)


def memory_plan(module: Module) -> MemoryPlan:
    """Where everything lives, for a module of calls (after `emit`). Raises PassError."""
    return Planner(module).memory


def program(module: Module, name: str = "model") -> Program:
    """What a back end needs of a planned module: functions, memory, packed weights.

    Raises PassError if the module has no main function.
    """
    if MAIN not in module.functions:
        raise PassError("the module has no main function", help="run the pass 'plan' first")
    planner = Planner(module)
    planned = planner.functions()
    if changed := sorted(name for name, f in planned.items() if module.functions.get(name) != f):
        raise PassError(
            f"function '{changed[0]}' is not what 'plan' makes of the graph",
            help="run 'plan' again",
        )
    ends = (*module.graph.inputs, *module.graph.outputs)
    signature = Signature(
        tuple((n, module.type_of(n)) for n in module.graph.inputs),
        tuple((n, module.type_of(n)) for n in module.graph.outputs),
        module.sizes,
    )
    return Program(
        name, signature, module.functions, planner.memory, planner.packed_weights(),
        _doubtful_extents(module),
        {n: module.graph.layouts[n] for n in ends if n in module.graph.layouts},
        _macs(module),
    )  # fmt: skip


def _macs(module: Module) -> dict[str, int]:
    """Multiply-accumulates by node, as far as nodes state them."""
    found: dict[str, int] = {}
    for node in module.graph.nodes:
        count = node.attrs.get("macs", 0)
        if node.op == "Run" and isinstance(count, int) and count:
            found[node.name] = found.get(node.name, 0) + count
    return found


def _doubtful_extents(module: Module) -> tuple[Size, ...]:
    """Extents of tensors that are not at least 1 for all sizes: a window may not fit into x."""
    types = [*module.graph.types.values()]
    types += [p.type for nest in module.nests.values() for p in nest.params]
    extents = dict.fromkeys(e for t in types for e in t.shape if not isinstance(e, int))
    return tuple(e for e in extents if not nonnegative(e - 1))


@dataclass
class _Tensor:
    """A value in memory: its bytes and the calls between which it is alive."""

    bytes: Size
    first: int
    last: int


@dataclass
class Planner:
    """The memory of one module and the calls that use it.

    Attributes:
        module: its graph holds calls and aliases only.
        calls: the nodes that become calls, in order; their numbers are the times of lifetimes.
        home: for each value, the value whose memory it is in (an alias's source).
    """

    module: Module
    calls: list[Node] = field(init=False)
    home: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)  # home -> output that it is written to
    memory: MemoryPlan = field(init=False)

    def __post_init__(self) -> None:
        graph = self.module.graph
        self.calls = []
        for node in graph.nodes:
            if _is_alias(node) or self._is_view(node):
                self.home[node.outputs[0]] = self.home_of(node.inputs[0])
            elif node.op in CALLS:
                self.calls.append(node)
            else:
                raise PassError(f"{node.op} is no call yet; lower it first", node.location)
        made = {o for n in self.calls for o in n.outputs if o}
        for o in graph.outputs:
            if self.home_of(o) in made:
                self.outputs.setdefault(self.home_of(o), o)
        self.memory = self.placed()

    def _is_view(self, node: Node) -> bool:
        nest = self.module.nests.get(str(node.attrs.get("callee", "")))
        return node.op == "Call" and nest is not None and is_view(nest)

    def home_of(self, name: str) -> str:
        return self.home.get(name, name)

    def bytes_of(self, name: str) -> Size:
        """Of a value or symbol in the layout of its buffer."""
        layout, t = self.module.graph.layouts.get(name), self.module.type_of(name)
        return ceildiv(product(layout.extents) * t.dtype.bits, 8) if layout else t.bytes

    # -- placement -------------------------------------------------------------------------
    def placed(self) -> MemoryPlan:
        end = len(self.calls)
        weights, weights_bytes = self.in_sequence("weights", self.constants())
        states = {n: self.bytes_of(n) for n in self.states()}
        state, state_bytes = self.in_sequence("state", states)
        alive = self.intermediates()
        offsets, arena_bytes = place(
            [Interval(n, t.bytes, t.first, t.last) for n, t in alive.items()]
        )
        arena = [
            Placement(n, "arena", offsets[n], t.bytes, t.first, t.last) for n, t in alive.items()
        ]
        assert isinstance(weights_bytes, int), "constants have static shapes"
        states_alive = [replace(p, last=end) for p in state]
        return MemoryPlan(
            (*weights, *states_alive, *arena), weights_bytes, state_bytes, arena_bytes
        )

    def in_sequence(self, space: str, tensors: Mapping[str, Size]) -> tuple[list[Placement], Size]:
        """Tensors one after the other."""
        placements: list[Placement] = []
        end: Size = 0
        for name, size in tensors.items():
            placements.append(Placement(name, space, end, size, 0, len(self.calls)))  # type: ignore[arg-type]
            end = end + aligned(size)
        return placements, end

    def states(self) -> tuple[str, ...]:
        return tuple(n for n, s in self.module.symbols.items() if s.kind == "state")

    def constants(self) -> dict[str, Size]:
        """Constants in order of their first use, then the first values of the states."""
        graph, symbols = self.module.graph, self.module.symbols
        names = [i for n in self.calls for i in n.inputs]
        names += [*graph.outputs, *(v for _, v in graph.updates)]
        homes = dict.fromkeys(self.home_of(n) for n in names if n)
        found = {n: self.bytes_of(n) for n in homes if n in symbols and n not in self.states()}
        first = {_first(n): self.bytes_of(n) for n in self.states() if not symbols[n].declared}
        return found | first

    def intermediates(self) -> dict[str, _Tensor]:
        """What the arena holds: values between calls, scratch of calls, staged updates."""
        graph, end = self.module.graph, len(self.calls)
        alive: dict[str, _Tensor] = {}
        for k, node in enumerate(self.calls):
            for name, size in self.results(k, node):
                if name not in self.outputs:
                    alive[name] = _Tensor(size, k, k)
            for i in node.inputs:
                if i and self.home_of(i) in alive:
                    alive[self.home_of(i)].last = k
        for name in (*graph.outputs, *(v for _, v in graph.updates)):
            if self.home_of(name) in alive:
                alive[self.home_of(name)].last = end
        for state, value in self.staged():
            alive[_staged(state)] = _Tensor(self.bytes_of(value), end, end)
        return alive

    def results(self, k: int, node: Node) -> list[tuple[str, Size]]:
        """What call number k writes: its outputs, unused ones, and its scratch memory."""
        function = self.callee(node)
        written = [b for b in function.buffers if b.access == "out"]
        scratch = [b for b in function.buffers if b.access == "local"]
        names = [o or _private(k, b) for o, b in zip(node.outputs, written, strict=True)]
        sizes = [
            self.bytes_of(o) if o else b.bytes for o, b in zip(node.outputs, written, strict=True)
        ]
        return [*zip(names, sizes, strict=True), *((_private(k, b), b.bytes) for b in scratch)]

    def callee(self, node: Node) -> Function:
        name = str(node.attrs["callee"])
        if name not in self.module.functions:
            raise PassError(f"there is no function '{name}' to call", node.location)
        return self.module.functions[name]

    def staged(self) -> list[tuple[str, str]]:
        """Updates whose new value is another state: read before any state is written."""
        states = set(self.states())
        return [(s, v) for s, v in self.module.graph.updates if self.home_of(v) in states]

    # -- code ------------------------------------------------------------------------------
    def functions(self) -> dict[str, Function]:
        """`main`, `reset` and the functions that they need besides those of the nests."""
        if clash := {MAIN, RESET} & {n.attrs.get("callee") for n in self.calls}:
            raise PassError(f"a nest has the reserved name '{sorted(map(str, clash))[0]}'")
        main, reset = self.main(), self.reset()
        made = {MAIN: main, RESET: reset, **self.fills()}
        called = {s.callee for f in (main, reset) for s in f.body if isinstance(s, Call)}
        return made | ({COPY: copy_function()} if COPY in called else {})

    def main(self) -> Function:
        graph = self.module.graph
        body: list[Stmt] = []
        for k, node in enumerate(self.calls):
            body.append(self.call(k, node))
        for o in graph.outputs:
            if self.outputs.get(self.home_of(o)) != o:
                body.append(self.copy(View(_output(graph, o)), self.view(o), self.bytes_of(o)))
        staged = dict(self.staged())
        for s, v in staged.items():
            body.append(self.copy(self.view(_staged(s)), self.view(v), self.bytes_of(v)))
        for s, v in graph.updates:
            source = self.view(_staged(s) if s in staged else v)
            body.append(self.copy(self.view(s), source, self.bytes_of(s)))
        inputs = [self.argument(n, n, "in") for n in graph.inputs]
        outputs = [self.argument(_output(graph, n), n, "out") for n in graph.outputs]
        blocks = [_block(WEIGHTS, self.memory.weights_bytes, "in"),
                  _block(STATE, self.memory.state_bytes, "out"),
                  _block(ARENA, self.memory.arena_bytes, "out")]  # fmt: skip
        return Function(MAIN, (*inputs, *outputs, *blocks), self.module.sizes, tuple(body))

    def argument(self, name: str, value: str, access: str) -> Buffer:
        """The argument of `main` for an input or output."""
        layout, t = self.module.graph.layouts.get(value), self.module.type_of(value)
        shape = t.shape if layout is None else layout.extents
        return Buffer(name, t.dtype, shape, access, alignment=max(t.dtype.bits // 8, 1))  # type: ignore[arg-type]

    def call(self, k: int, node: Node) -> Call:
        function = self.callee(node)
        inputs = iter(i for i in node.inputs if i)
        results = iter(name for name, _ in self.results(k, node))
        order = {"in": inputs, "out": results, "local": results}
        named = {b.name: next(order[b.access]) for b in _by_role(function)}
        for b in function.buffers:
            self.check_argument(node, b, named[b.name])
        arguments = tuple(self.view(named[b.name]) for b in function.buffers)
        return Call(str(node.attrs["callee"]), arguments, _sizes(function), node.name)

    def check_argument(self, node: Node, buffer: Buffer, value: str) -> None:
        """The callee takes as many elements as the value has. Raises PassError."""
        if value not in self.module.graph.types and value not in self.module.symbols:
            return  # private to the call
        layout, t = self.module.graph.layouts.get(value), self.module.type_of(value)
        wanted, given = product(buffer.shape), product(layout.extents if layout else t.shape)
        # what an operation on memory reads as signed bytes may be unsigned ones, less 128
        same = buffer.dtype is t.dtype or (node.op == "Run" and buffer.dtype.bits == t.dtype.bits)
        if not same or wanted != given:
            raise PassError(
                f"function '{node.attrs['callee']}' takes {buffer.dtype} of {wanted} elements as "
                f"'{buffer.name}'; its argument '{value}' is {t.dtype} of {given}",
                node.location,
            )

    def view(self, name: str) -> View:
        """The memory of a value or symbol."""
        home = self.home_of(name)
        if home in self.outputs:
            return View(_output(self.module.graph, self.outputs[home]))
        placement = self.memory.of(home)
        return View(BLOCKS[placement.space], placement.offset) if placement else View(home)

    def copy(self, to: View, source: View, size: Size) -> Call:
        return Call(COPY, (source, to), (size,))

    def reset(self) -> Function:
        """Writes the first value of every state."""
        body: list[Stmt] = []
        for name in self.states():
            if self.module.symbols[name].declared:
                elements = self.elements(name)
                body.append(Call(f"{FILL}.{name}", (self.view(name),), (elements,)))
            else:
                source = self.view(_first(name))
                body.append(self.copy(self.view(name), source, self.bytes_of(name)))
        blocks = (_block(WEIGHTS, self.memory.weights_bytes, "in"),
                  _block(STATE, self.memory.state_bytes, "out"))  # fmt: skip
        return Function(RESET, blocks, self.module.sizes, tuple(body))

    def elements(self, name: str) -> Size:
        layout = self.module.graph.layouts.get(name)
        return product(layout.extents) if layout else self.module.type_of(name).elements

    def fills(self) -> dict[str, Function]:
        """A function for each state that starts with one value everywhere."""
        declared = {
            n: s for n, s in self.module.symbols.items() if s.kind == "state" and s.declared
        }
        return {f"{FILL}.{n}": fill_function(f"{FILL}.{n}", s) for n, s in declared.items()}

    # -- data ------------------------------------------------------------------------------
    def packed_weights(self) -> tuple[tuple[int, Callable[[], np.ndarray]], ...]:
        symbols, layouts = self.module.symbols, self.module.graph.layouts
        found: list[tuple[int, Callable[[], np.ndarray]]] = []
        for p in self.memory.placements:
            if p.space == "weights":
                name = p.tensor.removeprefix(_FIRST)
                assert isinstance(p.offset, int)
                found.append((p.offset, partial(_packed, symbols[name], layouts.get(name))))
        return tuple(found)


_FIRST = "first value of "


def _first(state: str) -> str:
    return _FIRST + state


def _staged(state: str) -> str:
    return f"next value of {state}"


def _private(k: int, buffer: Buffer) -> str:
    return f"{buffer.name} of call {k}"


def _packed(symbol: Symbol, layout: object) -> np.ndarray:
    return pack(symbol.data.array, layout)  # type: ignore[arg-type]


def _is_alias(node: Node) -> bool:
    """An op whose output has the bytes of its first input."""
    declared = TABLE.get(node.op)
    return declared is not None and "alias" in declared.traits


def _output(graph: Graph, name: str) -> str:
    """The argument of an output; an input that is passed through needs a second name."""
    return f"{name}.out" if name in graph.inputs else name


def _block(name: str, size: Size, access: str) -> Buffer:
    return Buffer(name, u8, (size,), access, alignment=ALIGNMENT)  # type: ignore[arg-type]


def _by_role(function: Function) -> list[Buffer]:
    """Results come in order: outputs first, then scratch memory."""
    return sorted(function.buffers, key=lambda b: ("in", "out", "local").index(b.access))


def _sizes(function: Function) -> tuple[Size, ...]:
    return tuple(var(s) for s in function.sizes)
