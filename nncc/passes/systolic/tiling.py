"""Pixels in pieces: which loops run over them, and which part an instruction's box covers.

Pixels are the dims of a statement that count rows, outermost first. The last two are the box of
an operation, `a` and `b`; the pieces are as large as a number of rows allows, from the last dim
outwards:

    pixels n in 0..64, e in 0..14, f in 0..14, at most 2048 rows
    →  for n0 in 0..64 step 10 { … for n in n0..min(n0 + 10, 64) { box a in 0..14, b in 0..14 } }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from nncc.ir.index import Size, minimum, var, weighted_sum
from nncc.ir.loops import For, Stmt
from nncc.ir.nests import Dim

BOX = ("a", "b")
# Names of the operations' dims and of buffers, which no loop variable may have.
RESERVED = frozenset("abcglpqrtwxyomsz")


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a pixel dim that one tile covers: `start` to `stop`, at most `extent` long."""

    name: str
    start: Size
    stop: Size
    extent: int


@dataclass(frozen=True)
class Tiling:
    """Loops over tiles, and the piece of each pixel dim in a tile."""

    loops: tuple[tuple[str, int, int], ...]  # variable, end, step
    pieces: tuple[Piece, ...]

    @property
    def box(self) -> tuple[Piece, Piece]:
        """The pieces that an operation's box covers; absent ones are of one pixel."""
        one = Piece("", 0, 1, 1)
        found = (one, one, *self.pieces)[-2:]
        return found[0], found[1]

    @property
    def inner(self) -> tuple[Piece, ...]:
        """The pieces over which loops run inside of a tile."""
        return self.pieces[:-2]

    @property
    def coordinates(self) -> dict[str, Size]:
        """Each pixel dim inside of the loops and the box."""
        found: dict[str, Size] = {p.name: var(variable(p.name)) for p in self.inner}
        return found | {p.name: var(b) for p, b in zip(self.box, BOX, strict=True) if p.name}

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Extents of a buffer that holds one tile."""
        return tuple(p.extent for p in self.pieces)

    def local(self) -> tuple[Size, ...]:
        """Subscripts of a buffer that holds one tile."""
        where = self.coordinates
        return tuple(where[p.name] - p.start for p in self.pieces)

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return prod(-(-end // step) for _, end, step in self.loops)

    def tiles(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """`body` for every tile."""
        for name, end, step in reversed(self.loops):
            body = (For(name, 0, end, body, step),)
        return body

    def rows(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """`body` for every box of a tile."""
        for p in reversed(self.inner):
            body = (For(variable(p.name), p.start, p.stop, body),)
        return body

    def index(self, factors: Mapping[str, int], offset: Size) -> Size:
        """A row dimension of an access: factors times pixels, and an offset."""
        where = self.coordinates
        return weighted_sum([(where[n], f) for n, f in factors.items()]) + offset


def variable(name: str) -> str:
    """The name of the loop over a dim."""
    return f"{name}_" if name in RESERVED else name


def tiled(pixels: Sequence[Dim], limit: int) -> Tiling:
    """Tiles of at most `limit` rows (at least one), as large as may be from the last dim on."""
    steps: list[int] = []
    room = limit
    for d in reversed(pixels):
        assert isinstance(d.hi, int)
        step = max(min(d.hi, room), 1)
        room //= step
        steps.append(_even(d.hi, step))
    return _of_steps(pixels, steps[::-1])


def tilings(pixels: Sequence[Dim], limit: int) -> Iterator[Tiling]:
    """Every tiling with tiles of at most `limit` rows, those that split outer dims less come first.

    Steps that give the same number of pieces are one; the last dim's is as large as fits.
    """
    sides = [_side(d) for d in pixels]
    for steps in _steps(sides, max(limit, 1)):
        yield _of_steps(pixels, steps)


def fewest_tiles(pixels: Sequence[Dim], limit: int) -> Tiling:
    """The first of `tilings` with the fewest tiles."""
    sides = [_side(d) for d in pixels]
    least = -(-prod(sides) // max(limit, 1))
    best: tuple[int, tuple[int, ...]] | None = None
    for steps in _steps(sides, max(limit, 1)):
        count = prod(-(-side // step) for side, step in zip(sides, steps, strict=True))
        if best is None or count < best[0]:
            best = count, steps
        if count == least:
            break
    assert best is not None, "single rows always fit"
    return _of_steps(pixels, best[1])


def _steps(sides: Sequence[int], room: int) -> Iterator[tuple[int, ...]]:
    if not sides:
        yield ()
        return
    side, *others = sides
    most = max(min(side, room), 1)
    lengths = {_even(side, step) for step in range(1, most + 1)} if others else {_even(side, most)}
    for length in sorted(lengths, reverse=True):
        for rest in _steps(others, room // length):
            yield length, *rest


def _side(d: Dim) -> int:
    assert isinstance(d.hi, int), "programs of arrays have literal sizes"
    return d.hi


def _even(side: int, step: int) -> int:
    """The length of equal pieces, as many as there are of `step`."""
    return -(-side // -(-side // step))


def _of_steps(pixels: Sequence[Dim], steps: Sequence[int]) -> Tiling:
    loops: list[tuple[str, int, int]] = []
    pieces: list[Piece] = []
    for d, step in zip(pixels, steps, strict=True):
        assert isinstance(d.hi, int)
        if step == d.hi:
            pieces.append(Piece(d.name, 0, d.hi, d.hi))
            continue
        start = var(f"{d.name}0")
        loops.append((f"{d.name}0", d.hi, step))
        stop = minimum(start + step, d.hi) if d.hi % step else start + step
        pieces.append(Piece(d.name, start, stop, step))
    return Tiling(tuple(loops), tuple(pieces))
