"""What programs mean, slowly: rows as lists, and the nests of the machine's operation records.

Shares nothing with the simulator but the instructions, the records and the nest interpreter.
"""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np

from nncc.ir.expr import Load
from nncc.ir.interpreter.nests import interpret_nest
from nncc.ir.nests import Param, Statement
from nncc.isa.tpu.instructions import (
    INITIAL,
    AddRows,
    CopyRows,
    FillRows,
    LookUp,
    MatrixMultiply,
    PoolMax,
    ReadHostMemory,
    ReadWeights,
    Register,
    Requantize,
    SetConfiguration,
    Sync,
    SyncHost,
    WindowSum,
    WriteHostMemory,
)

R = Register


@cache
def with_old_value(nest):
    """A reduction with what it folds into as an operand `old`; an assignment as it is."""
    (statement,) = nest.statements
    if statement.combine == "=":
        return nest
    y = nest.params[0]
    (target,) = statement.targets
    names = [str(i) for i in target.indices]
    dims = tuple(d for d in statement.dims if d.name in names)
    load = Load("old", target.indices, y.type.dtype)
    init = Statement("init", dims, (target,), "=", (load,))
    return replace(nest, params=(*nest.params, Param("old", y.type)), body=(init, statement))


class Naive:
    """A machine's memories as dicts (row, lane) -> value."""

    def __init__(self, program, machine, inputs):
        self.machine, self.a, self.program = machine, machine.array, program
        self.ub, self.acc, self.host, self.weights = {}, {}, {}, {}
        self.fifo, self.tile, self.cfg = [], None, list(INITIAL)
        for d in program.data:
            values = np.frombuffer(d.content, np.int8)
            for k, v in enumerate(values):
                if d.memory == "unified_buffer":
                    self.ub[d.address + k // self.a.rows, k % self.a.rows] = int(v)
                else:
                    self.weights[d.address * self.a.tile_bytes + k] = int(v)
        for b in program.buffers:
            if b.role == "in":
                for k, v in enumerate(inputs[b.name].reshape(-1).view(np.int8)):
                    self.host[b.address + k] = int(v)

    def run(self):
        for i in self.program.instructions:
            self.step(i)
        return {
            b.name: np.array([self.host[b.address + k] for k in range(b.bytes)], np.int8)
            for b in self.program.buffers
            if b.role == "out"
        }

    # -- which rows ------------------------------------------------------------------------

    def box(self, i, base, outer, inner, window=False):
        """Row numbers [A,B] or, with a window, [A,B,P,Q]."""
        c = self.cfg
        s1 = c[outer]
        s2 = 1 if inner is None else c[inner]
        counts = (i.height, i.width)
        strides = (s1, s2)
        if window:
            counts += (c[R.WINDOW_HEIGHT], c[R.WINDOW_WIDTH])
            strides += (c[R.WINDOW_1], c[R.WINDOW_2])
        rows = np.zeros(counts, int)
        for point in product(*map(range, counts)):
            rows[point] = base + sum(p * s for p, s in zip(point, strides, strict=True))
        return rows

    def sources(self, i):
        """(memory, rows, first lane, lanes) for each operand that is a box."""
        if isinstance(i, MatrixMultiply):
            found = [("ub", self.box(i, i.row, R.SOURCE_1, R.SOURCE_2), 0, self.a.rows)]
            if i.accumulate:
                found.append((*self.target(i)[:2], 0, self.a.columns))
            return found
        if isinstance(i, Requantize):
            return [("acc", self.box(i, i.accumulator, R.IN_1, R.IN_2), i.source_lane, i.lanes)]
        if isinstance(i, LookUp | CopyRows):
            return [("ub", self.box(i, i.source, R.IN_1, R.IN_2), i.source_lane, i.lanes)]
        if isinstance(i, AddRows):
            return [
                ("ub", self.box(i, i.source, R.IN_1, R.IN_2), i.source_lane, i.lanes),
                ("ub", self.box(i, i.other, R.OTHER_1, R.OTHER_2), i.source_lane, i.lanes),
            ]
        if isinstance(i, PoolMax | WindowSum):
            rows = self.box(i, i.source, R.IN_1, R.IN_2, window=True)
            found = [("ub", rows, i.source_lane, i.lanes)]
            if isinstance(i, WindowSum) and i.accumulate:
                found.append(self.target(i))
            return found
        if isinstance(i, WriteHostMemory):
            return [("ub", np.arange(i.row, i.row + i.rows), 0, i.lanes)]
        return []

    def blocks(self, i):
        """(memory, rows, first lane, lanes) of parameter blocks and tables."""
        if isinstance(i, Requantize):
            first, count = i.parameters, 9 * self.a.columns
        elif isinstance(i, LookUp):
            first, count = i.table, 256
        else:
            return []
        whole, rest = divmod(count, self.a.rows)
        found = [("ub", np.arange(first, first + whole), 0, self.a.rows)] if whole else []
        return found + ([("ub", np.array([first + whole]), 0, rest)] if rest else [])

    def target(self, i):
        if isinstance(i, MatrixMultiply):
            return "acc", self.box(i, i.accumulator, R.TARGET_1, None), 0, self.a.columns
        if isinstance(i, WindowSum):
            return "acc", self.box(i, i.accumulator, R.OUT_1, R.OUT_2), i.lane, i.lanes
        if isinstance(i, ReadHostMemory):
            return "ub", np.arange(i.row, i.row + i.rows), 0, self.a.rows
        if isinstance(i, Requantize | AddRows | LookUp | PoolMax | FillRows | CopyRows):
            return "ub", self.box(i, i.row, R.OUT_1, R.OUT_2), i.lane, i.lanes
        return None

    # -- values ----------------------------------------------------------------------------

    def get(self, memory, rows, lane, lanes, dtype=np.int8):
        cells = getattr(self, memory)
        flat = [[cells[int(r), lane + k] for k in range(lanes)] for r in rows.reshape(-1)]
        return np.array(flat, dtype).reshape(*rows.shape, lanes)

    def put(self, where, values):
        memory, rows, lane, lanes = where
        cells = getattr(self, memory)
        for r, line in zip(rows.reshape(-1), values.reshape(-1, lanes), strict=True):
            for k, v in enumerate(line):
                cells[int(r), lane + k] = int(v)

    def apply(self, name, sizes, **operands):
        nest = with_old_value(self.machine.operations[name].semantics)
        types = {p.name: p.type.dtype.numpy for p in nest.params}
        given = {k: np.asarray(v).astype(types[k]) for k, v in operands.items()}
        return interpret_nest(nest, given, sizes)["y"]

    def step(self, i):
        if isinstance(i, SetConfiguration):
            self.cfg[i.register] = i.value
        elif isinstance(i, ReadWeights):
            size = self.a.tile_bytes
            tile = [self.weights[i.tile * size + k] for k in range(size)]
            self.fifo.append(np.array(tile, np.int8).reshape(self.a.rows, self.a.columns))
        elif isinstance(i, ReadHostMemory):
            rows = np.full((i.rows, self.a.rows), i.fill, np.int8)
            for r, k in product(range(i.rows), range(i.lanes)):
                rows[r, k] = self.host[i.host + r * i.lanes + k]
            self.put(self.target(i), rows)
        elif isinstance(i, WriteHostMemory):
            (source,) = self.sources(i)
            for k, v in enumerate(self.get(*source).reshape(-1)):
                self.host[i.host + k] = int(v)
        elif i.unit is not None:
            self.put(self.target(i), self.computed(i))

    def computed(self, i):
        target = self.target(i)
        sizes = {"A": i.height, "B": i.width, "L": target[3]}
        boxes = self.sources(i)
        if isinstance(i, MatrixMultiply):
            if i.next_tile:
                self.tile = self.fifo.pop(0)
            sizes |= {"R": self.a.rows, "C": self.a.columns}
            name = "matmul_unsigned" if i.unsigned else "matmul"
            old = self.get(*boxes[1], np.int32) if i.accumulate else self.even(target, 0)
            return self.apply(name, sizes, x=self.get(*boxes[0]), w=self.tile, old=old)
        if isinstance(i, FillRows):
            return self.apply("fill_rows", sizes, v=i.value)
        if isinstance(i, Requantize):
            content = [self.get(*b).reshape(-1) for b in self.blocks(i)]
            block = np.concatenate(content).tobytes()
            n, used = self.a.columns, slice(i.source_lane, i.source_lane + i.lanes)
            return self.apply(
                "requantize", sizes, acc=self.get(*boxes[0], np.int32),
                bias=np.frombuffer(block[: 4 * n], "<i4")[used],
                m=np.frombuffer(block[4 * n : 8 * n], "<i4")[used],
                s=np.frombuffer(block[8 * n :], np.int8)[used], z=i.z, lo=i.lo, hi=i.hi,
            )  # fmt: skip
        x = self.get(*boxes[0])
        if isinstance(i, AddRows):
            return self.apply(
                "add_rows", sizes, x=x, o=self.get(*boxes[1]), zx=i.za, zo=i.zb, mx=i.ma,
                mo=i.mb, s=i.s, z=i.z, lo=i.lo, hi=i.hi,
            )  # fmt: skip
        if isinstance(i, LookUp):
            table = np.concatenate([self.get(*b).reshape(-1) for b in self.blocks(i)])
            return self.apply("look_up", sizes, x=x, table=table)
        if isinstance(i, CopyRows):
            return self.apply("copy_rows", sizes, x=x)
        sizes |= {"P": self.cfg[R.WINDOW_HEIGHT], "Q": self.cfg[R.WINDOW_WIDTH]}
        if isinstance(i, PoolMax):
            return self.apply("pool_max", sizes, x=x, old=self.even(target, -128))
        old = self.get(*boxes[1], np.int32) if i.accumulate else self.even(target, 0)
        return self.apply("window_sum", sizes, x=x, old=old)

    @staticmethod
    def even(target, value):
        _, rows, _, lanes = target
        return np.full((*rows.shape, lanes), value)

    # -- legality --------------------------------------------------------------------------

    def allowed(self, i):
        """Whether an instruction may run now, but for the order of units."""
        limits = {"ub": self.a.unified_rows, "acc": self.a.accumulator_rows}
        boxes = [*self.sources(i), *self.blocks(i)]
        target = self.target(i)
        for memory, rows, lane, lanes in [*boxes, *([target] if target else [])]:
            width = self.a.rows if memory == "ub" else self.a.columns
            if rows.max() >= limits[memory] or lane + lanes > width:
                return False
        for memory, rows, lane, lanes in boxes:
            cells = getattr(self, memory)
            if any((int(r), lane + k) not in cells for r in rows.flat for k in range(lanes)):
                return False
        if target:
            if len(np.unique(target[1])) != target[1].size:
                return False
            for memory, rows, _, _ in boxes:
                if memory != target[0] or isinstance(i, MatrixMultiply) or memory == "acc":
                    continue
                same = rows.size == target[1].size and (rows.flat == target[1].flatten()).all()
                blocks = any(rows is b[1] for b in self.blocks(i))
                if set(rows.flat) & set(target[1].flat) and (not same or blocks):
                    return False
        return True

    def uses(self, i):
        """({rows read}, {rows written}) as (memory, row); host buffers as a whole."""
        read = {(m, int(r)) for m, rows, _, _ in self.sources(i) for r in rows.flat}
        read |= {(m, int(r)) for m, rows, _, _ in self.blocks(i) for r in rows.flat}
        target = self.target(i)
        written = {(target[0], int(r)) for r in target[1].flat} if target else set()
        if isinstance(i, ReadHostMemory):
            read.add(("host", self.buffer(i.host)))
        if isinstance(i, WriteHostMemory):
            written.add(("host", self.buffer(i.host)))
        return read, written

    def buffer(self, address):
        (found,) = (
            b.name for b in self.program.buffers if b.address <= address < b.address + b.bytes
        )
        return found


class Order:
    """Which instruction surely comes before which: a graph, searched."""

    def __init__(self):
        self.before = []  # for each node the nodes with an edge to it
        self.last = {}  # unit -> its last node
        self.used = []  # (node, unit, rows read, rows written)

    def chain(self, unit, also=()):
        node = len(self.before)
        self.before.append([n for n in (self.last.get(unit), *also) if n is not None])
        self.last[unit] = node
        return node

    def sync(self, i):
        if isinstance(i, SyncHost):
            ends = list(self.last.values())
            for unit in list(self.last):
                self.chain(unit, ends)
            self.fence = ends
        elif isinstance(i, Sync):
            self.chain(i.waiting, (self.last.get(i.on), *getattr(self, "fence", ())))

    def all_before(self, node):
        found, todo = set(), [node]
        while todo:
            for n in self.before[todo.pop()]:
                if n not in found:
                    found.add(n)
                    todo.append(n)
        return found

    def unordered(self, unit, read, written):
        """The units of earlier instructions that conflict and are not surely complete."""
        last = self.last.get(unit)
        done = set(getattr(self, "fence", ()))
        for node in [last, *done]:
            if node is not None:
                done = done | {node} | self.all_before(node)
        return {
            u
            for n, u, r, w in self.used
            if u != unit and n not in done and (w & (read | written) or r & written)
        }

    def add(self, unit, read, written):
        node = self.chain(unit, getattr(self, "fence", ()))
        self.used.append((node, unit, read, written))
