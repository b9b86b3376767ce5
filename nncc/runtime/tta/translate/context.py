"""Where blocks of translated code begin, and what ends them."""

from __future__ import annotations

from dataclasses import dataclass

from nncc.runtime.tta.decoded import DecodedInstruction, Key

Loops = tuple[tuple[int, int, bool], ...]
Coming = tuple[tuple[Key, int], ...]

LONGEST = 64  # instructions of a block, but for delay slots


@dataclass(frozen=True, slots=True)
class Context:
    """Where a block begins and what is known there.

    Args:
        loops: (first, last instruction, whether no other loop started inside of it) of active
            loops, the innermost last.
        coming: results on their way: port, and in how many cycles (from 1 on) they arrive.
        length: what the operand port for the instructions of a loop holds, where the next loop
            takes it from there; -1 if that is not known or not wanted.
    """

    position: int
    loops: Loops = ()
    coming: Coming = ()
    length: int = -1


class Stop(Exception):
    """The instruction cannot be part of a block."""


class LoopLengths:
    """Where the next loop takes its length from a port that was written before.

    Attributes:
        port: the operand port of the control unit for it ("" without loops).
    """

    def __init__(self, decoded: tuple[DecodedInstruction, ...]) -> None:
        self.port: Key = ("", "")
        self._wanted = [False] * (len(decoded) + 1)
        loops = (m.trigger for d in decoded for m in d.moves if m.trigger is not None)
        self.port = next((t.inputs[1] for t in loops if t.operation.kind == "loop"), self.port)
        for i in range(len(decoded) - 1, -1, -1):
            moves = decoded[i].moves
            if any(m.destination == self.port and m.guard is None for m in moves):
                continue
            starts = any(m.trigger and m.trigger.operation.kind == "loop" for m in moves)
            self._wanted[i] = starts or self._wanted[i + 1]

    def wanted(self, position: int) -> bool:
        """Whether what the port holds at a position is a loop's length, as far as jumps allow to
        see that."""
        return position < len(self._wanted) and self._wanted[position]
