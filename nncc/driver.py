"""From a model to something that runs: import → pipeline → back end.

load("model.onnx")                        a Module; of a compiled model's folder: an Executable
compile("model.onnx", "cpu")              an Executable
lower(module, "cpu").before("emit")       the scheduled nests, on the way
save(module, "model.nn")                  or .onnx
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

import numpy as np

from nncc import __version__
from nncc.arrays import load_arrays
from nncc.compilation import (
    CHAIN,
    Compilation,
    back_end,
    compiler_of,
    needed_macs,
    report_of,
)
from nncc.diagnostics import FrontendError, Location, NnccError, PassError
from nncc.ir.graph import Module
from nncc.machines import load as load_machine
from nncc.machines.machine import HOST, Machine
from nncc.passes import find
from nncc.passes.base import Pass
from nncc.passes.observers import Snapshots, TimePasses
from nncc.passes.pipeline import CompilerBug, Observer, has_groups, remaining, run
from nncc.passes.text import parse
from nncc.runtime.executable import Executable

if TYPE_CHECKING:
    import onnx

Model = Union[str, Path, Module, "onnx.ModelProto"]
Data = Mapping[str, np.ndarray]
Precision = Literal["int8"]


def load(path: str | Path) -> Module | Executable:
    """What is in a file: a module from `.onnx` or `.nn`, a compiled model from its folder.

    Raises NnccError (FrontendError, VerifyError, UnsupportedError, TargetError) that says what is
    wrong with it.
    """
    path = Path(path)
    return load_compiled(path) if path.is_dir() else load_module(path)


def load_module(model: Model) -> Module:
    """The module of a file, or of a model in memory. Raises NnccError."""
    if isinstance(model, Module):
        return model
    if isinstance(model, str | Path):
        path = Path(model)
        if path.is_dir():
            raise FrontendError("is a folder, not a model", Location(str(path)))
        if path.suffix == ".nn":
            return _load_text(path)
    from nncc.frontend.onnx import load as load_onnx

    return load_onnx(model)


def _load_text(path: Path) -> Module:
    """The module of a `.nn` file; schedules in it may have been written by hand and are proved.

    Raises PassError with the dependence that a schedule breaks.
    """
    from nncc.frontend.dsl import load_nn

    module = load_nn(path)
    scheduled = [n for n in module.nests.values() if n.schedule is not None]
    if scheduled:
        from nncc.passes.poly import check_schedule

        for nest in scheduled:
            check_schedule(nest)
    return module


def load_compiled(folder: str | Path, *, threads: int = 1) -> Executable:
    """A compiled model. Raises TargetError if it is damaged or not for this computer."""
    from nncc.runtime.artifact import back_end_of

    name = back_end_of(folder)
    if name == CHAIN:
        from nncc.segments import load_segments

        return load_segments(folder, threads=threads)
    return compiler_of(name).load_artifact(folder, version=__version__, threads=threads)


def save(module: Module, path: str | Path, *, opset: int | None = None) -> None:
    """Writes a module as `.nn` (any level) or `.onnx` (the graph), whole or not at all.

    Args:
        opset: of an ONNX file; None: the oldest from 17 on that expresses the graph.

    Raises FrontendError for another suffix or a folder that is not there, UnsupportedError for
    nodes that ONNX cannot express.
    """
    path = Path(path)
    try:
        if path.suffix == ".nn":
            from nncc.ir.text import write_module

            write_module(module, path)
        elif path.suffix == ".onnx":
            from nncc.frontend.onnx import save as save_onnx

            save_onnx(module, path, opset=opset)
        else:
            raise FrontendError(
                f"'{path.suffix}' is no kind of module", Location(str(path)), "use .nn or .onnx"
            )
    except OSError as error:
        where = Location(str(path))
        raise FrontendError(f"cannot be written: {error.strerror}", where) from error


def lower(
    model: Model,
    target: str | Path | Machine = "cpu",
    *,
    pipeline: str | Sequence[Pass] | None = None,
    calib: Data | str | Path | None = None,
    precision: Precision | None = None,
    host: bool = True,
    sizes: Mapping[str, int] | None = None,
    observers: Sequence[Observer] = (),
    whole: bool = False,
) -> Compilation:
    """Runs the pipeline on a model; arguments as of `compile`.

    For a target beside the host the passes after `legalize` run on each segment by itself, those
    of the host by the host's pipeline; with `whole`, all passes run on the model as it is.
    """
    module = load_module(model)
    machine = target if isinstance(target, Machine) else load_machine(target)
    notes: dict[str, str] = {}
    steps = _reporting(steps_for(module, machine, pipeline, calib, precision, host), notes)
    if not whole and not machine.is_host and cut_after(module, steps) is not None:
        from nncc.segments import lower_segments

        return lower_segments(module, machine, steps, notes, sizes or {}, observers)
    if sizes:
        steps = (find("specialize")(sizes=sizes), *steps)  # type: ignore[call-arg]
    snapshots, timer = Snapshots(), TimePasses()
    run(module, machine, steps, (*observers, timer, snapshots))
    return Compilation(module, machine, steps, tuple(m for _, m in snapshots.modules), timer, notes)


def cut_after(module: Module, steps: Sequence[Pass]) -> int | None:
    """How many steps come before a model is cut into segments; None if it never is."""
    names = [s.name for s in steps]
    if "legalize" in names:
        count = names.index("legalize") + 1
        return count if count < len(names) else None
    legalized = has_groups(module, HOST) and not module.nests
    return 0 if legalized and "lower" in names else None


def steps_for(
    module: Module,
    machine: Machine,
    pipeline: str | Sequence[Pass] | None = None,
    calib: Data | str | Path | None = None,
    precision: Precision | None = None,
    host: bool = True,
) -> tuple[Pass, ...]:
    """The passes to run: those given, or what the target's preset leaves to do for the module.

    `calib` or `precision` put `quantize` into a preset that lacks it. Raises PassError if there is
    data but nothing to use it.
    """
    preset = pipeline is None
    given = machine.pipeline if pipeline is None else pipeline
    steps = parse(given) if isinstance(given, str) else tuple(given)
    wants_quantize = calib is not None or precision == "int8"
    if wants_quantize and not any(s.name == "quantize" for s in steps):
        if not preset and not any(s.name in _BY_DATA for s in steps):
            raise PassError("the pipeline does not quantize", help="put quantize into it")
        steps = _with_quantize(steps) if preset else steps
    if preset:
        steps = remaining(steps, module, machine.device)
    if calib is not None:
        data = calib if isinstance(calib, Mapping) else load_arrays(calib, module.graph.inputs)
        steps = tuple(replace(s, calib=data) if s.name in _BY_DATA else s for s in steps)  # type: ignore[call-arg]
    if not host:
        steps = tuple(_without_host(s) for s in steps)
    return steps


def _with_quantize(steps: tuple[Pass, ...]) -> tuple[Pass, ...]:
    """Quantization comes where the graph is clean and not yet legalized for the target; what a
    model brings of it is taken over before anything is folded."""
    names = [s.name for s in steps]
    if "legalize" not in names:
        raise PassError("the target's pipeline has no place for quantize: it has no legalize")
    position = names.index("legalize")
    steps = (*steps[:position], find("quantize")(), *steps[position:])
    return steps if "integerize" in names else (find("integerize")(), *steps)


# The passes that take calibration data, and whose reports are notes of a compilation.
_BY_DATA = ("integerize", "quantize")


def _reporting(steps: Sequence[Pass], notes: dict[str, str]) -> tuple[Pass, ...]:
    """The steps, with the reports of quantization put into the notes unless they go elsewhere."""

    def note(name: str, report: object) -> None:
        notes[name] = str(report)

    return tuple(
        replace(s, on_report=partial(note, s.name))  # type: ignore[call-arg]
        if s.name in _BY_DATA and getattr(s, "on_report", note) is None
        else s
        for s in steps
    )


def _without_host(step: Pass) -> Pass:
    if any(f.name == "host" for f in fields(step)):
        return replace(step, host=False)  # type: ignore[call-arg]
    return step


def build(compilation: Compilation, *, threads: int = 1, name: str = "model") -> Executable:
    """The executable of a lowered model; it can be saved.

    Raises TargetError if the target has no back end or this computer cannot run its code,
    PassError if the pipeline did not reach the back end.
    """
    if compilation.segments:
        from nncc.segments import build_segments

        return build_segments(compilation, threads=threads, name=name)
    return build_single(compilation, threads=threads, name=name)


def build_single(compilation: Compilation, *, threads: int, name: str) -> Executable:
    """The executable of a lowered model, or segment, for one machine."""
    from nncc.passes.plan import program as program_of

    compiler = back_end(compilation.machine)
    module = compilation.module
    program = program_of(module, name)
    report = report_of(compilation)
    if not compilation.machine.is_host:
        report["macs"] = needed_macs(compilation)
    try:
        executable = compiler.compile_program(
            program, compilation.machine, threads=threads, report=report
        )
    except (NnccError, OSError):
        raise
    except Exception as error:
        raise CompilerBug(f"bug in nncc: the back end failed: {error!r}", module=module) from error

    def write(folder: Path) -> None:
        from nncc.listing import texts

        compiler.write_artifact(
            program, compilation.machine, folder, version=__version__,
            pipeline=report["pipeline"], texts=texts(compilation, name), report=report,
        )  # fmt: skip

    executable.writer = write
    return executable


def compile(
    model: Model,
    target: str | Path | Machine = "cpu",
    *,
    pipeline: str | Sequence[Pass] | None = None,
    calib: Data | str | Path | None = None,
    precision: Precision | None = None,
    threads: int = 1,
    host: bool = True,
    sizes: Mapping[str, int] | None = None,
    check: bool | Data = False,
    observers: Sequence[Observer] = (),
) -> Executable:
    """Compiles a model; the result's `run` calls it.

        net = nncc.compile("digits.onnx", calib={"image": images})
        net.run({"image": images[:7]})["logits"]

    Args:
        model: path of an .onnx or .nn file, a module (at any level), or an onnx.ModelProto.
        target: name of a target or path of a machine file.
        pipeline: passes as text or objects, instead of the target's preset.
        calib: arrays by input name, axis 0 = samples (or the path of an .npz file or a folder of
            .npy files); quantizes the model by them.
        precision: "int8" without `calib` quantizes by random inputs, with a warning.
        threads: how many threads a call uses.
        host: whether what the target cannot do may be left to the host.
        sizes: numbers in the place of named sizes. On targets whose programs have no named sizes
            those that are not given are 1, and a run with more samples is several calls.
        check: True, or arrays by input name: compare every level with the interpreter of the
            graph, on these or on random inputs; see `nncc.check`.
        observers: see `nncc.passes.observers`.

    Raises NnccError: what is wrong with the model, the options or the target; CheckError if a
    level differs from the graph.
    """
    compilation = lower(
        model, target, pipeline=pipeline, calib=calib, precision=precision, host=host,
        sizes=sizes, observers=observers,
    )  # fmt: skip
    executable = build(compilation, threads=threads, name=compilation.module.graph.name)
    if check is not False:
        from nncc.check import check as check_levels

        check_levels(compilation, executable, None if check is True else check)
    return executable
