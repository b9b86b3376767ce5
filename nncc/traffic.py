"""Bytes that go into and out of each memory, as predicted, for machines that have a simulator.

    for layer, memories in predicted(compilation).items(): memories["dmem"]  →  (read, written)
    print(table(compilation))                          as `nncc show --traffic` does

The prediction is made of Loops and records of the machine, before there is code: it equals what
the simulator counts, except for what `own_bytes` of a compiled model's report tells, which the code
generator added (literal vectors, registers without room). A program some of whose tensors must wait
on the host for want of rows has no prediction.
"""

from __future__ import annotations

from collections.abc import Mapping

from nncc.compilation import Compilation
from nncc.diagnostics import NnccError, PassError
from nncc.ir.loops import Call
from nncc.ir.nests import Nest
from nncc.ir.program import MAIN, WEIGHTS, Program
from nncc.machines.machine import Machine
from nncc.machines.tta.model import Architecture
from nncc.passes.plan import program as program_of
from nncc.passes.reuse import accesses, scheduled_traffic
from nncc.runtime.statistics import Statistics

Bytes = Mapping[str, tuple[int, int]]  # by memory: read, written


def predicted(compilation: Compilation) -> dict[str, Bytes]:
    """What every layer of a compilation moves on its machine.

    Layers have the names of `Statistics.layers`; of a chain of segments, those of all that run on
    simulated machines. Raises NnccError if no part does or tensors wait on the host, PassError
    where data decide.
    """
    found: dict[str, Bytes] = {}
    parts = [p for p in compilation.segments or (compilation,) if is_simulated(p.machine)]
    if not parts:
        raise NnccError(
            f"nothing is predicted for '{compilation.machine.name}'",
            help="its memories are caches; `--target tpu` and `--target tta` have managed ones",
        )
    for part in parts:
        found |= predicted_program(program_of(part.module), part.machine)
    return found


def is_simulated(machine: Machine) -> bool:
    """Whether programs of a machine say what moves between its memories: none is a cache."""
    return machine.array is not None or machine.architecture is not None


def predicted_program(program: Program, machine: Machine) -> dict[str, Bytes]:
    """The same for one program. Raises NnccError likewise."""
    if machine.architecture is not None:
        return _addressed(program, machine, machine.architecture)
    from nncc.backends.tpu.compiler import stays
    from nncc.passes.systolic.performed import predicted as performed

    if not stays(program, machine):
        raise NnccError(
            f"no prediction for '{program.name}': the unified buffer of '{machine.name}' has too "
            "few rows for all its tensors, so some wait on the host or go there in pieces",
            help="`nncc run` counts what moves; a smaller batch or a larger buffer may help",
        )
    return dict(performed(program, machine))


def _addressed(program: Program, machine: Machine, a: Architecture) -> dict[str, Bytes]:
    """Loads and stores of a processor; constants come from a memory that it only reads."""
    operations = [
        (machine.operations[name], unit.address_space)
        for unit in a.units
        for name in unit.operation
    ]
    moving = [(o, space) for o, space in operations if o.memory is not None]
    stored = {space for o, space in moving if o.kind == "store"}
    sizes = {s.name: s.size for s in a.memories}
    data = max(stored, key=lambda space: sizes[space])
    read_only = {o.memory.bits: space for o, space in moving if o.memory and space not in stored}
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for call in program.functions[MAIN].body:
        assert isinstance(call, Call)
        function = program.functions[call.callee]
        arguments = zip(function.buffers, call.arguments, strict=True)
        constant = {b.name for b, view in arguments if view.buffer == WEIGHTS}
        own = found.setdefault(call.source or call.callee, dict.fromkeys(sizes, (0, 0)))
        for x in accesses(function, constant):
            space = read_only.get(x.bits, data) if x.buffer in constant else data
            read, written = own[space]
            own[space] = (read, written + x.bytes) if x.is_store else (read + x.bytes, written)
    return dict(found)


def counted(statistics: Statistics) -> dict[str, Bytes]:
    """What a run moved, by layer, in the same form."""
    return {
        layer.name: {m: (u.read_bytes, u.written_bytes) for m, u in layer.memories.items()}
        for layer in statistics.layers
    }


def table(compilation: Compilation) -> str:
    """The prediction for people: bytes of each layer and memory.

    Where the memories are caches, what the schedule of each nest means for them.
    """
    if not is_simulated(compilation.machine):
        nests = compilation.scheduled.nests.items()
        return "\n".join(f"{name}:\n{_cached(nest, compilation.machine)}" for name, nest in nests)
    rows = [("layer", "memory", "read", "written")]
    for layer, memories in predicted(compilation).items():
        for memory, (read, written) in memories.items():
            if read or written:
                rows.append((layer or "-", memory, str(read), str(written)))
    widths = [max(len(r[k]) for r in rows) for k in range(4)]
    return "\n".join(
        f"{r[0]:{widths[0]}}  {r[1]:{widths[1]}}  {r[2]:>{widths[2]}}  {r[3]:>{widths[3]}}"
        for r in rows
    )


def _cached(nest: Nest, machine: Machine) -> str:
    try:
        reason = scheduled_traffic(nest, machine).reason
    except PassError as error:
        reason = f"not known: {error.message}"
    return "\n".join(f"  {line}" for line in reason.splitlines())
