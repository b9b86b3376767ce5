"""Models for a target beside the host: cut into segments, each lowered and built by itself.

compilation = lower_segments(module, machine, steps, …)       .segments: a compilation for each
executable = build_segments(compilation, threads=1, name="digits")

The graph passes up to `legalize` run on the whole model. Then each segment goes through the rest of
its own machine's pipeline, and what the back ends make of them is chained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nncc import __version__
from nncc.compilation import (
    CHAIN,
    Compilation,
    back_end,
    compiler_of,
    report_of,
    signature_of,
)
from nncc.diagnostics import Location, NnccError, PassError, TargetError, nearest
from nncc.driver import build_single, cut_after
from nncc.hosting import host_nodes, records, summary
from nncc.ir.graph import Module
from nncc.ir.program import Signature
from nncc.machines import load as load_machine
from nncc.machines.machine import HOST, Machine
from nncc.passes.base import Pass
from nncc.passes.legalize import Decision, Legalize
from nncc.passes.observers import Snapshots, TimePasses
from nncc.passes.partition import Segment, partition
from nncc.passes.pipeline import Observer, go_on
from nncc.passes.samples import mixed
from nncc.passes.specialize import Specialize
from nncc.passes.text import parse
from nncc.runtime.artifact import (
    Artifact,
    open_artifact,
    signature_from,
    signature_json,
    write_artifact,
)
from nncc.runtime.batched import Batched, FixedSizes
from nncc.runtime.chain import Chain, State, Wiring
from nncc.runtime.executable import Executable

Sizes = Mapping[str, int]


def lower_segments(
    module: Module,
    machine: Machine,
    steps: Sequence[Pass],
    notes: dict[str, str],
    sizes: Sizes,
    observers: Sequence[Observer],
) -> Compilation:
    """Runs the pipeline on the model, and on its segments from where it is cut.

    Args:
        steps: of the target's pipeline; `notes`: gets what passes tell.
        sizes: numbers in the place of named sizes.
    """
    static = is_static(machine)
    _check_sizes(module, sizes)
    if sizes and not static:
        steps, sizes = (Specialize(sizes=sizes), *steps), {}
    decisions: list[Decision] = []
    steps = tuple(_telling(s, decisions) for s in steps)
    count = cut_after(module, steps)
    assert count is not None, "the caller has asked"
    host = load_machine(HOST)
    rest = {"target": tuple(steps[count:]), "host": _after_legalize(host)}
    for observer in observers:
        observer.begin(module, (*steps, *rest["host"]))
    snapshots, timer = Snapshots(), TimePasses()
    whole = go_on(module, machine, steps[:count], (*observers, timer, snapshots))
    fixed = {s: sizes.get(s, 1) for s in whole.sizes} if static else {}
    segments = tuple(
        _lowered(
            segment, host if segment.device == "host" else machine, rest[segment.device],
            fixed, observers,
        )
        for segment in partition(whole)
    )  # fmt: skip
    nodes = host_nodes(whole, decisions)
    notes["host"] = summary(nodes, machine.name)
    after = tuple(m for _, m in snapshots.modules)
    return Compilation(module, machine, tuple(steps[:count]), after, timer, notes, segments, nodes)


def is_static(machine: Machine) -> bool:
    """Whether the programs of a machine have no named sizes."""
    try:
        return back_end(machine).STATIC_SIZES
    except NnccError:  # without a back end the pipeline can still be run
        return False


def _check_sizes(module: Module, sizes: Sizes) -> None:
    for name in sizes:
        if name not in module.sizes:
            raise PassError(
                f"the model has no size '{name}'", help=nearest(name, module.sizes, "sizes")
            )


def _telling(step: Pass, decisions: list[Decision]) -> Pass:
    """A step; `legalize` notes its decisions."""
    if not isinstance(step, Legalize):
        return step
    given = step.on_report

    def note(made: tuple[Decision, ...]) -> None:
        decisions.extend(made)
        if given is not None:
            given(made)

    return replace(step, on_report=note)


def _after_legalize(host: Machine) -> tuple[Pass, ...]:
    """The passes that a segment of the host still needs."""
    steps = parse(host.pipeline)
    return tuple(steps[[s.name for s in steps].index("legalize") + 1 :])


def _lowered(
    segment: Segment,
    machine: Machine,
    steps: tuple[Pass, ...],
    sizes: Sizes,
    observers: Sequence[Observer],
) -> Compilation:
    module = segment.module
    own = {s: sizes[s] for s in module.sizes if s in sizes}
    fixed = None
    if own and segment.device == "target":
        fixed = _fixed(module, own)
        steps = (Specialize(sizes=own), *steps)
    snapshots, timer = Snapshots(), TimePasses()
    go_on(module, machine, steps, (*observers, timer, snapshots))
    after = tuple(m for _, m in snapshots.modules)
    return Compilation(module, machine, steps, after, timer, {}, fixed=fixed)


def _fixed(module: Module, sizes: Sizes) -> FixedSizes:
    """What a segment is compiled for, and by which size a run may be cut into pieces."""
    reasons = {name: mixed(module, name) for name in sizes}
    split = next((name for name, reason in reasons.items() if not reason), "")
    reason = "" if split else "; ".join(reasons.values())
    return FixedSizes(sizes, split, reason)


def build_segments(compilation: Compilation, *, threads: int, name: str) -> Executable:
    """The executables of all segments, chained. Raises what `nncc.driver.build` does."""
    parts = [
        built_segment(segment, threads=threads, name=f"{name}_{k}")
        for k, segment in enumerate(compilation.segments)
    ]
    module = compilation.module
    symbols = module.symbols.items()
    states = {n: State(s.type, s.data.array) for n, s in symbols if s.kind == "state"}
    wiring = Wiring(states, module.graph.updates)
    chain = Chain(signature_of(module), parts, wiring, chain_report(compilation, parts))
    chain.writer = partial(_write, chain, compilation.segments, name)
    return chain


def built_segment(segment: Compilation, *, threads: int = 1, name: str = "model") -> Executable:
    """The executable of one segment, with the named sizes of the whole model."""
    inner = build_single(segment, threads=threads, name=name)
    if segment.fixed is None:
        return inner
    batched = Batched(signature_of(segment.source), inner, segment.fixed)
    batched.writer = inner.writer
    return batched


def chain_report(compilation: Compilation, parts: Sequence[Executable]) -> dict[str, Any]:
    """Facts about the whole model, and those about each segment."""
    machine = compilation.machine
    report = report_of(compilation)
    calls: dict[str, str] = {}
    for part in parts:
        calls |= part.report["calls"]
    for fact in ("kernels", "code_bytes", "weights_bytes"):
        report[fact] = sum(part.report[fact] for part in parts)
    return report | {
        "target": machine.name,
        "variant": machine.variant,
        "calls": calls,
        "arena_bytes": ", ".join(part.report["arena_bytes"] for part in parts),
        "host": records(compilation.host_nodes),
        "segments": [{**part.report, **_ends(part.signature)} for part in parts],
    }


def _ends(signature: Signature) -> dict[str, Any]:
    """What goes into a segment and comes out of it."""
    return {
        "inputs": {name: str(t) for name, t in signature.inputs},
        "outputs": {name: str(t) for name, t in signature.outputs},
    }


# -- artifacts ---------------------------------------------------------------------------------
def _write(chain: Chain, segments: Sequence[Compilation], name: str, folder: Path) -> None:
    """Writes a chain as an artifact with one for each part inside of it."""
    names = [f"{k}_{segment.machine.name}" for k, segment in enumerate(segments)]
    states = chain.wiring.states
    manifest = {
        "name": name,
        "backend": CHAIN,
        "target": chain.report["target"],
        "variant": chain.report["variant"],
        "pipeline": chain.report["pipeline"],
        "signature": signature_json(chain.signature),
        "states": signature_json(_state_signature(chain)),
        "first": {s: list(state.first.shape) for s, state in states.items()},
        "updates": [list(u) for u in chain.wiring.updates],
        "segments": [
            {"part": part, "backend": segment.machine.backend, "fixed": _fixed_json(executable)}
            for part, segment, executable in zip(names, segments, chain.parts, strict=True)
        ],
        "report": chain.report,
    }
    files = {f"state_{k}.bin": s.first.tobytes() for k, s in enumerate(states.values())}
    writers = {}
    for part, executable in zip(names, chain.parts, strict=True):
        assert executable.writer is not None, "it was built here"
        writers[part] = executable.writer
    write_artifact(folder, manifest, files, version=__version__, parts=writers)


def _state_signature(chain: Chain) -> Signature:
    """The states in the form of a signature."""
    return Signature(tuple((n, s.type) for n, s in chain.wiring.states.items()), (), ())


def _fixed_json(executable: Executable) -> dict[str, Any] | None:
    if not isinstance(executable, Batched):
        return None
    fixed = executable.fixed
    return {
        "sizes": dict(fixed.sizes),
        "split": fixed.split,
        "reason": fixed.reason,
        "signature": signature_json(executable.signature),
    }


def load_segments(folder: str | Path, *, threads: int = 1) -> Executable:
    """The chain of an artifact. Raises TargetError if it is damaged or not for this computer."""
    opened = open_artifact(folder, version=__version__)
    try:
        manifest = opened.manifest
        parts = [_loaded(opened, entry, threads) for entry in manifest["segments"]]
        types = signature_from(manifest["states"]).inputs
        states = {}
        for k, (name, t) in enumerate(types):
            data = np.frombuffer(opened.read(f"state_{k}.bin"), t.dtype.numpy)
            states[name] = State(t, data.reshape(manifest["first"][name]))
        updates = tuple((str(s), str(v)) for s, v in manifest["updates"])
        report = dict(manifest["report"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = Location(str(folder))
        raise TargetError(f"the manifest is wrong: {error!r}", where) from error
    return Chain(opened.signature(), parts, Wiring(states, updates), report)


def _loaded(opened: Artifact, entry: Mapping[str, Any], threads: int) -> Executable:
    part = str(entry["part"])
    if part not in opened.manifest["parts"]:
        raise KeyError(part)
    compiler = compiler_of(str(entry["backend"]))
    inner = compiler.load_artifact(opened.folder / part, version=__version__, threads=threads)
    if entry["fixed"] is None:
        return inner
    fixed = entry["fixed"]
    sizes = {str(n): int(v) for n, v in fixed["sizes"].items()}
    found = FixedSizes(sizes, str(fixed["split"]), str(fixed["reason"]))
    return Batched(signature_from(fixed["signature"]), inner, found)
