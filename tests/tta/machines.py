"""Machines like the two that nncc has, with fewer or other buses, registers and latencies."""

import random
from dataclasses import replace

from nncc.machines import load
from nncc.machines.machine import Machine
from nncc.machines.tta.check import problems


def narrowed(r: random.Random) -> Machine:
    """A legal machine on which every network can be compiled."""
    machine = load(r.choice(("tta", "tta_minimal")))
    a = machine.architecture
    buses = [b.name for b in a.buses]
    if machine.name == "tta":
        # the long immediates need s4 and s5
        gone = set(r.sample(["s0", "s1", "s2", "s3", "v1", "v2"], r.randint(0, 6)))
    else:
        gone = set()
    kept = tuple(b for b in a.buses if b.name not in gone)
    sockets = tuple(replace(s, buses=tuple(b for b in s.buses if b not in gone)) for s in a.sockets)
    least = {"r": 6, "RF": 6, "vr": 4}
    files = tuple(
        replace(f, size=r.randint(least[f.name], f.size)) if f.name in least else f for f in a.files
    )
    units = tuple(
        replace(
            u,
            operations=tuple(_slower(o, r.choice((0, 0, 1, 2))) for o in u.operations),
        )
        for u in a.units
        if u.name not in ("alu1", "alu2") or r.random() < 0.6
    )
    used = {
        s for h in (*units, a.control, *files, *a.immediates) for p in h.ports for s in p.sockets
    }
    depth = r.choice((0, 1, a.control.loop_depth)) if a.control.loop_depth else 0
    operations = tuple(o for o in a.control.operations if o.operation != "hwloop" or depth)
    control = replace(
        a.control, delay_slots=r.randint(0, 4), guard_latency=r.randint(1, 3), loop_depth=depth,
        operations=operations, loop_buffer=a.control.loop_buffer if depth else 0,
    )  # fmt: skip
    assert buses
    made = replace(
        a, buses=kept, sockets=tuple(s for s in sockets if s.name in used), files=files,
        units=units, control=control,
    )  # fmt: skip
    assert list(problems(made, machine.operations)) == []
    return replace(machine, architecture=made)


def _slower(binding, extra):
    operands = tuple(
        replace(o, start=o.start + extra) if o.operand == "y" else o for o in binding.operands
    )
    return replace(binding, operands=operands)
