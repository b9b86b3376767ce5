"""Where the elements of a nest's tensors are: in a buffer, or in registers.

    Addresses.address(tensor, indices, place)     physical subscripts of a buffer, and its lanes
    Addresses.register(tensor, indices, place)    the register of an element of a local tensor

A local tensor that is placed in registers has one for each element of its piece; elements are told
apart by their offset in the piece, which must be a number.
"""

from __future__ import annotations

from nncc.diagnostics import PassError
from nncc.ir.bounds import nonnegative
from nncc.ir.expr import Name
from nncc.ir.index import Size, maximum, minimum, substitute, var, variables
from nncc.ir.loops import Buffer
from nncc.ir.nests import Nest
from nncc.passes.emission.pieces import LANE, Address, Held, LogicalRange, Offset, Place, names_of
from nncc.passes.emission.scope import Names, shorten


class NotVectorizable(Exception):
    """The statement has no vector form at this place; the caller takes the lanes one by one."""


class Addresses:
    """The places of elements; `names` gives registers theirs."""

    def __init__(self, nest: Nest, names: Names) -> None:
        self.nest = nest
        self.names = names
        self.params = {p.name: p for p in nest.params}
        # local tensor -> what a register holds -> the register, and all elements in registers
        self.registers: dict[str, dict[Held, Name]] = {}
        self._elements: dict[str, dict[Offset, None]] = {}
        # (tensor, logical subscripts) -> physical ones, over the dimensions of the nest
        self._subscripts: dict[tuple[str, tuple[Size, ...]], tuple[Size, ...]] = {}

    # -- local tensors ---------------------------------------------------------------------
    def enter_registers(self, tensors: tuple[str, ...]) -> None:
        for t in tensors:
            self.registers[t], self._elements[t] = {}, {}

    def leave_registers(self, tensors: tuple[str, ...]) -> dict[str, Name]:
        """The registers that were made for `tensors`, by name."""
        made: dict[str, Name] = {}
        for t in tensors:
            made |= {r.name: r for r in self.registers.pop(t).values()}
            del self._elements[t]
        return made

    def mark(self) -> dict[str, tuple[int, int]]:
        """The registers there are, for `reset` to forget what came since."""
        return {t: (len(r), len(self._elements[t])) for t, r in self.registers.items()}

    def reset(self, mark: dict[str, tuple[int, int]]) -> None:
        for t in [t for t in self.registers if t not in mark]:
            del self.registers[t], self._elements[t]
        for t, (registers, elements) in mark.items():
            shorten(self.registers[t], registers)
            shorten(self._elements[t], elements)

    def piece_buffer(self, tensor: str, place: Place, space: str) -> Buffer:
        """The array for the piece of a local tensor that is alive at `place`."""
        low, high = place.origins[tensor]
        shape = tuple(h - lo + 1 for lo, h in zip(low, high, strict=True))
        return Buffer(tensor, self.params[tensor].type.dtype, shape, "local", space)

    def local_range(self, tensor: str, place: Place) -> LogicalRange:
        """Lowest and highest logical indices that are written of `tensor` below `place`."""
        ends: list[tuple[Size, Size]] = []
        for s in self.nest.statements:
            for t in s.targets:
                if t.tensor == tensor:
                    spans = [place.span(i) for i in t.indices]
                    ends = [
                        (minimum(a, c), maximum(b, d))
                        for (a, b), (c, d) in zip(ends or spans, spans, strict=True)
                    ]
        return tuple(a for a, _ in ends), tuple(b for _, b in ends)

    def register(self, tensor: str, indices: tuple[Size, ...], place: Place) -> Name:
        """The register of an element, or of those of all lanes.

        Raises PassError if the element is chosen at run time, NotVectorizable if a register holds
        the element together with others.
        """
        held = self._held(tensor, indices, place)
        made = self.registers[tensor]
        if held not in made:
            taken = self._elements[tensor]
            if any(e in taken for e in held.elements):
                raise NotVectorizable
            taken.update(dict.fromkeys(held.elements))
            name = self.names.fresh("_".join([tensor, *map(str, held.offset)]))
            made[held] = Name(name, self.params[tensor].type.dtype, held.lanes)
        return made[held]

    def _held(self, tensor: str, indices: tuple[Size, ...], place: Place) -> Held:
        active = place.vector.active if place.vector else 0
        key = (tensor, indices, active, place.key(names_of(*indices)))
        found = place.answers.held.get(key)
        if found is None:
            found = place.answers.held[key] = self._find_held(tensor, indices, place)
        return found

    def _find_held(self, tensor: str, indices: tuple[Size, ...], place: Place) -> Held:
        low, _ = place.origins[tensor]
        offsets: list[int] = []
        steps: list[int] = []
        for index, origin in zip(indices, low, strict=True):
            at = place.size(index)
            first = substitute(at, {LANE: 0})
            offset, step = first - origin, substitute(at, {LANE: 1}) - first
            if not isinstance(step, int) or first + var(LANE) * step != at:
                raise NotVectorizable
            if not isinstance(offset, int):
                raise PassError(
                    f"nest {self.nest.name}: '{tensor}' cannot live in registers: element "
                    f"[{','.join(str(i) for i in indices)}] is chosen at run time by {offset}",
                    self.nest.location,
                    help="unroll the loops inside its scope, or place it in a memory",
                )
            offsets.append(offset)
            steps.append(step)
        if place.vector is None or not any(steps):
            return Held(tuple(offsets), tuple(steps), 1, 1)
        vector = place.vector
        return Held(tuple(offsets), tuple(steps), vector.lanes, vector.active)

    # -- buffers ---------------------------------------------------------------------------
    def address(self, tensor: str, indices: tuple[Size, ...], place: Place) -> Address:
        """Where an element is, or those of all lanes, which must be neighbours.

        Raises NotVectorizable if they are not.
        """
        active = place.vector.active if place.vector else 0
        key = (tensor, indices, active, place.key(names_of(*indices)))
        found = place.answers.addresses.get(key)
        if found is None:
            found = place.answers.addresses[key] = self._address(tensor, indices, place)
        return found

    def _address(self, tensor: str, indices: tuple[Size, ...], place: Place) -> Address:
        physical = self._physical(tensor, indices, place)
        if not any(LANE in variables(p) for p in physical):
            return Address(physical, 1, None)
        assert place.vector is not None
        first = tuple(substitute(p, {LANE: 0}) for p in physical)
        if any(LANE in variables(p) for p in physical[:-1]) or physical[-1] - first[-1] != var(
            LANE
        ):
            raise NotVectorizable
        vector = place.vector
        if vector.active == vector.lanes:
            return Address(first, vector.lanes, None)
        room = self._extents(tensor, place)[-1] - vector.lanes
        _, highest = Place({}, place.ranges).extremes(first[-1])
        padded = self.params[tensor].layout is not None and nonnegative(room - highest)
        return Address(first, vector.lanes, None if padded else vector.active)

    def _physical(self, tensor: str, indices: tuple[Size, ...], place: Place) -> tuple[Size, ...]:
        """Physical subscripts at `place`, with LANE where lanes differ."""
        if tensor in place.origins:
            low, _ = place.origins[tensor]
            return tuple(place.size(i) - o for i, o in zip(indices, low, strict=True))
        key = (tensor, indices)
        if key not in self._subscripts:
            layout = self.params[tensor].layout
            values = {f"d{k}": i for k, i in enumerate(indices)}
            self._subscripts[key] = (
                indices if layout is None else tuple(substitute(d, values) for d in layout.dims)
            )
        return tuple(place.size(i) for i in self._subscripts[key])

    def _extents(self, tensor: str, place: Place) -> tuple[Size, ...]:
        if tensor in place.origins:
            return self.piece_buffer(tensor, place, "").shape
        param = self.params[tensor]
        return param.layout.extents if param.layout else param.type.shape
