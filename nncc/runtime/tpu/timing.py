"""When instructions run: queues, units, the weight FIFO, the shifting of tiles.

What takes how long
- Issue takes one instruction a cycle, in the order of the program. An instruction of a unit waits
  in the unit's queue and can start `issue_stages` cycles later; issue stops while a queue is full.
- Units take their instructions in order. Sync makes a unit wait; SyncHost and Halt make issue wait.
- host_read, host_write, weights: bytes / bandwidth in exact rational time, one transfer after the
  other without gaps; what was moved can be used `host_latency` or `weight_latency` cycles later.
- A tile goes to the FIFO when there is room. From there it is shifted into the array, `rows`
  cycles, beside the work with the tile before it: as soon as it is there and the tile before
  it is in use. Its place in the FIFO is free again after that.
- MatrixMultiply occupies the array for one cycle a point of its box, and starts when its tile is
  shifted in. Its results are complete `rows + columns - 2` cycles after its last point entered.
- activation: one row a cycle, of each operand and of the block or table that it needs, then
  `activation_latency`; the next instruction starts after that.
- The ports of the unified buffer and of the accumulators serve all units at the same time.

Times are integers: ticks, of which a cycle has so many that a byte of each link takes a whole
number of them. Everything but transfers starts at whole cycles.

Strict mode (`StrictTiming`) is the model of SCALE-Sim for a weight-stationary array: memories
deliver and take in no time, and nothing overlaps, so that a fold takes 2R + C + M - 2 cycles.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

from nncc.isa.tpu.instructions import (
    UNITS,
    AddRows,
    Instruction,
    LookUp,
    MatrixMultiply,
    ReadHostMemory,
    Requantize,
    Sync,
    Unit,
    WriteHostMemory,
)
from nncc.machines.machine import Machine
from nncc.machines.systolic.sizes import array_of
from nncc.runtime.tpu.execute import INDEX
from nncc.runtime.tpu.points import Points
from nncc.runtime.tpu.rows import Violation

# Why the matrix unit did not work.
WEIGHT_STALL = "weight stall"  # the tile had not come from the weight memory
WEIGHT_SHIFT = "weight shift"  # it was being shifted into the array
RAW_STALL = "raw stall"  # waiting for results of the activation unit
INPUT_STALL = "input stall"  # waiting for data from the host
OTHER = "other"  # no instruction, or it waits for another unit
NON_MATRIX = (RAW_STALL, INPUT_STALL, OTHER)
_SYNC_CAUSE = {Unit.ACTIVATION: RAW_STALL, Unit.HOST_READ: INPUT_STALL}
_MATRIX, _WEIGHTS = INDEX[Unit.MATRIX], INDEX[Unit.WEIGHTS]


@dataclass(frozen=True, slots=True)
class Span:
    """What an instruction occupied: cycles `start` to `end`, the last one excluded.

    Spans of one unit do not overlap: a cycle in which a transfer ends and the next one begins is
    the first one's.

    Args:
        done: cycle in which its result is complete.
    """

    unit: Unit
    position: int
    start: int
    end: int
    done: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Cycles in which the matrix unit did not work before an instruction, and why."""

    position: int
    start: int
    end: int
    cause: str


@dataclass(slots=True)
class _Item:
    position: int
    instruction: Instruction
    points: Points
    ready: int  # tick from which it may start
    behind: int = 0  # of a Sync: how many items of the other unit it waits for


@dataclass(slots=True)
class _Engine:
    """A unit: what waits for it, and what it has done."""

    queue: deque[_Item] = field(default_factory=deque)
    free: int = 0  # tick from which it can start something
    shown: int = 0  # cycle in which the last span ends
    started: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)  # when everything up to an item is complete

    def finish(self, start: int, free: int, done: int) -> None:
        self.free = free
        self.started.append(start)
        self.done.append(max(done, self.done[-1]) if self.done else done)


class Timing:
    """Takes instructions in the order of the program and finds when they run.

    Waiting goes from later to earlier instructions, but for room in the FIFO, which comes from
    later ones: what cannot be known yet stays in its queue. If issue needs it, that is a deadlock.
    """

    def __init__(self, machine: Machine) -> None:
        self.array = a = array_of(machine)
        clock = Fraction(machine.frequency_hz)
        weight, host = clock / a.weight_bytes_per_second, clock / a.host_bytes_per_second
        self.cycle = lcm(weight.denominator, host.denominator)  # ticks of a cycle
        self.weight_ticks = int(weight * self.cycle)  # of a byte
        self.host_ticks = int(host * self.cycle)
        self.engines = [_Engine() for _ in UNITS]
        self.issued = -self.cycle  # tick at which the last instruction was issued
        self.spans: list[Span] = []
        self.waits: list[Wait] = []
        self.arrived: list[int] = []  # tick at which each tile is in the FIFO
        self.shifted: list[tuple[int, int]] = []  # ticks in which it moves to the array
        self.used: list[int] = []  # tick at which its first multiplication starts

    @property
    def now(self) -> int:
        """The cycle in which the last instruction was issued."""
        return max(self.issued // self.cycle, 0)

    @property
    def end(self) -> int:
        """The cycle after the last one."""
        done = [e.done[-1] for e in self.engines if e.done]
        return -(-max([self.issued + self.cycle, *done]) // self.cycle)

    def issue(self, position: int, instruction: Instruction, points: Points) -> None:
        """The next instruction. Raises Violation if it can never be issued."""
        unit = instruction.waiting if isinstance(instruction, Sync) else instruction.unit
        self.issued += self.cycle
        if unit is None:
            return
        engine = self.engines[INDEX[unit]]
        ahead = len(engine.started) + len(engine.queue) - self.array.queue_depth
        if ahead >= 0:
            if ahead >= len(engine.started):
                raise Violation(f"deadlock: the queue of {unit} stays full; {self._waiting()}")
            self.issued = max(self.issued, self._whole(engine.started[ahead]))
        item = _Item(
            position, instruction, points, self.issued + self.array.issue_stages * self.cycle
        )
        if isinstance(instruction, Sync):
            other = self.engines[INDEX[instruction.on]]
            item.behind = len(other.done) + len(other.queue)
        engine.queue.append(item)
        self._settle()

    def wait(self) -> None:
        """Issue stops until all is complete. Raises Violation if that never happens."""
        if any(e.queue for e in self.engines):
            raise Violation(f"deadlock: {self._waiting()}")
        done = [e.done[-1] for e in self.engines if e.done]
        self.issued = self._whole(max([self.issued, *done]))

    def _waiting(self) -> str:
        """What the heads of the queues wait for."""
        parts = []
        for unit, engine in zip(UNITS, self.engines, strict=True):
            if not engine.queue:
                continue
            head = engine.queue[0]
            i = head.instruction
            reason = f"{i.on}" if isinstance(i, Sync) else "room in the weight FIFO"
            reason = "a weight tile" if isinstance(i, MatrixMultiply) else reason
            parts.append(f"{unit} waits for {reason} at instruction {head.position}")
        return ", ".join(parts)

    def _whole(self, tick: int) -> int:
        """The tick at which the next whole cycle begins."""
        return -(-tick // self.cycle) * self.cycle

    def _settle(self) -> None:
        """Runs whatever can be known to run."""
        progress = True
        while progress:
            progress = False
            for k, engine in enumerate(self.engines):
                while engine.queue and self._run(k, engine, engine.queue[0]):
                    engine.queue.popleft()
                    progress = True

    def _run(self, k: int, engine: _Engine, item: _Item) -> bool:
        """The head of a queue; False if it waits for what is not known yet."""
        i = item.instruction
        if isinstance(i, Sync):
            return self._sync(k, engine, item, i)
        if k == _WEIGHTS:
            return self._load_tile(engine, item)
        if k == _MATRIX:
            assert isinstance(i, MatrixMultiply)
            return self._multiply(engine, item, i)
        start = max(engine.free, item.ready)
        if isinstance(i, ReadHostMemory | WriteHostMemory):
            free = start + i.rows * i.lanes * self.host_ticks
            done = free + self.array.host_latency * self.cycle
        else:
            start = self._whole(start)
            free = done = start + self._activation_cycles(i, item.points) * self.cycle
        self._record(k, item, start, free, done)
        return True

    def _record(self, k: int, item: _Item, start: int, free: int, done: int) -> None:
        engine = self.engines[k]
        engine.finish(start, free, done)
        first = max(start // self.cycle, engine.shown)
        engine.shown = max(first, -(-free // self.cycle))
        span = Span(UNITS[k], item.position, first, engine.shown, -(-done // self.cycle))
        self.spans.append(span)

    def _activation_cycles(self, i: Instruction, points: Points) -> int:
        a = self.array
        rows = points.box * points.window * (2 if isinstance(i, AddRows) else 1)
        if isinstance(i, Requantize):
            rows += -(-9 * a.columns // a.rows)
        elif isinstance(i, LookUp):
            rows += -(-256 // a.rows)
        return rows + a.activation_latency

    def _sync(self, k: int, engine: _Engine, item: _Item, i: Sync) -> bool:
        other = self.engines[INDEX[i.on]]
        if i.on != i.waiting and len(other.done) < item.behind:
            return False
        until = item.ready
        if i.on == i.waiting:
            until = max(until, engine.done[-1] if engine.done else 0)
        elif item.behind:
            until = max(until, other.done[item.behind - 1])
        until = self._whole(until)  # units hear of each other at whole cycles
        if k == _MATRIX:
            self._idle(engine, item.position, item.ready, OTHER)
            self._idle(engine, item.position, until, _SYNC_CAUSE.get(i.on, OTHER))
        engine.finish(max(engine.free, item.ready), max(engine.free, until), until)
        return True

    def _idle(self, engine: _Engine, position: int, until: int, cause: str) -> None:
        """The matrix unit waits from when it is free until a tick."""
        until = self._whole(until)
        if until > engine.free:
            start, end = engine.free // self.cycle, until // self.cycle
            self.waits.append(Wait(position, start, end, cause))
            engine.free = until

    # -- weights ---------------------------------------------------------------------------

    def _load_tile(self, engine: _Engine, item: _Item) -> bool:
        tile = len(self.arrived)
        room = tile - self.array.fifo_tiles
        if room >= 0 and not self._shift(room):
            return False
        start = max(engine.free, item.ready, self.shifted[room][1] if room >= 0 else 0)
        free = start + self.array.tile_bytes * self.weight_ticks
        done = free + self.array.weight_latency * self.cycle
        self._record(_WEIGHTS, item, start, free, done)
        self.arrived.append(done)
        return True

    def _shift(self, tile: int) -> bool:
        """Finds when a tile is shifted into the array; False if that is not known yet."""
        while len(self.shifted) <= tile:
            k = len(self.shifted)
            if k >= len(self.arrived) or k > len(self.used):
                return False
            start = self._whole(max(self.arrived[k], self.used[k - 1] if k else 0))
            self.shifted.append((start, start + self.array.rows * self.cycle))
        return True

    def _multiply(self, engine: _Engine, item: _Item, i: MatrixMultiply) -> bool:
        tile = len(self.used)
        if i.next_tile and not self._shift(tile):
            return False
        self._idle(engine, item.position, item.ready, OTHER)
        if i.next_tile:
            begin, end = self.shifted[tile]
            self._idle(engine, item.position, begin, WEIGHT_STALL)
            self._idle(engine, item.position, end, WEIGHT_SHIFT)
        start = self._whole(engine.free)
        if i.next_tile:
            self.used.append(start)
        free = start + item.points.box * self.cycle
        a = self.array
        self._record(_MATRIX, item, start, free, free + (a.rows + a.columns - 2) * self.cycle)
        return True


class StrictTiming(Timing):
    """One fold after the other, everything else in no time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.total = 0

    @property
    def now(self) -> int:
        return self.total

    @property
    def end(self) -> int:
        return self.total

    def issue(self, position: int, instruction: Instruction, points: Points) -> None:
        if not isinstance(instruction, MatrixMultiply):
            return
        a, start = self.array, self.total
        if instruction.next_tile:
            self.waits.append(Wait(position, start, start + a.rows, WEIGHT_SHIFT))
            start += a.rows
        end = start + points.box
        done = end + a.rows + a.columns - 2
        self.spans.append(Span(Unit.MATRIX, position, start, end, done))
        if done > end:
            self.waits.append(Wait(position, end, done, OTHER))
        self.total = done

    def wait(self) -> None:
        pass
