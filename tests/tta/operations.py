"""Operations over virtual registers, run one after the other by what their records mean."""

from nncc.backends.tta.code import COPY, LITERAL, Branch, Item, Loop, Op, Register
from nncc.backends.tta.lower import BARRIER, Lowering
from nncc.backends.tta.memory import Memory
from nncc.backends.tta.scope import Wide
from nncc.isa.tta.verify import architecture_of
from nncc.runtime.tta.interpreter import Meaning

MASK = (1 << 32) - 1


class Operations:
    def __init__(self, machine):
        self.machine = machine
        self.meanings = {n: Meaning(o) for n, o in machine.operations.items()}

    def expression(self, e, names, limits=None):
        """A function of numbers by name that computes a scalar expression.

        Args:
            limits: between which numbers values certainly lie, by name.
        """
        memory = Memory(self.machine, architecture_of(self.machine))
        lowering = Lowering({}, None, self.machine, memory, {})
        for name, dtype in names.items():
            parts = [Register("scalar"), Register("scalar")]
            lowering.scope.values[name] = Wide(*parts) if dtype.bits == 64 else parts[0]
        lowering.scope.limits.update(limits or {})
        given = dict(lowering.scope.values)
        found = lowering.scalars.scalar(e)

        def run(values):
            registers = {}
            for name, place in given.items():
                parts = [place.low, place.high] if isinstance(place, Wide) else [place]
                for k, part in enumerate(parts):
                    registers[part] = values[name] >> (32 * k) & MASK
            self.run(lowering.words.items, registers)
            parts = [found.low, found.high] if isinstance(found, Wide) else [found]
            bits = sum(self.value(p, registers) << (32 * k) for k, p in enumerate(parts))
            width = 32 * len(parts)
            signed = e.dtype.kind == "int" and bits >> (width - 1)
            return bits - (1 << width) if signed else bits

        run.operations = len(lowering.words.items)
        return run

    @staticmethod
    def value(x, registers):
        return x & MASK if isinstance(x, int) else registers[x]

    def run(self, items: list[Item], registers) -> None:
        for item in items:
            if isinstance(item, Loop):
                for _ in range(self.value(item.trips, registers)):
                    self.run(item.body, registers)
            elif isinstance(item, Branch):
                chosen = self.value(item.condition, registers) & 1
                self.run(item.then if chosen else item.otherwise, registers)
            else:
                self.operation(item, registers)

    def operation(self, op: Op, registers) -> None:
        if op.operation == BARRIER:
            return
        inputs = [self.value(x, registers) for x in op.inputs]
        computed = inputs[0] if op.operation in (COPY, LITERAL) else None
        registers[op.result] = self.meanings[op.operation](inputs) if computed is None else computed
